"""The order of the tests, the book first, since it takes longest and two processes share the files; and a small disk."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LONG = ("test_book.py", "test_chapter2.py", "test_runner.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest files to the front; all others keep their order."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], None]]:
    """Mounts a disk of so many bytes at a folder, or gives the one that is there another size."""
    mounted: list[Path] = []

    def mount(folder: Path, size: int) -> None:
        again = folder in mounted
        folder.mkdir(parents=True, exist_ok=True)
        options = f"{'remount,' if again else ''}size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            done = False
        if not done:
            pytest.skip("no small disk can be mounted here, so none was filled")
        if not again:
            mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
