"""Judging the claims against the committed evidence, and the committed verdicts.

Each claim is judged in every edition that has evidence of its notebook, the same on every machine. The headline verdict
comes from the largest edition (*paper*, *reference*, *embedded*) that can test the claim, recorded what its rule needs,
and pools several runs or has a network that comes with its weights, of which there is but one; where none does, from the
largest with one run. The pages made of the judgements are in :mod:`xaicore.book.pages.ledgers`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from xaicore.book.claims.assessment import Judgement, assess
from xaicore.book.claims.evidence import Evidence, Measured, Outcome, Verdict
from xaicore.book.claims.rules import evaluate
from xaicore.book.claims.schema import EDITIONS, Claim, Paper, load_claims
from xaicore.core.errors import UserError
from xaicore.core.files import write_atomically
from xaicore.run.evidence import load_evidence
from xaicore.run.params import SCHEMAS, NotebookParameters
from xaicore.run.records import FILE

VERDICTS = Path("claims", "verdicts.yml")
"""Where a project keeps them."""

Evidences = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Edition → notebook → evidence."""


def committed_evidence(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return edition → notebook → committed evidence (:mod:`xaicore.run.evidence`), of the editions that claims name."""
    found = {
        edition: {
            path.parent.name: load_evidence(path.parent)
            for path in sorted((root / "results" / edition).glob(f"*/{FILE}"))
        }
        for edition in EDITIONS
    }
    return {edition: notebooks for edition, notebooks in found.items() if notebooks}


def judge(papers: Sequence[Paper], evidence: Evidences) -> list[Judgement]:
    """Judge every claim of every paper.

    Args:
        papers: the papers with their claims.
        evidence: as :func:`committed_evidence` gives it.

    Returns:
        One judgement per claim, in the order of the papers.
    """
    judgements = []
    for paper in papers:
        schema = SCHEMAS.get(paper.notebook, NotebookParameters)
        found = {
            edition: _values(notebooks[paper.notebook])
            for edition, notebooks in evidence.items()
            if paper.notebook in notebooks
        }
        runs = {edition: len(evidence[edition][paper.notebook]["seeds"]) for edition in found}
        alone = {  # editions whose verdicts rest on a single training
            edition
            for edition, count in runs.items()
            if count < 2 and schema.of_record(evidence[edition][paper.notebook].get("parameters", {})).trains
        }
        judgements += [_judge(claim, paper, found, runs, alone) for claim in paper.claims]
    return judgements


def _values(evidence: Mapping[str, Any]) -> dict[str, Measured]:
    measured = {name: Measured.from_record(entry) for name, entry in evidence["values"].items()}
    return {name: value for name, value in measured.items() if value is not None}


def _judge(
    claim: Claim,
    paper: Paper,
    values: Mapping[str, Mapping[str, Measured]],
    runs: Mapping[str, int],
    alone: Collection[str],
) -> Judgement:
    if claim.internal:
        return Judgement(claim, evaluate(claim.check, Evidence(reported=paper.numbers)))
    by_edition = {edition: _in_edition(claim, paper, edition, found) for edition, found in values.items()}
    tested = [
        edition for edition, outcome in by_edition.items() if outcome.verdict is not Verdict.NOT_TESTABLE
    ]
    able = [edition for edition in claim.editions if edition in values]
    order = sorted(EDITIONS, key=lambda edition: edition in alone)
    headline = next((e for some in (tested, able, values) for e in order if e in some), None)
    if headline is not None:
        return Judgement(claim, by_edition[headline], headline, values[headline], by_edition, values, runs)
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
        The columns id, paper, reported, ours, n, networks, interval (low, high), edition, verdict; None where there
        is nothing to say. ``DataFrame.to_dict("records")`` of it is what ``--json`` prints.
    """
    columns = ["id", "paper", "reported", "ours", "n", "networks", "interval", "edition", "verdict"]
    rows = []
    for judgement in judgements:
        claim, measured = judgement.claim, judgement.measured
        interval = (measured.low, measured.high) if measured and measured.interval else None
        ours = (measured.value, measured.n, measured.runs) if measured else (None, None, None)
        text = claim.reported_text or None
        rows.append((claim.id, claim.paper, text, *ours, interval, judgement.edition, str(judgement.verdict)))
    return pd.DataFrame(rows, columns=columns, dtype=object)


def read_verdicts(root: Path) -> dict[str, Verdict]:
    """The committed verdicts, claim id → verdict; empty where none are committed.

    Args:
        root: the project's folder.

    Raises:
        UserError: the file is not a mapping of claim ids to verdicts.
    """
    path = root / VERDICTS
    if not path.exists():
        return {}
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return {str(name): Verdict(text) for name, text in data.items()}
    except (yaml.YAMLError, AttributeError, ValueError) as error:
        raise UserError(
            f"{VERDICTS} is not a list of 'claim id: verdict'; restore it, or write it anew: xaibook claims --accept"
        ) from error


def accept_verdicts(root: Path) -> list[str]:
    """Judge the committed evidence, commit the verdicts, and return how they differ from those before, a line each.

    Args:
        root: the project's folder.

    Raises:
        UserError: evidence or claims cannot be read, the disk is full, or the file cannot be written to.
    """
    judgements = judge(load_claims(root / "claims"), committed_evidence(root))
    changes = changed_verdicts(root, judgements)
    lines = ["# Verdicts of the committed evidence, written by: xaibook claims --accept"]
    lines += [f"{judgement.claim.id}: {judgement.verdict}" for judgement in judgements]
    write_atomically(root / VERDICTS, "\n".join(lines) + "\n", what="the list of verdicts")
    return changes


def changed_verdicts(root: Path, judgements: Sequence[Judgement]) -> list[str]:
    """How verdicts differ from the committed ones, one line per difference; with none committed nothing can differ.

    Args:
        root: the project's folder.
        judgements: as :func:`judge` gives them.
    """
    committed = read_verdicts(root)
    now = {judgement.claim.id: judgement.verdict for judgement in judgements} if committed else {}
    changes = [
        f"{name}: {committed[name]} → {verdict}" if name in committed else f"{name}: new claim, {verdict}"
        for name, verdict in now.items()
        if committed.get(name) is not verdict
    ]
    return changes + [
        f"{name}: committed as {committed[name]}, no such claim" for name in committed if name not in now
    ]
