"""``xaibook build``: judge the claims, stage the pages, run Sphinx, pass the gate, put the book in its place.

The book under ``_build/html`` is replaced only by one that passed every check, so a failed build never leaves half a
book behind.
"""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xaicore.book.claims.ledger import (
    committed_records,
    compare_verdicts,
    judge,
    read_verdicts,
    write_verdicts,
)
from xaicore.book.claims.replicates import keep_replicate, other_verdicts
from xaicore.book.claims.schema import load_claims
from xaicore.book.gate import html_findings, notebook_findings
from xaicore.book.keeping import KEPT, commit_runs, keep
from xaicore.book.pages.staging import EXTRA, stage
from xaicore.book.pages.words import findings as word_findings
from xaicore.book.project import repository_address
from xaicore.book.running.editions import load_edition
from xaicore.book.running.run_folder import NOTEBOOK
from xaicore.book.running.runner import completed_runs
from xaicore.core.errors import UserError
from xaicore.core.files import disk_full, one_line, replace_folder
from xaicore.run.records import FILE, load_record

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


def gather_records(root: Path, edition: str) -> dict[str, dict[str, Any]]:
    """Return edition → notebook → record: the committed ones, and in their place the fresh runs of this edition."""
    editions = sorted(path.name for path in (root / "results").glob("*/"))
    records = {name: found for name in editions if (found := committed_records(root, name))}
    for notebook, folder in completed_runs(root, edition).items():
        records.setdefault(edition, {})[notebook] = load_record(folder / FILE)
    return records


@one_line("the book")
def build(
    root: Path, edition: str = "embedded", *, verdicts: str = "auto", target: Path | None = None
) -> Path:
    """Build the book of ``edition`` and return the path of its first page.

    Args:
        root: the project's folder.
        edition: which edition's runs the chapters show.
        verdicts: what to do when a verdict differs from the committed one: ``fail``, ``report`` it and go on,
            ``accept`` it as the new committed verdict, together with the record behind it, ``replicate``: keep
            this machine's verdicts beside the committed ones (:mod:`xaicore.book.claims.replicates`), or ``auto``:
            fail, unless the networks that this machine trained are not the committed ones.
        target: folder of the built HTML, replaced as a whole; None: ``_build/html``. Sphinx works beside it.

    Raises:
        UserError: a notebook of the edition has no completed run, a verdict changed, or a page did not pass.
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
    if findings:
        raise UserError(_report("the executed notebooks did not pass", findings))
    _check_words(root, runs)

    papers = load_claims(root / "claims")
    records = gather_records(root, edition)
    judgements = judge(papers, records)
    same = _same_weights(root, edition, records)
    if verdicts == "auto":
        verdicts = "fail" if same else "report"
    if verdicts == "replicate":
        keep_replicate(root, edition, judgements, records, same=same)
        verdicts = "report"
    for name in dict.fromkeys([edition, *(name for name in KEPT if name in records)]):
        _check_verdicts(root / "claims" / "verdicts", name, judgements, verdicts)
    if verdicts == "accept" and edition in KEPT:
        keep(root, edition)
    elif verdicts == "accept":
        commit_runs(root, edition, done)

    work = target.with_name("stage")
    stage(
        root,
        work,
        edition=edition,
        runs=runs,
        papers=papers,
        judgements=judgements,
        records=_shown(records, edition),
        replicated=other_verdicts(root, edition, judgements, records, same=same),
        address=repository_address(root),
    )
    _sphinx(work)
    built = work / "_build" / "html"
    offer_downloads(work, built)
    forbidden = (str(root), str(Path.home()), sys.prefix, tempfile.gettempdir() + "/")
    findings = html_findings(built, forbidden=forbidden)
    if findings:
        raise UserError(_report("the built pages did not pass", findings))
    replace_folder(built, target)
    return target / "book" / "index.html"


def _check_words(root: Path, runs: Mapping[str, Path]) -> None:
    """Print what does not fit in the prose, one line each, and refuse to build a book with it."""
    found = word_findings(root, runs)
    for finding in found:
        print(finding)
    stopping = sum(finding.stops for finding in found)
    if stopping:
        raise UserError(
            f"{stopping} of the lines above stop the build; mend the pages (CONTRIBUTING.md, Numbers in prose), and run "
            "notebooks again whose text has changed: xaibook run"
        )


def _shown(records: Mapping[str, Mapping[str, Any]], edition: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the records that pages tell of: all but those of a quick run, unless the pages are made of it."""
    return {name: runs for name, runs in records.items() if name != "quick" or edition == name}


def _check_verdicts(folder: Path, edition: str, judgements: list[Any], mode: str) -> None:
    if mode == "accept":
        write_verdicts(folder, edition, judgements)
        return
    changes = compare_verdicts(read_verdicts(folder, edition), judgements, edition)
    if changes and mode == "fail":
        advice = (
            "look for the cause first; a change that is understood is committed with --verdicts accept, and "
            "--verdicts report builds anyway"
        )
        raise UserError(_report(f"verdicts of the {edition} edition changed ({advice})", changes))
    for change in changes:
        print(f"verdict of the {edition} edition changed: {change}")


def _same_weights(root: Path, edition: str, records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether this run's networks are the committed ones; on another kind of processor training takes another path."""
    committed = committed_records(root, edition)
    for notebook, record in records.get(edition, {}).items():
        before = committed.get(notebook, record)
        if before["provenance"]["models"] == record["provenance"]["models"]:
            continue
        print(
            f"{notebook}: this machine trained other weights than the committed run, as another kind of processor "
            "does; verdicts that differ are reported and do not stop the build"
        )
        return False
    return True


def _sphinx(work: Path) -> None:
    # Not the script of that name: this very interpreter, wherever the environment was replicated to.
    start = [sys.executable, "-c", JUPYTER_BOOK]
    options = ["--all", "-W", "-n", "--keep-going", "-q"]
    answer = subprocess.run(
        [*start, "build", str(work), *options], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        if os.strerror(errno.ENOSPC) in answer.stdout + answer.stderr:
            raise UserError(disk_full("the book"))
        log = work.parent / "sphinx.log"
        log.write_text(answer.stdout + answer.stderr, encoding="utf-8")
        lines = [
            line
            for line in answer.stderr.splitlines()
            if "WARNING" in line or "ERROR" in line or "rror:" in line
        ]
        shown = [line.replace(str(work) + "/", "") for line in lines]
        raise UserError(
            _report(
                f"Sphinx is not content (whole log: {log.parent.name}/{log.name})", shown or ["see the log"]
            )
        )


def offer_downloads(work: Path, built: Path) -> None:
    """Offer the notebooks as they were executed, in place of the pages with other editions on them.

    Sphinx writes its sources after the extra files, so these are laid over them once more.
    """
    shutil.copytree(work / EXTRA / "_sources", built / "_sources", dirs_exist_ok=True)


def _report(head: str, findings: list[str], most: int = 12) -> str:
    shown = [f"  {finding}" for finding in findings[:most]]
    if len(findings) > most:
        shown.append(f"  and {len(findings) - most} more")
    return "\n".join([f"{head}:", *shown])
