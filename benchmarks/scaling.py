"""How time and memory of a chapter grow with the number of its images.

``python -m benchmarks.scaling [results.json] [--only p1,p4] [--most N] [--quick]``

Each chapter is executed as it is, with the parameters of the quick edition but more and more images, one batch at a
time, each run in a new process and with an empty store but for the networks trained before, so that a run costs what its
images cost. Where ``$XAICORE_DATA`` has them, photographs are ImageNet's at 224 pixels, else the packaged twenty at 128.
With ``--only`` the rows of other chapters in an existing file stay, if machine and versions are the same.

The JSON, ``schema`` 1::

    date, machine {processor, cores, system}, versions {package: version}, quick
    rows    chapter, data, pixels (edge of an image), channels, device, images, seconds, peak_mebibytes (of the process,
            without what lies on a GPU)
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.command import Report, made_here, parser, printed, produce
from xaicore.book.running.editions import load_edition
from xaicore.core.errors import UserError
from xaicore.run.recorded import FILE, load_record
from xaicore.run.repository import working_copy

SCHEMA = 1
PACKAGES = ("xaicore", "torch", "numpy")
TRAINED = ("train", "train-head")
"""Steps whose results every run takes over."""
HEADER = f"{'chapter':24s} {'data':14s} {'images':>6s} {'seconds':>8s} {'memory (MiB)':>13s}"


@dataclass(frozen=True)
class Case:
    """A chapter, the numbers of images it is run with, and what else differs from the quick edition."""

    chapter: str
    data: str
    pixels: int
    channels: int
    counts: tuple[int, ...]
    parameters: dict[str, Any] = field(default_factory=dict)

    def given(self, count: int) -> dict[str, Any]:
        """Return the parameters with which ``count`` images are taken."""
        attacked = {"n_attacked": count // 2} if self.chapter == "p5_explainer" else {}
        return {**self.parameters, **attacked, "n_images": count}


def cases() -> list[Case]:
    """Return what is run, chapter by chapter: photographs at full size where there is a folder of them."""
    found = [
        Case("p1_inspecting_attacks", "mnist-5k, 4 and 9", 32, 1, (25, 50, 100, 200)),
        Case("p2_gradcam_shift", "orl-faces", 32, 1, (40, 80, 160, 320)),
        Case("p3_layer_by_layer", "orl-faces", 32, 1, (30, 60, 120, 240), {"second_dataset": None}),
        Case("p5_explainer", "mnist-5k", 28, 1, (100, 200, 400, 800)),
    ]
    if os.environ.get("XAICORE_DATA"):
        photographs = {"dataset": "imagenet", "size": 224}
        network = {
            "model": "efficientnet_lite0",
            "weights": "imagenet",
            "shares": None,
            "second_dataset": None,
        }
        few = {"effort": 0.05, "n_costly": 1}
        found += [
            Case("p3_layer_by_layer", "imagenet", 224, 3, (10, 20, 40), {**photographs, **network}),
            Case("p4_heat_and_blur", "imagenet", 224, 3, (10, 20, 40), {**photographs, **few}),
        ]
    else:
        found += [Case("p4_heat_and_blur", "imagenet-20", 128, 3, (5, 10, 20), {"size": 128})]
    return sorted(found, key=lambda case: case.chapter)


def executed(root: Path, case: Case, count: int, store: Path, output: Path) -> dict[str, Any]:
    """Execute a chapter in a process of its own, and return its record's provenance.

    Raises:
        UserError: the chapter failed.
    """
    quick = load_edition(root, "quick").notebooks[case.chapter].parameters
    parameters = {**quick, **case.given(count), "output_dir": str(output), "threads": 1}
    notebook = root / "notebooks" / f"{case.chapter}.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(output) + ".ipynb"]
    environment = {
        **os.environ,
        "XAICORE_STORE": str(store),
        "XAICORE_WORKERS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
    }
    command += ["--parameters_yaml", yaml.safe_dump(parameters)]
    answer = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    if answer.returncode:
        lines = answer.stderr.strip().splitlines() or ["it ended without a word"]
        raise UserError(f"{case.chapter} with {count} images: {lines[-1]}")
    provenance: dict[str, Any] = load_record(output / FILE)["provenance"]
    return provenance


def rows(root: Path, case: Case, counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield what each number of images cost."""
    with tempfile.TemporaryDirectory() as folder:
        trained = Path(folder) / "trained"
        executed(root, case, counts[0], trained, Path(folder) / "first")
        for count in counts:
            store = Path(folder) / f"store-{count}"
            for step in TRAINED:
                if (trained / step).is_dir():
                    shutil.copytree(trained / step, store / step)
            spent = executed(root, case, count, store, Path(folder) / str(count))
            shutil.rmtree(store)
            yield {
                "chapter": case.chapter,
                "data": case.data,
                "pixels": case.pixels,
                "channels": case.channels,
                "device": spent["device"],
                "images": count,
                "seconds": spent["seconds"],
                "peak_mebibytes": spent["peak_memory_bytes"] / 2**20,
            }


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of the table."""
    return (
        f"{row['chapter']:24s} {row['data']:14.14s} {row['images']:6d} {row['seconds']:8.1f} "
        f"{row['peak_mebibytes']:13.0f}"
    )


def report(chosen: Sequence[Case], root: Path, most: int | None, quick: bool) -> Report:
    """Run the cases, print each row as it comes, and return the report.

    Raises:
        UserError: a chapter failed.
    """

    def each() -> Iterator[Report]:
        for case in chosen:
            counts = [count for count in case.counts if count <= (most or count)] or case.counts[:1]
            yield from rows(root, case, counts[: 2 if quick else None])

    return {**made_here(SCHEMA, PACKAGES, quick=quick), "rows": printed(HEADER, each(), line, end=False)}


def earlier(path: Path, quick: bool) -> Report:
    """Return the report that a file holds.

    Raises:
        UserError: it was not made as one would be now.
    """
    before: Report = json.loads(path.read_text(encoding="utf-8"))
    now = made_here(SCHEMA, PACKAGES, quick=quick)
    if any(before.get(name) != now[name] for name in now if name != "date"):
        raise UserError(f"{path} is of another machine or version: give another name, or leave out --only")
    return before


def joined(before: Report, now: Report) -> Report:
    """Return the rows of ``now``, and those of ``before`` for other chapters, in the order of :func:`cases`."""
    again = {row["chapter"] for row in now["rows"]}
    order = list(dict.fromkeys(case.chapter for case in cases()))
    found = [row for row in before["rows"] if row["chapter"] not in again] + now["rows"]
    return {**now, "rows": sorted(found, key=lambda row: order.index(row["chapter"]))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    about = "Time and memory of chapters by number of images."
    command = parser("scaling", about, quick="the two smallest numbers", most=(None, "most images"))
    command.add_argument("--only", metavar="p1,p4", help="chapters whose names begin so")
    options = command.parse_args(arguments)

    def work() -> Report:
        root = working_copy()
        if root is None:
            raise UserError("call this in a working copy of the project: it executes its notebooks")
        known = sorted({case.chapter for case in cases()})
        beginnings = tuple((options.only or "p").split(","))
        chosen = [case for case in cases() if case.chapter.startswith(beginnings)]
        if not chosen:
            raise UserError(f"--only names no chapter that is measured; there are {', '.join(known)}")
        kept = options.only and options.path and options.path.exists()
        before = earlier(options.path, options.quick) if kept else {"rows": []}
        return joined(before, report(chosen, root, options.most, options.quick))

    return produce(options.path, work)


if __name__ == "__main__":
    sys.exit(main())
