"""What is committed beside the notebooks: the numbers of the papers, and our benchmarks.

Both are read from the working copy that the notebook runs in (``xaicore.run.repository.working_copy``). Outside one,
as where only the package is installed, there are none, and tables show dashes.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from xaicore.core.errors import UserError
from xaicore.run.repository import working_copy


def paper(id: str) -> float:
    """Return a number that a paper reports, by its id in ``claims/pN.yml``; NaN outside a working copy.

    Raises:
        UserError: the paper's file has no such number.
    """
    root, name = working_copy(), id.split(".")[0]
    if root is None:
        return float("nan")
    numbers = reported(root, name)
    if id not in numbers:
        raise UserError(f"claims/{name}.yml reports no number {id}")
    return numbers[id]


def reported(root: Path, name: str) -> dict[str, float]:
    """Return the numbers of a paper, such as ``p1``, by their ids; none where ``root`` has no claims of that name."""
    return {entry["id"]: float(entry["number"]) for entry in _claims(root, name).get("reported", ())}


def judged(name: str) -> frozenset[str]:
    """Return the ids of our values that the claims of a paper, such as ``p1``, read, and their controls.

    A claim and its control are so measured alike. None outside a working copy.
    """
    root, ids = working_copy(), set[str]()
    for claim in _claims(root, name).get("claims", ()) if root else ():
        controls = claim.get("control", [])
        controls = controls if isinstance(controls, list) else [controls]
        read = set(_words([claim.get("results"), claim.get("check"), claim.get("check_in")]))
        ids |= read | set(_words([control.get("check") for control in controls]))
        instead = [pair for control in controls for pair in control.get("instead", {}).items()]
        ids |= {
            new + id.removeprefix(old)
            for old, new in instead
            for id in read
            if f"{id}.".startswith(f"{old}.")
        }
    return frozenset(ids)


def _words(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for each in data.values() if isinstance(data, dict) else data:
            yield from _words(each)


@cache
def _claims(root: Path, name: str) -> dict[str, Any]:
    path = root / "claims" / f"{name}.yml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def benchmark(name: str) -> dict[str, Any] | None:
    """Return the committed result of a benchmark of ours, None where there is none.

    Args:
        name: ``attacks`` or ``attribution``, the module of ``benchmarks`` that wrote it.
    """
    root = working_copy()
    path = root / "results" / "benchmarks" / f"{name}.json" if root else None
    return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else None


def heading(benchmark: dict[str, Any]) -> str:
    """Return when and where a benchmark ran."""
    return f"{benchmark['date']}; {benchmark['machine']['processor']}; threads: {benchmark['threads']}"


def attack_rows(benchmark: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the table of the benchmark ``attacks``: our number and the peer's, with a colon between."""

    def both(row: dict[str, Any], name: str, digits: int = 3) -> str:
        values = [row[side][name] for side in ("ours", "peer")]
        return "–" if None in values else " : ".join(f"{value:.{digits}g}" for value in values)

    return [
        {
            "attack": row["name"],
            "images": f"{row['n']} {row['subject']}",
            "peer": row["library"],
            "ours": row["variant"],
            "fooled": both(row, "fooled", 4),
            "distance": both(row, "median_distance"),
            "ms per image": both(row, "ms_per_image"),
            "ratio": row["ratio"],
            "goal": _goal(row),
        }
        for row in (benchmark or {"rows": []})["rows"]
    ]


def missed_rows(benchmark: dict[str, Any] | None) -> list[dict[str, str]]:
    """Return the table of what the benchmark ``attacks`` did not reach, a row that says so where there is nothing."""
    missed = [
        {
            "attack": row["name"],
            "images": row["subject"],
            "peer": row["library"],
            "ours": row["variant"],
            "what": "; ".join(row["misses"]),
        }
        for row in (benchmark or {"rows": []})["rows"]
        if not row["met"]
    ]
    return missed or [{"attack": "–", "images": "–", "peer": "–", "ours": "–", "what": "nothing"}]


def attribution_rows(benchmark: dict[str, Any] | None, kind: str) -> list[dict[str, Any]]:
    """Return the table of the benchmark ``attribution``, of its ``kind``: ``explanations`` or ``metrics``."""
    return [
        {
            "what": row["name"],
            "peer": row["peer"],
            "on": row["subject"],
            "n": row["n"],
            "ms, ours": row["ours_ms"],
            "peer's": row["peer_ms"],
            "ratio": row["ratio"],
            "goal": _goal(row),
            "largest difference": f"{row['max_relative_error']:.1g}",
        }
        for row in (benchmark or {"rows": []})["rows"]
        if row["kind"] == kind
    ]


def missing(name: str) -> str:
    """Return how to make the result of a benchmark that is not there."""
    path = f"results/benchmarks/{name}.json"
    return f"There is no benchmark result here yet: python -m benchmarks.{name} {path} makes one."


def _goal(row: dict[str, Any]) -> str:
    return "–" if row["goal"] is None else f"{row['goal']:g}, {'met' if row['met'] else 'missed'}"
