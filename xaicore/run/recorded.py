"""Records read again (:mod:`xaicore.run.records` writes them) and their form."""

import json
import math
import re
from pathlib import Path
from typing import Any

from xaicore.core.errors import UserError
from xaicore.core.units import check_range

SCHEMA = 1
FILE = "record.json"
IDENTIFIER = re.compile(r"[a-z0-9_.]+")
_NAMES = {
    "share": re.compile(r"(?:\b|_)(?:auroc|failure|iou|mod|ndcg|score|separation|spread)(?:\b|_)|\.p$"),
    "correlation": re.compile(r"\.similarity\."),
    "distance": re.compile(r"_distance\."),
    "rank": re.compile(r"\.vulnerability_rank"),
}
_NONE = re.compile(r"(?:\b|_)(?:gap|gain|change|difference|ratio|lead|agreement|classes)(?:\b|_)")
"""Names of differences, ratios and counts of such numbers."""
_AREA = re.compile(r"p\d+\.(?:auroc|score)\.")
"""Names of AUROCs, whatever the score is called that follows, such as ``change``."""


def slug(title: str) -> str:
    """Return a title as a part of an id: letters and digits in lower case, an underscore for everything else."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in title.lower()).strip("_")


def eps_level(eps: float) -> str:
    """Return the part of an id that says how large an attack is, in thousandths: ``eps_075`` for 0.075."""
    return f"eps_{round(1000 * eps):03d}"


def range_unit(id: str, unit: str | None) -> str | None:
    """Return the unit (:data:`xaicore.core.units.UNITS`) whose range the value of an id is in: of a number without a unit
    that its name says, such as a share of AUROC, NDCG, IoU and MOD.

    Args:
        id: such as ``p5.auroc.explainer.bim``.
        unit: that it was recorded with; it goes before the name.
    """
    if unit is None and (_AREA.match(id) or not _NONE.search(id)):
        return next((name for name, pattern in _NAMES.items() if pattern.search(id)), None)
    return unit


def load_record(path: str | Path) -> dict[str, Any]:
    """Return a record after checking its form.

    Args:
        path: a ``record.json``, or the folder that holds one.

    Raises:
        UserError: there is none, or it is damaged or of another kind.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    name = f"{path.parent.name}/{path.name}"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no record {name}; run the notebook first") from error
    except (OSError, ValueError) as error:
        raise UserError(f"the record {name} cannot be read; run the notebook again") from error
    problem = _problem(record)
    if problem:
        raise UserError(f"the record {name} is not valid: {problem}; run the notebook again")
    return record


def _problem(record: Any) -> str | None:
    """Return what is wrong with the form of a record, None where nothing is."""
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        return f"it is not of schema {SCHEMA}"
    if record.get("status") != "completed":
        return "it is not completed"
    for key, kind in (("notebook", str), ("edition", str)):
        if not isinstance(record.get(key), kind):
            return f"{key} is missing"
    for key in ("parameters", "values", "tables", "provenance"):
        if not isinstance(record.get(key), dict):
            return f"{key} is missing"
    for id, entry in record["values"].items():
        number = entry.get("value") if isinstance(entry, dict) else None
        if not IDENTIFIER.fullmatch(id) or not isinstance(number, (int, float)) or not math.isfinite(number):
            return f"the value {id} is no finite number"
        try:
            for each in (number, *(entry.get("ci") or ())):
                check_range(f"the value {id}", each, entry.get("unit"))
        except (TypeError, ValueError) as error:
            return str(error)
    return None
