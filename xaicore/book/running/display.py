"""What the screen shows while notebooks run: bars with the expected time on a terminal, plain lines elsewhere."""

import json
import sys
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

LINE_EVERY_SECONDS = 15.0


@dataclass
class Row:
    """One notebook on the screen.

    Attributes:
        notebook: its name.
        expected_seconds: how long it is said to take.
        state: ``waiting``, ``running``, or how it ended.
        begin: when it began, by ``time.monotonic()``.
        seconds: how long it took, once it has ended.
    """

    notebook: str
    expected_seconds: float
    state: str = "waiting"
    begin: float = 0.0
    seconds: float | None = None
    step: str = ""
    done: str = ""
    warnings: list[str] = field(default_factory=list)
    _place: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        if self.seconds is not None:
            return self.seconds
        return time.monotonic() - self.begin if self.begin else 0.0

    @property
    def share(self) -> float:
        """How much of it is done, in [0, 1]: by the expected time, below 1 until it has ended well."""
        if self.state in ("completed", "up to date"):
            return 1.0
        return min(self.elapsed / self.expected_seconds, 0.99) if self.expected_seconds else 0.0

    def follow(self, progress: Path) -> None:
        """Take in what was appended to the progress file since the last call."""
        try:
            with progress.open("rb") as file:
                file.seek(self._place)
                content = file.read()
        except OSError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._place += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                if "warning" in event:
                    self.warnings.append(str(event["warning"]))
                else:
                    self.step = event["step"]
                    self.done = f"{event['done']}/{event['total']}" if event["total"] else ""


class PlainLines(AbstractContextManager["PlainLines"]):
    """A line whenever a step changes, and every quarter of a minute."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float]] = {}

    def __exit__(self, *error: object) -> None:
        """There is nothing to clear away."""

    def update(self, rows: list[Row]) -> None:
        """Show how far things are."""
        now = time.monotonic()
        for row in rows:
            step, when = self._said.get(row.notebook, ("", row.begin))
            if row.state != "running" or (row.step == step and now - when < LINE_EVERY_SECONDS):
                continue
            self._said[row.notebook] = (row.step, now)
            part = f"{row.step} {row.done}".rstrip() or "starting"
            self.say(f"{row.notebook}: {part}, {clock(row.elapsed)} of about {clock(row.expected_seconds)}")

    def say(self, line: str) -> None:
        """Show a line that stays."""
        print(line, flush=True)


class Bars(PlainLines):
    """A bar for each notebook, drawn anew as things go on."""

    def __init__(self) -> None:
        self._live = Live(refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def update(self, rows: list[Row]) -> None:
        """Draw the rows."""
        table = Table(box=None, pad_edge=False, show_header=False)
        for row in rows:
            step = f"{row.step} {row.done}".rstrip() if row.state == "running" else row.state
            bar = ProgressBar(total=1.0, completed=row.share, width=20)
            elapsed = f"{clock(row.elapsed)} of about {clock(row.expected_seconds)}"
            table.add_row(row.notebook, bar, elapsed, step)
        self._live.update(table)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)


def display() -> PlainLines:
    """Return bars where the output is a terminal, else plain lines."""
    return Bars() if sys.stdout.isatty() else PlainLines()


def clock(seconds: float) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
