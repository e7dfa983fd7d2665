"""The order of the tests, the longest files first, so that two processes, which share the files, end together; what
several files use.

After the run, what was skipped is counted by its reason, which says how to have it.
"""

from __future__ import annotations  # pytest 8.3 does not name TerminalReporter

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import Browser
from xaicore import models
from xaicore.book.pages.one_file import ABSENT, chromium
from xaicore.models import Classifier

LONG = [
    "book", "runner", "faults", "attacks_carlini_wagner_l0", "benchmarks", "attacks_lbfgs", "attacks_boundary",
    "chapter2", "attacks_patch", "attacks_carlini_wagner_linf", "chapter3", "bootstrap", "kernel", "attacks_iterated",
    "attacks_carlini_wagner_l2", "attacks_odd_models", "signatures",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest files to the front, the longest first; all others keep their order."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what was skipped by its reason, which says how to have it."""
    skipped = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in skipped.most_common():
        terminalreporter.write_line(f"{count} not run: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="module")
def model() -> Classifier:
    """A small untrained network, for what does not depend on the weights."""
    return models.load("small_cnn", classes=4, channels=1, input_size=28, seed=3)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, for pages as their readers have them."""
    command = chromium()
    if command is None:
        pytest.skip(ABSENT)
    with Browser(command) as opened:
        yield opened


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
            pytest.skip(
                "no small disk can be mounted here; run the tests as root (in a container, with --privileged)"
            )
        if not again:
            mounted.append(folder)

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=True)
