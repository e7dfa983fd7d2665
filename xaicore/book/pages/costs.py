"""What an edition costs, estimated from how the cost of a chapter grew with its images where that was measured."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np

from xaicore.book.pages.markdown import table
from xaicore.book.pages.measured import FOLDER, Report, Series, scaling_cases, slope
from xaicore.book.running.display import clock
from xaicore.book.running.editions import Edition
from xaicore.core.errors import UserError
from xaicore.core.units import number
from xaicore.data import SETS
from xaicore.run.params import SCHEMAS, NotebookParameters
from xaicore.run.params.readings import Subject

COLUMNS = ("notebook", "images", "measured with", "s an image", "time", "memory", "the edition expects")
NOTE = """\
Time and memory were measured on {processor} with one thread and the parameters of the quick edition, and are extrapolated
linearly to so many images. It is this processor's time, not a GPU's; memory is that of the notebook's process at its
largest. Larger images, other networks, more steps of an attack and training are not in it: what the edition's file
expects on the machine that it is for stands in the last column."""


def cost_rows(root: Path, edition: Edition) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table with :data:`COLUMNS`, one for what each notebook attacks or explains first.

    Raises:
        UserError: nothing was measured.
    """
    cases = scaling_cases(_report(root))
    for name, run in edition.notebooks.items():
        parameters = SCHEMAS[name].of_record(run.parameters)
        subject = parameters.subjects[0]
        count = _count(parameters, subject)
        expects = clock(run.expected_seconds)
        if run.expected_memory_mb:
            expects += f", {run.expected_memory_mb / 1024:.1f} GiB"
        # The nearest in size, of those that were measured of the chapter.
        near = {abs(math.log((subject.size or key[2]) / key[2])): key for key in cases if key[0] == name}
        estimate = ("not measured", "", "", "")
        if near:
            key = near[min(near)]
            images, seconds, memory = cases[key]
            estimate = (
                f"{key[1]}, {key[2]} px",
                number(slope(images, seconds), 2),
                clock(_at(images, seconds, count)) if count else "",
                f"{_at(images, memory, count) / 1024:.1f} GiB" if count else "",
            )
        yield (name, f"{count:,}" if count else f"all of {subject.dataset}", *estimate, expects)


def costs_table(root: Path, edition: Edition) -> str:
    """Return the table and what its numbers are, in Markdown."""
    return "\n".join([*table(COLUMNS, list(cost_rows(root, edition))), cost_note(root)])


def cost_note(root: Path) -> str:
    """Return what the numbers of :func:`cost_rows` are, and are not."""
    return NOTE.format(**_report(root)["machine"])


def _report(root: Path) -> Report:
    path = root / FOLDER / "scaling.json"
    if not path.is_file():
        raise UserError(f"nothing is measured yet; run: python -m benchmarks.scaling {FOLDER / path.name}")
    return cast(Report, json.loads(path.read_text(encoding="utf-8")))


def _count(parameters: NotebookParameters, subject: Subject) -> int | None:
    """Return the number of images; None where it is all of a set that need not be here."""
    if subject.n or SETS[subject.dataset].read_root is not None:
        return subject.n
    return len(next(r for r in reversed(parameters.readings) if r.dataset == subject.dataset).load()[-1])


def _at(images: Series, costs: Series, count: int) -> float:
    """The least-squares line through what was measured, at another number of images."""
    return float(np.polyval(np.polyfit(images, costs, 1), count))
