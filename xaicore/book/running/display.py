"""What the screen shows while notebooks run: a live table on a terminal, plain lines elsewhere."""

import json
import sys
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from rich.live import Live
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


class LiveTable(PlainLines):
    """A table that is drawn anew as things go on."""

    def __init__(self) -> None:
        self._live = Live(refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def update(self, rows: list[Row]) -> None:
        """Draw the rows."""
        table = Table("notebook", "step", "done", "elapsed", "expected", box=None, pad_edge=False)
        for row in rows:
            step, done = (row.step, row.done) if row.state == "running" else (row.state, "")
            table.add_row(row.notebook, step, done, clock(row.elapsed), clock(row.expected_seconds))
        self._live.update(table)

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)


def display() -> PlainLines:
    """Return a live table where the output is a terminal, else plain lines."""
    return LiveTable() if sys.stdout.isatty() else PlainLines()


def clock(seconds: float) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
