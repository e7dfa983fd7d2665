"""``xaibook keep``: what is committed of an edition's runs, which the claims are judged by.

``results/<edition>/<notebook>/`` has the record and the tables of the run with the edition's first seed, and of all runs
the pooled evidence and the outcomes of each image (:mod:`xaicore.run.evidence`). Of slow editions it has the status with
the date and the executed notebook, too, with smaller figures and without anything of the machine, so that everyone's book
can show it. What a page's own script loads (``assets``) stays out. All is made elsewhere and takes its place at the end.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from xaicore.book.claims.ledger import accept_verdicts, committed_evidence
from xaicore.book.claims.schema import EDITIONS
from xaicore.book.compact import compact_notebook, machine_paths
from xaicore.book.gate import notebook_findings
from xaicore.book.running.editions import Edition, load_edition
from xaicore.book.running.run_folder import NOTEBOOK, STATUS, RunFolder
from xaicore.book.running.runner import completed_runs
from xaicore.core.errors import UserError
from xaicore.core.files import replace_folder, write_atomically
from xaicore.run.evidence import EVIDENCE, KEPT_OUTCOMES, load_outcomes, pool
from xaicore.run.params import SCHEMAS
from xaicore.run.records import FILE, load_record

KEPT = tuple(edition for edition in EDITIONS if edition != "embedded")
"""The editions whose notebooks are committed; everyone's own build makes those of the embedded one."""

LIMIT_BYTES = 40_000_000
"""The most that the results of one edition may take."""


@dataclass(frozen=True)
class Kept:
    """What a call of :func:`keep` has done.

    Attributes:
        notebooks: written anew, in the order of the edition, and over how many runs.
        left_out: notebooks of the edition without a complete run.
        size: bytes of all results of the edition.
        changes: how verdicts differ from those committed before, one line each.
        noticed: whose committed results stay since they rest on more runs, which results came from other images than
            those they replace, and what the notebooks show that a chapter of the book could not, one line each.
    """

    notebooks: Mapping[str, int]
    left_out: tuple[str, ...]
    size: int
    changes: tuple[str, ...]
    noticed: tuple[str, ...]


def kept_runs(root: Path, edition: str) -> dict[str, Path]:
    """Return notebook → folder of the committed runs of an edition whose notebooks are committed too."""
    found = {name: RunFolder(root / "results" / edition, name) for name in SCHEMAS}
    return {name: folder.final for name, folder in found.items() if folder.status() is not None}


def keep(root: Path, edition: str) -> Kept:
    """Put the complete runs of an edition, pooled over their seeds, to where they are committed, and judge anew.

    A notebook keeps what is committed where fewer runs are complete than that rests on.

    Args:
        root: the project's folder.
        edition: its name.

    Raises:
        UserError: claims are not judged by this edition, nothing of it was run, runs differ in more than their seed, the
            results take too much, or cannot be written. The committed results are then as they were.
    """
    wanted = load_edition(root, edition)
    if edition not in EDITIONS:
        raise UserError(f"only {', '.join(EDITIONS)} are kept, whose results judge claims; not {edition}")
    done = {name: _runs(root, wanted, name) for name in wanted.notebooks}
    if not any(done.values()):
        raise UserError(
            f"there is no complete run of the edition {edition}; run: xaibook run --edition {edition}"
        )
    committed = committed_evidence(root).get(edition, {})
    before = {name: len(committed[name]["seeds"]) if name in committed else 1 for name in done}
    chosen = {name: runs for name, runs in done.items() if len(runs) >= before[name]}
    fewer = [
        f"{name}: {len(runs)} complete runs, the committed evidence has {before[name]} and stays"
        for name, runs in done.items()
        if 0 < len(runs) < before[name]
    ]
    size, noticed = _commit(root, edition, chosen)
    for name, runs in chosen.items() if edition in KEPT else ():
        noticed += notebook_findings(runs[0] / NOTEBOOK, wanted.notebooks[name].optional_figures)
    return Kept(
        {name: len(runs) for name, runs in chosen.items()},
        tuple(name for name, runs in done.items() if not runs),
        size,
        tuple(accept_verdicts(root)),
        (*fewer, *noticed),
    )


def _runs(root: Path, edition: Edition, notebook: str) -> list[Path]:
    """Return the folders of a notebook's complete runs, that of the first seed first; none where that is missing."""
    seeds = [None, *(seed for seed in edition.seeds_of(notebook) if seed != edition.seeds[0])]
    found = [completed_runs(root, edition.name, seed).get(notebook) for seed in seeds]
    return [folder for folder in found if folder] if found[0] else []


def _commit(root: Path, edition: str, done: Mapping[str, list[Path]]) -> tuple[int, list[str]]:
    """Write the results of notebooks; return the bytes of the edition's, and which came from other images than before."""
    results, work = root / "results" / edition, root / "_build" / f"keep-{edition}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        for name, runs in done.items():
            _write(work / name, runs, with_notebook=edition in KEPT, paths=machine_paths(root))
        stay = [path for path in results.glob("*/") if path.name not in done]
        sizes = {path.name: _size(path) for path in [*stay, *work.glob("*/")]}
        size = sum(sizes.values())
        if size > LIMIT_BYTES:
            largest = max(sizes, key=lambda name: sizes[name])
            raise UserError(
                f"the results of the edition {edition} take {_megabytes(size)}, more than the "
                f"{_megabytes(LIMIT_BYTES)} that may be committed; {largest} takes most, {_megabytes(sizes[largest])}: "
                "have it show or record less"
            )
        noticed = [line for name in done for line in _other_images(results / name, work / name)]
        for name in done:
            replace_folder(work / name, results / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return size, noticed


def _write(target: Path, runs: Sequence[Path], *, with_notebook: bool, paths: Mapping[str, str]) -> None:
    """Write what is committed of a notebook's runs: of the first the record and tables, of all evidence and outcomes."""
    what = f"the results of {target.name}"
    first, records = runs[0], [load_record(folder / FILE) for folder in runs]
    for file in (FILE, *records[0]["tables"].values(), *([STATUS] if with_notebook else [])):
        write_atomically(target / file, (first / file).read_bytes(), what=what)
    outcomes = [load_outcomes(folder) for folder in runs]
    if len(runs) > 1:
        text = json.dumps(pool(records, outcomes), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(target / EVIDENCE, text, what=what)
    frames = [
        frame.assign(seed=record["parameters"].get("seed", 0))
        for frame, record in zip(outcomes, records, strict=True)
        if frame is not None
    ]
    if frames:
        text = (
            pd.concat(frames)
            .astype({"image": "Int64"})
            .to_csv(index=False, float_format="%.7g", lineterminator="\n")
        )
        write_atomically(target / KEPT_OUTCOMES, gzip.compress(text.encode(), mtime=0), what=what)
    if with_notebook:
        notebook = compact_notebook(nbformat.read(first / NOTEBOOK, as_version=4), paths)
        write_atomically(target / NOTEBOOK, nbformat.writes(notebook) + "\n", what=what)


def _other_images(committed: Path, new: Path) -> list[str]:
    """Return a line where a run looked at other images than the committed one: nobody's own data should slip in."""
    try:
        before, now = (_images(load_record(folder / FILE)) for folder in (committed, new))
    except UserError:  # nothing is committed yet
        return []
    changed = [
        f"{' '.join(key)}: {now[key][0]:,} images, before {before[key][0]:,}"
        for key in now
        if key in before and now[key] != before[key]
    ]
    changed += [f"{' '.join(key)}: new" for key in now if key not in before]
    if not changed:
        return []
    return [f"{new.name} looked at other images than the results it replaces ({'; '.join(changed)})"]


def _images(record: dict[str, Any]) -> dict[tuple[str, str], tuple[int, str]]:
    data = record["provenance"]["data"]
    return {(item["name"], item["split"]): (item["n"], item["fingerprint"]) for item in data}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
