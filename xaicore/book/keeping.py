"""``xaibook keep``: what is committed of a slow edition, so that everyone's book can show it without running it.

``results/<edition>/<notebook>/`` has the form of a run's folder (:mod:`xaicore.book.running.run_folder`): the record, the
tables, the status with the date, and the executed notebook with smaller figures and without anything of the machine.
What a page's own script loads (``assets``) stays out. All is made elsewhere and takes its place at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from xaicore.book.claims.ledger import (
    committed_records,
    compare_verdicts,
    judge,
    read_verdicts,
    write_verdicts,
)
from xaicore.book.claims.schema import EDITIONS, load_claims
from xaicore.book.compact import compact_notebook, machine_paths
from xaicore.book.gate import notebook_findings
from xaicore.book.running.editions import load_edition
from xaicore.book.running.run_folder import NOTEBOOK, STATUS, RunFolder
from xaicore.book.running.runner import completed_runs
from xaicore.core.errors import UserError
from xaicore.core.files import replace_folder, write_atomically
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
        notebooks: written anew, in the order of the edition.
        left_out: notebooks of the edition without a complete run.
        size: bytes of all results of the edition.
        changes: how verdicts differ from those committed before, one line each.
        noticed: which results came from other images than those they replace, and what the notebooks show that a
            chapter of the book could not, one line each.
    """

    notebooks: tuple[str, ...]
    left_out: tuple[str, ...]
    size: int
    changes: tuple[str, ...]
    noticed: tuple[str, ...]


def kept_runs(root: Path, edition: str) -> dict[str, Path]:
    """Return notebook → folder of the committed runs of an edition whose notebooks are committed too."""
    found = {name: RunFolder(root / "results" / edition, name) for name in SCHEMAS}
    return {name: folder.final for name, folder in found.items() if folder.status() is not None}


def keep(root: Path, edition: str, *, limit: int = LIMIT_BYTES) -> Kept:
    """Write the complete runs of a slow edition, and its verdicts, to where they are committed.

    Args:
        root: the project's folder.
        edition: ``reference`` or ``paper``.
        limit: the most bytes that the results of the edition may take.

    Raises:
        UserError: it is another edition, nothing of it was run, its results take too much, or they cannot be written.
            The committed results are then as they were.
    """
    wanted = load_edition(root, edition).notebooks
    if edition not in KEPT:
        raise UserError(
            f"only {' and '.join(KEPT)} are kept with their notebooks; the records of the edition {edition} are "
            "committed by: xaibook build --verdicts accept"
        )
    done = {name: folder for name, folder in completed_runs(root, edition).items() if name in wanted}
    if not done:
        raise UserError(
            f"there is no complete run of the edition {edition}; run: xaibook run --edition {edition}"
        )
    size, noticed = commit_runs(root, edition, done, limit=limit)
    for name, folder in done.items():
        noticed += notebook_findings(folder / NOTEBOOK, wanted[name].optional_figures)
    return Kept(
        tuple(name for name in wanted if name in done),
        tuple(name for name in wanted if name not in done),
        size,
        tuple(_write_verdicts(root, edition)),
        tuple(noticed),
    )


def commit_runs(
    root: Path, edition: str, done: Mapping[str, Path], *, limit: int = LIMIT_BYTES
) -> tuple[int, list[str]]:
    """Put runs where those of an edition are committed: records and tables, of a slow one also status and notebook.

    Args:
        root: the project's folder.
        edition: the edition's name.
        done: notebook → folder of its complete run.
        limit: the most bytes that the results of the edition may take.

    Returns:
        Bytes of all results of the edition, and which came from other images than those they replace.

    Raises:
        UserError: the results take too much, or cannot be written. The committed results are then as they were.
    """
    results, work = root / "results" / edition, root / "_build" / f"keep-{edition}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        for name, folder in done.items():
            files = [
                *load_record(folder / FILE)["tables"].values(),
                FILE,
                *([STATUS] if edition in KEPT else []),
            ]
            for file in files:
                write_atomically(
                    work / name / file, (folder / file).read_bytes(), what=f"the results of {name}"
                )
            if edition in KEPT:
                notebook = compact_notebook(
                    nbformat.read(folder / NOTEBOOK, as_version=4), machine_paths(root)
                )
                text = nbformat.writes(notebook) + "\n"
                write_atomically(work / name / NOTEBOOK, text, what=f"the notebook {name}")
        stay = [path for path in results.glob("*/") if path.name not in done]
        sizes = {path.name: _size(path) for path in [*stay, *work.glob("*/")]}
        size = sum(sizes.values())
        if size > limit:
            largest = max(sizes, key=lambda name: sizes[name])
            raise UserError(
                f"the results of the edition {edition} take {_megabytes(size)}, more than the {_megabytes(limit)} that "
                f"may be committed; {largest} takes most, {_megabytes(sizes[largest])}: have it show or record less"
            )
        noticed = [line for name in done for line in _other_images(results / name, work / name)]
        for name in done:
            replace_folder(work / name, results / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return size, noticed


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


def _write_verdicts(root: Path, edition: str) -> list[str]:
    judgements = judge(load_claims(root / "claims"), {edition: committed_records(root, edition)})
    folder = root / "claims" / "verdicts"
    changes = compare_verdicts(read_verdicts(folder, edition), judgements, edition)
    write_verdicts(folder, edition, judgements)
    return changes


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
