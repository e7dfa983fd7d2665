"""Records read again (:mod:`xaicore.run.records` writes them): their form, and in what two of them differ."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xaicore.core.errors import UserError
from xaicore.core.units import check_range

SCHEMA = 1
FILE = "record.json"
IDENTIFIER = re.compile(r"[a-z0-9_.]+")


def slug(title: str) -> str:
    """Return a title as a part of an id: letters and digits in lower case, an underscore for everything else."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in title.lower()).strip("_")


def eps_level(eps: float) -> str:
    """Return the part of an id that says how large an attack is, in thousandths: ``eps_075`` for 0.075."""
    return f"eps_{round(1000 * eps):03d}"


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


def compare_records(
    first: str | Path | Mapping[str, Any], second: str | Path | Mapping[str, Any]
) -> list[str]:
    """Return in what two records differ, one line each; an empty list means that they agree bit for bit.

    Compared are notebook, parameters, values and tables (by content where both are given as paths) and the
    fingerprints of data and weights; not the edition and the rest of the provenance.
    """
    one, two = _loaded(first), _loaded(second)
    differences = [
        f"{key}: {one[key]!r} / {two[key]!r}" for key in ("schema", "notebook") if one[key] != two[key]
    ]
    for key in ("parameters", "values", "tables"):
        for name in sorted(set(one[key]) | set(two[key])):
            left, right = one[key].get(name), two[key].get(name)
            if left != right:
                differences.append(f"{key} {name}: {left!r} / {right!r}")
    for key in ("data", "models"):
        if one["provenance"].get(key) != two["provenance"].get(key):
            differences.append(f"{key}: other fingerprints")
    if isinstance(first, (str, Path)) and isinstance(second, (str, Path)):
        for name in sorted(set(one["tables"].values()) & set(two["tables"].values())):
            if _bytes_beside(first, name) != _bytes_beside(second, name):
                differences.append(f"{name}: other content")
    return differences


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


def _loaded(record: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    return load_record(record) if isinstance(record, (str, Path)) else record


def _bytes_beside(record: str | Path, name: str) -> bytes | None:
    path = Path(record)
    path = (path if path.is_dir() else path.parent) / name
    return path.read_bytes() if path.is_file() else None
