"""``xaibook verify``: this machine's values against the committed evidence.

A value of ``runs/<edition>/<notebook>/record.json`` is held against the 95 % interval that
``results/<edition>/<notebook>/evidence.json`` predicts for one more run. Of evidence of one run, which predicts nothing,
values must be equal to a relative 1e-4, by which kinds of processor differ where the networks are the same. Times are
left out.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xaicore.book.claims.evidence import TRACE
from xaicore.book.claims.ledger import committed_evidence
from xaicore.book.running.runner import completed_runs
from xaicore.core.errors import UserError
from xaicore.run.records import load_record

RELATIVE = 1e-4
MANY = 0.05
"""Share of values outside from which on it is worth a look: so many are expected by chance."""
INSIDE, OUTSIDE, SAME, OTHER, MISSING = "inside", "outside", "same", "different", "missing"


def verify(root: Path, edition: str = "embedded") -> pd.DataFrame:
    """Compare the complete runs of an edition with its committed evidence.

    Args:
        root: the project's folder.
        edition: name of the edition.

    Returns:
        One row a value: ``notebook``, ``id``, ``committed``, ``runs``, ``prediction`` (low, high; None for one run),
        ``here``, and ``outcome``: ``inside`` or ``outside`` of what several runs predict, ``same`` as or ``different``
        from the one run, or ``missing`` on one side.

    Raises:
        UserError: there is nothing committed, or nothing was run.
    """
    committed = committed_evidence(root).get(edition, {})
    if not committed:
        raise UserError(
            f"no results of the edition {edition} are committed, so there is nothing to compare with"
        )
    runs = completed_runs(root, edition)
    both = [name for name in committed if name in runs]
    if not both:
        raise UserError(f"no complete run of {', '.join(committed)}; run: xaibook run --edition {edition}")
    rows = [row for name in both for row in compare(committed[name], load_record(runs[name]))]
    return pd.DataFrame(
        rows, columns=["notebook", "id", "committed", "runs", "prediction", "here", "outcome"]
    )


def compare(evidence: Mapping[str, Any], record: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return the rows of :func:`verify` for one notebook."""
    rows = []
    for id in dict.fromkeys((*evidence["values"], *record["values"])):
        committed, here = evidence["values"].get(id), record["values"].get(id)
        if "s" in {entry["unit"] for entry in (committed, here) if entry}:
            continue
        outcome, ends = MISSING, committed and committed["prediction"]
        if committed and here:
            value, slack = here["value"], RELATIVE * abs(committed["value"])
            if ends:
                outcome = INSIDE if ends[0] - slack <= value <= ends[1] + slack else OUTSIDE
            else:
                outcome = (
                    SAME
                    if math.isclose(value, committed["value"], rel_tol=RELATIVE, abs_tol=TRACE)
                    else OTHER
                )
        rows.append(
            (
                record["notebook"],
                id,
                committed and committed["value"],
                committed and committed["runs"],
                ends and tuple(ends),
                here and here["value"],
                outcome,
            )
        )
    return rows


def summary(rows: pd.DataFrame) -> str:
    """Return in a sentence or two how many values of :func:`verify` are as the evidence has them."""
    counts = rows["outcome"].value_counts().to_dict()
    judged = counts.get(INSIDE, 0) + counts.get(OUTSIDE, 0)
    said = (
        [f"{counts.get(INSIDE, 0)} of {judged} values lie where the committed runs predict them"]
        if judged
        else []
    )
    alone = counts.get(SAME, 0) + counts.get(OTHER, 0)
    said += [f"{counts.get(SAME, 0)} of {alone} equal the one committed run"] if alone else []
    said += [f"{counts[MISSING]} are missing on one side"] if MISSING in counts else []
    more = judged and counts.get(OUTSIDE, 0) > MANY * judged
    advice = "; more than one in twenty outside is worth a look: xaibook verify" if more else ""
    return "; ".join(said) + advice
