"""The order of the tests: the book first, since it takes longest and two processes share the files between them."""

import pytest

LONG = ("test_book.py", "test_chapter2.py", "test_runner.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest files to the front; all others keep their order."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
