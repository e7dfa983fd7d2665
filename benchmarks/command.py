"""What the benchmark commands have in common: their arguments, what a report says of its making, and its file."""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import torch

from xaicore.core.errors import UserError
from xaicore.core.files import write_atomically
from xaicore.core.machine import device_name

Report = dict[str, Any]
INTERRUPTED = 130


def positive(text: str) -> int:
    """Return the number in ``text`` if it is a whole one above 0."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parser(
    name: str, description: str, *, quick: str, threads: bool = False, **numbers: tuple[int | None, str]
) -> argparse.ArgumentParser:
    """Return the parser of ``python -m benchmarks.<name>``, with the path of the report and ``--quick``.

    Args:
        name: of the module.
        description: in a line.
        quick: what ``--quick`` does.
        threads: whether there is ``--threads``.
        numbers: other options that take a whole number above 0, each with its default and its help.
    """
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("path", nargs="?", type=Path, help="where to write the JSON")
    if threads:
        numbers["threads"] = torch.get_num_threads(), "of torch"
    for option, (default, what) in numbers.items():
        made.add_argument(f"--{option}", type=positive, metavar=option[0].upper(), default=default, help=what)
    made.add_argument("--quick", action="store_true", help=f"{quick}: does it run?")
    return made


def only(given: str, known: Iterable[str]) -> list[str]:
    """Return the names in ``--only``, which have commas between.

    Raises:
        UserError: there is none, or one is unknown.
    """
    known = list(known)
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(f"--only names {', '.join(unknown) or 'nothing'}; there are {', '.join(known)}")
    return names


def produce(
    path: Path | None, work: Callable[[], Report], *, good: Callable[[Report], bool] = lambda report: True
) -> int:
    """Do the work of a command, write its report, and return the command's exit code.

    Args:
        path: where the report goes; None: nowhere.
        work: returns the report, or raises :class:`UserError` where it cannot do what was asked for.
        good: whether what the report says is as it must be.

    Returns:
        0; 1 if the report is not good; 2 after a mistake, which is told in one line; 130 after Ctrl-C.
    """
    try:
        if path and not path.absolute().parent.is_dir():
            raise UserError(f"there is no folder {path.parent} to write to")
        report = work()
        if path:
            content = json.dumps(report, indent=2, allow_nan=False) + "\n"
            write_atomically(path, content, what="the report")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        return INTERRUPTED
    return 0 if good(report) else 1


def made_here(
    schema: int, packages: Iterable[str], others: Mapping[str, str] | None = None, **settings: Any
) -> Report:
    """Return the beginning of a report: ``schema``, ``date``, ``machine``, ``versions`` and the command's settings.

    The machine is what the times depend on, without anything that identifies it; versions are those of ``packages`` and
    of ``others``.
    """
    return {
        "schema": schema,
        "date": date.today().isoformat(),
        "machine": {"processor": device_name("cpu"), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {**(others or {}), **{name: importlib.metadata.version(name) for name in packages}},
        **settings,
    }


@contextmanager
def threads_of(number: int) -> Iterator[None]:
    """Let torch have so many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def printed(
    header: str, rows: Iterable[Report], line: Callable[[Report], str], *, end: bool = True
) -> list[Report]:
    """Return rows, each printed at once as a line of a table, and at the end how many missed their goal."""
    print_now(header)
    found: list[Report] = []
    for row in rows:
        found.append(row)
        print_now(line(row))
    if end:
        print_now(f"{len(found)} rows, {sum(not row['met'] for row in found)} missed")
    return found


def print_now(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)
