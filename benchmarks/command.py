"""What the benchmark commands have in common: their arguments, what a report says of its making, and its file."""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from xaicore.core.errors import UserError
from xaicore.core.files import write_atomically
from xaicore.core.machine import device_name

Report = dict[str, Any]
INTERRUPTED = 130


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m benchmarks.<name>``, with the path of the report."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("path", nargs="?", type=Path, help="where to write the JSON")
    return made


def positive(text: str) -> int:
    """Return the number in ``text`` if it is a whole one above 0."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


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
            write(path, report)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        return INTERRUPTED
    return 0 if good(report) else 1


def made_here(schema: int, versions: Mapping[str, str]) -> Report:
    """Return the beginning of a report: ``schema``, ``date``, ``machine`` and ``versions``."""
    return {
        "schema": schema,
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": dict(versions),
    }


def machine() -> dict[str, Any]:
    """Return what the times depend on, without anything that identifies the machine."""
    return {"processor": device_name("cpu"), "cores": os.cpu_count(), "system": platform.system()}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return package → version."""
    return {name: importlib.metadata.version(name) for name in packages}


def print_now(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def write(path: Path, report: Report) -> None:
    """Write the report as JSON, whole or not at all.

    Raises:
        UserError: the disk is full.
    """
    write_atomically(path, json.dumps(report, indent=2, allow_nan=False) + "\n", what="the report")
