"""Results of the benchmarks on the pages: what one more image costs, one more worker brings, and a detector gains.

The commands under ``benchmarks/`` write JSON into ``results/benchmarks``. What they measured stands on the page of
statistics and on the page about running, made from these files when the book is built. A file that is missing leaves a
sentence that says so.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xaicore.book.pages.markdown import table
from xaicore.core.units import number

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


def cluster_table(report: Report) -> list[str]:
    """Return how throughput grows with the workers of a Ray cluster, see :mod:`benchmarks.cluster`."""
    head = (
        "Workers",
        "Ray (images a second)",
        "local engine",
        "gain over one worker",
        "Ray's time over local",
    )
    lines = [
        (
            row["workers"],
            number(row["cluster_images_per_second"], 2),
            number(row["local_images_per_second"], 2),
            f"{row['speedup']:.2f}",
            f"{row['overhead']:.2f}",
        )
        for row in report["rows"]
    ]
    machine = report["machine"]
    same = "equal to the last bit" if all(row["identical"] for row in report["rows"]) else "**not** identical"
    return [
        f"{report['images']} digits under the one-pixel attack in batches of {report['batch']}, on one machine with "
        f"{machine['cores']} cores ({machine['processor']}), Ray {report['versions']['ray']}, {report['date']}; the "
        f"images of all runs are {same}. The first batch of a cluster's first worker takes "
        f"{report['start_seconds']:.0f} s, which the table leaves out. The faster of {report['repeats']} passes counts.",
        "",
        *table(head, lines),
    ]


def detectors_table(report: Report) -> list[str]:
    """Return what a detection by EXPLAINER takes beside the plain route, see :mod:`benchmarks.detectors`."""
    head = ("Images", "Explanation", "Ours (s an image)", "Plain route", "Ratio", "Median difference (bits)")
    lines = [
        (
            f"{row['subject']}, {row['pixels']} px",
            row["explanation"].replace("_", " "),
            f"{row['ours_seconds']:.3f}",
            f"{row['plain_seconds']:.3f}",
            f"{row['ratio']:.1f}",
            number(row["median_difference"], 1),
        )
        for row in report["rows"]
    ]
    machine, threads = report["machine"], report["threads"]
    return [f"{machine['processor']}, {threads} threads, {report['date']}.", "", *table(head, lines)]


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
