"""``xaibook verify``: this machine's values against the committed ones.

``runs/<edition>/<notebook>/record.json`` is held against ``results/<edition>/<notebook>/record.json``, value
by value. A committed value may carry a ``tolerance`` (relative, or a mapping with ``relative`` and
``absolute``); else values must agree to a relative 1e-6.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xaicore.book.claims.ledger import committed_records
from xaicore.book.running.runner import completed_runs
from xaicore.core.errors import UserError
from xaicore.run.records import load_record

RELATIVE = 1e-6
IDENTICAL, WITHIN, DIFFERENT, MISSING = "identical", "within tolerance", "different", "missing"


def verify(root: Path, edition: str = "embedded") -> pd.DataFrame:
    """Compare the complete runs of an edition with its committed results.

    Args:
        root: the project's folder.
        edition: name of the edition.

    Returns:
        One row a value: ``notebook``, ``id``, ``committed``, ``here``, ``tolerance``, ``outcome``
        (``identical``, ``within tolerance``, ``different``, or ``missing`` on one side).

    Raises:
        UserError: there is nothing committed, or nothing was run.
    """
    committed = committed_records(root, edition)
    if not committed:
        raise UserError(
            f"no results of the edition {edition} are committed, so there is nothing to compare with"
        )
    runs = completed_runs(root, edition)
    both = [name for name in committed if name in runs]
    if not both:
        raise UserError(f"no complete run of {', '.join(committed)}; run: xaibook run --edition {edition}")
    rows = []
    for notebook in both:
        rows += compare(notebook, committed[notebook], load_record(runs[notebook]))
    return pd.DataFrame(rows, columns=["notebook", "id", "committed", "here", "tolerance", "outcome"])


def compare(notebook: str, committed: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return the rows of :func:`verify` for one notebook's two records."""
    rows = []
    for id in [*committed["values"], *(id for id in here["values"] if id not in committed["values"])]:
        left, right = committed["values"].get(id), here["values"].get(id)
        relative, absolute = _tolerance(id, left)
        if left is None or right is None:
            outcome = MISSING
        elif left["value"] == right["value"]:
            outcome = IDENTICAL
        elif math.isclose(left["value"], right["value"], rel_tol=relative, abs_tol=absolute):
            outcome = WITHIN
        else:
            outcome = DIFFERENT
        text = f"{relative:g}" + (f" or {absolute:g} absolute" if absolute else "")
        rows.append((notebook, id, left and left["value"], right and right["value"], text, outcome))
    return rows


def _tolerance(id: str, entry: Mapping[str, Any] | None) -> tuple[float, float]:
    given = (entry or {}).get("tolerance", RELATIVE)
    pair = (
        (given.get("relative", 0.0), given.get("absolute", 0.0))
        if isinstance(given, Mapping)
        else (given, 0.0)
    )
    for number in pair:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not number >= 0:
            raise UserError(f"the committed tolerance of {id} must be a number of at least 0, got {given!r}")
    return float(pair[0]), float(pair[1])
