"""Results of the benchmarks on the pages: what one more image costs, one more worker brings, and a detector gains.

The commands under ``benchmarks/`` write JSON into ``results/benchmarks``. What they measured stands on the page of
statistics and on the page about running, made from these files when the book is built. A file that is missing leaves a
sentence that says so. From how the cost of a chapter grew with its images follows an estimate of what an edition costs.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from xaicore.book.pages.markdown import table
from xaicore.book.running.display import clock
from xaicore.book.running.editions import Edition
from xaicore.core.errors import UserError
from xaicore.core.units import number
from xaicore.data import SETS
from xaicore.run.params import SCHEMAS, NotebookParameters
from xaicore.run.params.readings import Subject

FOLDER = Path("results", "benchmarks")
MARK = "<!-- measured: {} -->"

Report = Mapping[str, Any]
Series = np.ndarray[Any, Any]


def scaling_cases(report: Report) -> dict[tuple[str, str, int, int, str], Series]:
    """Return chapter, data, pixels, channels and device → number of images, seconds and MiB of each run."""
    cases: dict[tuple[str, str, int, int, str], list[Mapping[str, Any]]] = {}
    for row in report["rows"]:
        case = (row["chapter"], row["data"], row["pixels"], row["channels"], row["device"])
        cases.setdefault(case, []).append(row)
    names = ("images", "seconds", "peak_mebibytes")
    return {case: np.array([[row[name] for row in rows] for name in names]) for case, rows in cases.items()}


def scaling_table(report: Report) -> list[str]:
    """Return how time and memory of each chapter grow with the number of images, see :mod:`benchmarks.scaling`."""
    lines = []
    for (chapter, data, pixels, channels, device), (images, seconds, memory) in scaling_cases(report).items():
        more = slope(images, memory)
        lines.append(
            (
                f"{{doc}}`{chapter.split('_')[0]} </notebooks/{chapter}>`",
                f"{data}, {pixels} px",
                _listed(images, 0),
                _listed(seconds, 0),
                number(slope(images, seconds), 2),
                _listed(memory, 0),
                f"{number(more, 2)} ({more / (channels * pixels**2 * 4 / 2**20):.0f} ×)",
                device,
            )
        )
    head = ("Chapter", "Images", "Number", "Time (s)", "s an image", "Memory (MiB)", "MiB an image", "Device")
    return table(head, lines)


CLUSTER: dict[str, Callable[[Report], object]] = {
    "Workers": lambda row: row["workers"],
    "Ray (images a second)": lambda row: number(row["cluster_images_per_second"], 2),
    "local engine": lambda row: number(row["local_images_per_second"], 2),
    "gain over one worker": lambda row: f"{row['speedup']:.2f}",
    "Ray's time over local": lambda row: f"{row['overhead']:.2f}",
}
DETECTORS: dict[str, Callable[[Report], object]] = {
    "Images": lambda row: f"{row['subject']}, {row['pixels']} px",
    "Explanation": lambda row: row["explanation"].replace("_", " "),
    "Ours (s an image)": lambda row: f"{row['ours_seconds']:.3f}",
    "Plain route": lambda row: f"{row['plain_seconds']:.3f}",
    "Ratio": lambda row: f"{row['ratio']:.1f}",
    "Median difference (bits)": lambda row: number(row["median_difference"], 1),
}
"""Head of a column → what it says of a row of a report."""


def _table(columns: Mapping[str, Callable[[Report], object]], report: Report) -> list[str]:
    return table(list(columns), [[cell(row) for cell in columns.values()] for row in report["rows"]])


def cluster_table(report: Report) -> list[str]:
    """Return how throughput grows with the workers of a Ray cluster, see :mod:`benchmarks.cluster`."""
    machine = report["machine"]
    same = "equal to the last bit" if all(row["identical"] for row in report["rows"]) else "**not** identical"
    return [
        f"{report['images']} digits under the one-pixel attack in batches of {report['batch']}, on one machine with "
        f"{machine['cores']} cores ({machine['processor']}), Ray {report['versions']['ray']}, {report['date']}; the "
        f"images of all runs are {same}. The first batch of a cluster's first worker takes "
        f"{report['start_seconds']:.0f} s, which the table leaves out. The faster of {report['repeats']} passes counts.",
        "",
        *_table(CLUSTER, report),
    ]


def detectors_table(report: Report) -> list[str]:
    """Return what a detection by EXPLAINER takes beside the plain route, see :mod:`benchmarks.detectors`."""
    machine, threads = report["machine"], report["threads"]
    return [f"{machine['processor']}, {threads} threads, {report['date']}.", "", *_table(DETECTORS, report)]


TABLES: dict[str, Callable[[Report], list[str]]] = {
    "scaling": scaling_table,
    "cluster": cluster_table,
    "detectors": detectors_table,
}
"""Name of a benchmark → what a page shows of its report."""


def place_measured(root: Path, text: str) -> str:
    """Return a page with each mark ``<!-- measured: name -->`` replaced by what was measured."""
    for name, shown in TABLES.items():
        path = root / FOLDER / f"{name}.json"
        content = f"Not measured yet: `python -m benchmarks.{name} {FOLDER / path.name}` does it.\n"
        if path.is_file():
            content = "\n".join(shown(json.loads(path.read_text(encoding="utf-8"))))
        text = text.replace(MARK.format(name), content)
    return text


def slope(x: Series, y: Series) -> float:
    """The slope of the least-squares line; NaN from one point."""
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else float("nan")


def _listed(values: Series, digits: int) -> str:
    return " · ".join(f"{value:,.{digits}f}" for value in values)


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
