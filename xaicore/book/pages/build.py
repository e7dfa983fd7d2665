"""``xaibook build``: judge the claims, stage the pages, run Sphinx, pass the gate, put the book in its place.

The book under ``_build/html`` is replaced only by one that passed every check, so a failed build never leaves half a
book behind.
"""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import nbformat

from xaicore.book.claims.ledger import changed_verdicts
from xaicore.book.compact import machine_paths
from xaicore.book.gate import html_findings, notebook_findings, sizes
from xaicore.book.pages.committed import Committed
from xaicore.book.pages.staging import EXTRA, stage
from xaicore.book.pages.words import findings as word_findings
from xaicore.book.running.editions import load_edition
from xaicore.book.running.run_folder import NOTEBOOK
from xaicore.book.running.runner import completed_runs
from xaicore.book.verify import summary, verify
from xaicore.core.errors import UserError
from xaicore.core.files import disk_full, one_line, replace_folder
from xaicore.core.fingerprint import digest
from xaicore.run.records import FILE, load_record
from xaicore.run.repository import public_repository

JUPYTER_BOOK = """
import gc, os
from functools import partial
from jupyter_book import sphinx
from jupyter_book.cli.main import main

gc.set_threshold(200_000, 50, 1000)
sphinx.build_sphinx = partial(sphinx.build_sphinx, jobs=4 * (os.cpu_count() or 1))
main()
"""
"""Sphinx in several processes, for which Jupyter Book's command has no option. It makes millions of objects that live to
the end; looking for garbage among them again and again is a sixth of its time."""

MADE_OF = ".made-of"
"""In a built book: the digest of all that it was made of. What would come out the same is not built again."""


def gather_records(root: Path, edition: str) -> dict[str, dict[str, Any]]:
    """Return edition → notebook → record: the committed ones, and in their place the fresh runs of this edition."""
    records = {
        folder.name: {path.parent.name: load_record(path) for path in sorted(folder.glob(f"*/{FILE}"))}
        for folder in sorted((root / "results").glob("*/"))
    }
    for notebook, folder in completed_runs(root, edition).items():
        records.setdefault(edition, {})[notebook] = load_record(folder / FILE)
    return {name: found for name, found in records.items() if found}


@one_line("the book")
def build(root: Path, edition: str = "embedded", *, target: Path | None = None) -> Path:
    """Build the book of ``edition`` and return the path of its first page.

    Args:
        root: the project's folder.
        edition: which edition's runs the chapters show.
        target: folder of the built HTML, replaced as a whole; None: ``_build/html``. Sphinx works beside it.

    Raises:
        UserError: a notebook of the edition has no completed run, the committed evidence gives another verdict than is
            committed, or a page did not pass.
    """
    target = target or root / "_build" / "html"
    wanted = load_edition(root, edition).notebooks
    done = completed_runs(root, edition)
    missing = [name for name in wanted if name not in done]
    if missing:
        raise UserError(f"no completed run of {', '.join(missing)}; run: xaibook run --edition {edition}")
    runs = {name: done[name] / NOTEBOOK for name in wanted}
    findings = [
        finding
        for name, path in runs.items()
        for finding in notebook_findings(path, wanted[name].optional_figures)
    ]
    _pass("the executed notebooks did not pass", findings)
    committed = Committed.load(root)
    _check_words(root, edition, runs, committed)
    changed = changed_verdicts(root, committed.judgements)
    advice = (
        "look for the cause first; a change that is understood is committed with: xaibook claims --accept"
    )
    _pass(f"verdicts of the committed evidence changed ({advice})", changed)
    compared = verify(root, edition) if edition in committed.evidence else None
    if compared is not None:
        print(f"this run beside the evidence: {summary(compared)}")

    records = gather_records(root, edition)
    work = target.with_name("stage")
    stage(
        root,
        work,
        edition=edition,
        runs=runs,
        committed=committed,
        # Pages tell of a quick run only where they are made of it.
        records={name: found for name, found in records.items() if name != "quick" or edition == name},
        compared=None if compared is None else {str(row["id"]): row for _, row in compared.iterrows()},
        repository=public_repository(root),
    )
    made_of = _made_of(root, work)
    if (target / MADE_OF).is_file() and (target / MADE_OF).read_text(encoding="utf-8") == made_of:
        print("nothing that the book is made of has changed since it was built")
        return target / "book" / "index.html"
    _sphinx(work)
    built = work / "_build" / "html"
    offer_downloads(work, built)
    _pass("the built pages did not pass", html_findings(built, forbidden=machine_paths(root)))
    print("\n".join(sizes(built).lines()))
    (built / MADE_OF).write_text(made_of, encoding="utf-8")
    replace_folder(built, target)
    return target / "book" / "index.html"


def _made_of(root: Path, work: Path) -> str:
    """Return the digest of the staged tree, of the package, whose docstrings are pages, and of all installed packages."""
    staged = {path.relative_to(work).as_posix(): path for path in work.rglob("*") if path.is_file()}
    sources = {path.relative_to(root).as_posix(): path for path in (root / "xaicore").rglob("*.py")}
    installed = sorted(f"{package.name} {package.version}" for package in distributions())
    return digest(staged, sources, installed, sys.version)


def _check_words(root: Path, edition: str, runs: Mapping[str, Path], committed: Committed) -> None:
    """Print what does not fit in the prose, one line each, and refuse to build a book with it."""
    found = word_findings(root, runs, committed)
    unfit = {finding.page for finding in found}
    sources = {name: f"notebooks/{name}.ipynb" for name in runs}
    old = [
        name for name, path in sources.items() if path in unfit and _text(runs[name]) != _text(root / path)
    ]
    if old:
        raise UserError(
            f"the text of {', '.join(old)} has changed since the run that is here, and the old one does not fit; "
            f"run: xaibook run --edition {edition} --only {','.join(old)}"
        )
    for finding in found:
        print(finding)
    if found:
        raise UserError(
            f"the prose does not fit in {len(found)} places, see above; mend the pages (CONTRIBUTING.md, Numbers in "
            "prose), and run notebooks again whose text has changed: xaibook run"
        )


def _text(notebook: Path) -> list[str]:
    """Return what the cells of a notebook say, but for those of code."""
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def _sphinx(work: Path) -> None:
    # Not the script of that name: this very interpreter, wherever the environment was replicated to. Read from standard
    # input: what `-c` runs is from Python 3.13 on the source of "<string>", which autodoc takes for that of dataclasses.
    options = ("--all", "-W", "-n", "--keep-going", "-q")
    command = [sys.executable, "-", "build", str(work), *options]
    answer = subprocess.run(command, input=JUPYTER_BOOK, capture_output=True, text=True, check=False)
    if answer.returncode == 0:
        return
    if os.strerror(errno.ENOSPC) in answer.stdout + answer.stderr:
        raise UserError(disk_full("the book"))
    log = work.parent / "sphinx.log"
    log.write_text(answer.stdout + answer.stderr, encoding="utf-8")
    lines = answer.stderr.replace(f"{work}/", "").splitlines()
    shown = [line for line in lines if any(word in line for word in ("WARNING", "ERROR", "rror:"))]
    _pass(f"Sphinx is not content (whole log: {log.parent.name}/{log.name})", shown or ["see the log"])


def offer_downloads(work: Path, built: Path) -> None:
    """Offer the notebooks as they were executed, in place of the pages with other editions on them.

    Sphinx writes its sources after the extra files, so these are laid over them once more.
    """
    shutil.copytree(work / EXTRA / "_sources", built / "_sources", dirs_exist_ok=True)


def _pass(head: str, findings: list[str], most: int = 12) -> None:
    """Stop the build where there are findings."""
    shown = [f"  {finding}" for finding in findings[:most]]
    if len(findings) > most:
        shown.append(f"  and {len(findings) - most} more")
    if findings:
        raise UserError("\n".join([f"{head}:", *shown]))
