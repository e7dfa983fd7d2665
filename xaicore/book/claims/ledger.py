"""Judging the claims against the runs' records, and the committed verdicts that a build is held to.

Each claim is judged in every edition that has a record of its notebook. The headline verdict comes from the
first of *paper*, *reference*, *embedded* that can test the claim and recorded what its rule needs; the
*quick* edition exists for the tests and never makes a headline. The pages made of the judgements are in
:mod:`xaicore.book.pages.ledgers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from xaicore.book.claims.assessment import assess
from xaicore.book.claims.evidence import Evidence, Measured, Outcome, Verdict
from xaicore.book.claims.rules import evaluate
from xaicore.book.claims.schema import EDITIONS, Claim, Judgement, Paper
from xaicore.core.errors import UserError
from xaicore.core.files import write_atomically
from xaicore.run.records import FILE, load_record

Records = Mapping[str, Mapping[str, Mapping[str, Any]]]


def committed_records(root: Path, edition: str) -> dict[str, dict[str, Any]]:
    """Return notebook → committed record of an edition.

    Args:
        root: the project's folder.
        edition: the edition's name.
    """
    paths = sorted((root / "results" / edition).glob(f"*/{FILE}"))
    return {path.parent.name: load_record(path) for path in paths}


def judge(papers: Sequence[Paper], records: Records) -> list[Judgement]:
    """Judge every claim of every paper.

    Args:
        papers: the papers with their claims.
        records: edition → notebook → the run's ``record.json``; runs that did not complete are ignored.

    Returns:
        One judgement per claim, in the order of the papers.
    """
    judgements = []
    for paper in papers:
        runs = {edition: _values(notebooks.get(paper.notebook)) for edition, notebooks in records.items()}
        done = {edition: values for edition, values in runs.items() if values is not None}
        judgements += [_judge(claim, paper, done) for claim in paper.claims]
    return judgements


def _values(record: Mapping[str, Any] | None) -> dict[str, Measured] | None:
    if record is None or record.get("status", "completed") != "completed":
        return None
    measured = {name: Measured.from_record(entry) for name, entry in record.get("values", {}).items()}
    return {name: value for name, value in measured.items() if value is not None}


def _judge(claim: Claim, paper: Paper, runs: Mapping[str, Mapping[str, Measured]]) -> Judgement:
    if claim.internal:
        return Judgement(claim, evaluate(claim.check, Evidence(reported=paper.numbers)))
    by_edition = {edition: _in_edition(claim, paper, edition, values) for edition, values in runs.items()}
    tested = [
        edition for edition, outcome in by_edition.items() if outcome.verdict is not Verdict.NOT_TESTABLE
    ]
    able = [edition for edition in claim.editions if edition in runs]
    headline = next((e for some in (tested, able, runs) for e in EDITIONS if e in some), None)
    if headline is not None:
        return Judgement(claim, by_edition[headline], headline, runs[headline], by_edition, runs)
    words = f"no result yet: `{paper.notebook}` has not been run in the {_editions(claim)} edition"
    return Judgement(claim, Outcome(Verdict.NOT_TESTABLE, words), by_edition=by_edition, pending=True)


def _in_edition(claim: Claim, paper: Paper, edition: str, values: Mapping[str, Measured]) -> Outcome:
    if edition not in claim.editions:
        words = f"the {edition} edition cannot test this claim; the {_editions(claim)} edition can"
        return Outcome(Verdict.NOT_TESTABLE, words)
    return assess(claim, edition, Evidence(values, paper.numbers))


def _editions(claim: Claim) -> str:
    return " or ".join(edition for edition in reversed(EDITIONS) if edition in claim.editions)


def claims_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Every claim in one row, for ``xaibook claims``.

    Args:
        judgements: as :func:`judge` gives them.

    Returns:
        The columns id, paper, reported, ours, n, interval (low, high), edition, verdict; None where there
        is nothing to say. ``DataFrame.to_dict("records")`` of it is what ``--json`` prints.
    """
    columns = ["id", "paper", "reported", "ours", "n", "interval", "edition", "verdict"]
    rows = []
    for judgement in judgements:
        claim, measured = judgement.claim, judgement.measured
        interval = (measured.low, measured.high) if measured and measured.interval else None
        ours = (measured.value, measured.n) if measured else (None, None)
        text = claim.reported_text or None
        rows.append((claim.id, claim.paper, text, *ours, interval, judgement.edition, str(judgement.verdict)))
    return pd.DataFrame(rows, columns=columns, dtype=object)


def read_verdicts(folder: str | Path, edition: str) -> dict[str, Verdict]:
    """The committed verdicts of an edition, claim id → verdict; empty where none are committed.

    Args:
        folder: ``claims/verdicts``.
        edition: the edition's name.

    Raises:
        UserError: the file is not a mapping of claim ids to verdicts.
    """
    path = Path(folder) / f"{edition}.yml"
    if not path.exists():
        return {}
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return {str(name): Verdict(text) for name, text in data.items()}
    except (yaml.YAMLError, AttributeError, ValueError) as error:
        raise UserError(
            f"claims/verdicts/{path.name} is not a list of 'claim id: verdict'; "
            "restore it, or write it anew with --verdicts accept"
        ) from error


def write_verdicts(folder: str | Path, edition: str, judgements: Sequence[Judgement]) -> Path:
    """Commit an edition's verdicts: write ``<folder>/<edition>.yml``, replaced as a whole.

    Args:
        folder: ``claims/verdicts``; made if missing.
        edition: the edition whose verdicts to write.
        judgements: as :func:`judge` gives them.

    Returns:
        The file.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    lines = [f"# Verdicts of the {edition} edition; a build that reaches others stops and says which."]
    lines += [f"{name}: {verdict}" for name, verdict in _verdicts(judgements, edition).items()]
    path = Path(folder) / f"{edition}.yml"
    return write_atomically(path, "\n".join(lines) + "\n", what="the list of verdicts")


def compare_verdicts(
    committed: Mapping[str, Verdict], judgements: Sequence[Judgement], edition: str
) -> list[str]:
    """How an edition's verdicts differ from the committed ones.

    Args:
        committed: as :func:`read_verdicts` gives them; with none committed nothing can differ.
        judgements: as :func:`judge` gives them.
        edition: the edition.

    Returns:
        One line per difference; empty when all agree.
    """
    if not committed:
        return []
    now = _verdicts(judgements, edition)
    changes = [
        f"{name}: {committed[name]} → {verdict}"
        for name, verdict in now.items()
        if name in committed and committed[name] is not verdict
    ]
    changes += [f"{name}: new claim, {verdict}" for name, verdict in now.items() if name not in committed]
    changes += [
        f"{name}: committed as {committed[name]}, no such claim" for name in committed if name not in now
    ]
    return changes


def _verdicts(judgements: Sequence[Judgement], edition: str) -> dict[str, Verdict]:
    return {judgement.claim.id: judgement.verdict_in(edition) for judgement in judgements}
