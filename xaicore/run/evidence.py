"""Evidence: the values of one notebook over several runs, each of another seed, pooled.

``evidence.json`` lies beside the record of the first run where results are committed, and ``outcomes.csv.gz`` with the
per-image outcomes of all runs beside it. A record alone is evidence of one run. The JSON, ``schema`` 1::

    notebook, edition, parameters, seeds
    runs     a seed each: seed, device, instruction_sets, commit, seconds
    values   id: {value, ci, n, runs, unit, each, prediction, method}

``each`` has the runs' own values in the order of the seeds, None where a run has none. ``n`` counts images: all different
ones where they are known (of two groups those of the smaller), else those of the run with the fewest. ``prediction`` is
the 95 % interval for one more run, and ``method`` says what ``ci`` is made of (:mod:`xaicore.metrics.pooling`):
``images and runs`` from per-image outcomes, ``runs`` from the runs' own intervals, ``one run``.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaicore.core.errors import UserError
from xaicore.core.units import UNITS, Unit
from xaicore.metrics.intervals import Estimate, Interval
from xaicore.metrics.pooling import pooled_differences, pooled_estimates, pooled_outcomes
from xaicore.run.recorded import FILE, load_record, range_unit

EVIDENCE = "evidence.json"
OUTCOMES = "outcomes.csv"
KEPT_OUTCOMES = "outcomes.csv.gz"
SCHEMA = 1
COLUMNS = ("id", "group", "image", "outcome")
"""Of the outcomes of a run: the value's id, the group where it compares several, the image's number where known, and the
outcome in the value's unit."""


def load_evidence(folder: Path) -> dict[str, Any]:
    """Return the evidence in a folder of committed results, or of the one run whose record lies there.

    Args:
        folder: with ``evidence.json``, or with ``record.json`` alone.

    Raises:
        UserError: there is neither, or one is damaged.
    """
    path = folder / EVIDENCE
    if not path.is_file():
        return pool([load_record(folder / FILE)])
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] == SCHEMA and isinstance(found["values"], dict):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f"the evidence {folder.name}/{EVIDENCE} cannot be read; restore it, or write it anew: xaibook keep"
    )


def load_outcomes(folder: Path) -> pd.DataFrame | None:
    """Return the per-image outcomes that a run has written, columns :data:`COLUMNS`; None where it wrote none."""
    path = folder / OUTCOMES
    return pd.read_csv(path, dtype={"id": str, "group": str}) if path.is_file() else None


def pool(
    records: Sequence[Mapping[str, Any]], outcomes: Sequence[pd.DataFrame | None] | None = None
) -> dict[str, Any]:
    """Pool the runs of a notebook.

    Args:
        records: one a run, of one notebook and edition, with the same parameters but for the seed.
        outcomes: their per-image outcomes (:func:`load_outcomes`).

    Returns:
        What stands in ``evidence.json``.

    Raises:
        UserError: no record, or records of different experiments.
    """
    if not records:
        raise UserError("there is no run to pool")
    first = records[0]
    parameters = [_parameters(record) for record in records]
    for record, given in zip(records, parameters, strict=True):
        if (record["notebook"], record["edition"], given) != (
            first["notebook"],
            first["edition"],
            parameters[0],
        ):
            changed = sorted(name for name in given if given[name] != parameters[0].get(name))
            raise UserError(
                f"the runs of {first['notebook']} differ in more than their seed ({', '.join(changed) or 'edition'}); "
                "run them again"
            )
    known: list[dict[str, pd.DataFrame]] = [
        {} if frame is None else {str(id): part for id, part in frame.groupby("id")}
        for frame in outcomes or ()
    ] or [{} for _ in records]
    ids = dict.fromkeys(id for record in records for id in record["values"])
    return {
        "schema": SCHEMA,
        "notebook": first["notebook"],
        "edition": first["edition"],
        "parameters": parameters[0],
        "seeds": [record["parameters"].get("seed", 0) for record in records],
        "runs": [_run(record) for record in records],
        "values": {
            id: _value(id, [record["values"].get(id) for record in records], [each.get(id) for each in known])
            for id in ids
        },
    }


def _parameters(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record["parameters"].items() if name != "seed"}


def _run(record: Mapping[str, Any]) -> dict[str, Any]:
    found = record["provenance"]
    return {
        "seed": record["parameters"].get("seed", 0),
        "device": found.get("device"),
        "instruction_sets": found.get("instruction_sets"),
        "commit": found.get("xaicore", {}).get("commit"),
        "seconds": found.get("seconds"),
    }


def _value(
    id: str, entries: Sequence[Mapping[str, Any] | None], outcomes: Sequence[pd.DataFrame | None]
) -> dict[str, Any]:
    there = [entry for entry in entries if entry is not None]
    unit = there[0]["unit"]
    found = pooled_estimates([_estimate(entry) for entry in there])
    counts = [entry["n"] for entry in there if entry["n"] is not None]
    n = min(counts) if counts else None
    value, interval, method = found.value, found.interval, "runs" if found.runs > 1 else "one run"
    if interval is None and there[0]["ci"]:  # of equal outcomes: without width, and not certain
        interval = Interval(*there[0]["ci"])
    given = [
        frame
        for entry, frame in zip(entries, outcomes, strict=True)
        if entry is not None and frame is not None
    ]
    pooled_ = _from_outcomes(given, there) if 1 < found.runs == len(given) else None
    if pooled_ is not None and (pooled_[1].low < pooled_[1].high or interval is None):
        (value, interval), method = pooled_, "images and runs"
    if len(given) == len(there) and not any(frame["image"].isna().any() for frame in given):
        every = pd.concat(given)
        images = every["image"].groupby(every["group"].fillna("")).nunique()
        n = int(images.min()) if len(images) else n
    bounds = UNITS[range_unit(id, unit)]
    return {
        "value": value,
        "ci": _within(interval, bounds),
        "n": n,
        "runs": found.runs,
        "unit": unit,
        "each": [None if entry is None else entry["value"] for entry in entries],
        "prediction": _within(found.prediction, bounds),
        "method": method,
    }


def _estimate(entry: Mapping[str, Any]) -> Estimate:
    low, high = entry["ci"] or (entry["value"], entry["value"])
    return Estimate(entry["value"], low, high, entry["n"] or 1)


def _from_outcomes(
    frames: Sequence[pd.DataFrame], entries: Sequence[Mapping[str, Any]]
) -> tuple[float, Interval] | None:
    """Return a value over the runs from their outcomes, where the images are known and the runs' values are the mean of
    the outcomes, or that of the group ``first`` minus that of ``second``; else None.
    """
    if any(frame["image"].isna().any() for frame in frames):
        return None
    unit = entries[0]["unit"]
    scale = UNITS[unit].of_one
    names = {frozenset(frame["group"].fillna("")) for frame in frames}
    if names == {frozenset({""})}:
        groups = [list(frames)]
    elif names == {frozenset({"first", "second"})}:
        groups = [[frame[frame["group"] == name] for frame in frames] for name in ("first", "second")]
    else:
        return None
    means = [np.array([frame["outcome"].mean() for frame in group]) for group in groups]
    if not np.allclose(
        means[0] - sum(means[1:]), [entry["value"] for entry in entries], rtol=1e-5, atol=1e-6
    ):
        return None
    given = [
        each
        for group in groups
        for each in ([frame["outcome"] / scale for frame in group], [frame["image"] for frame in group])
    ]
    if len(groups) == 2:
        value, ends = pooled_differences(*given)
    else:
        shares = unit == "%" and all(frame["outcome"].isin((0, scale)).all() for frame in frames)
        value, ends = pooled_outcomes(*given, shares=shares)
    return value * scale, Interval(*(end * scale for end in ends))


def _within(interval: Interval | None, bounds: Unit) -> list[float] | None:
    if interval is None or not all(map(math.isfinite, interval)):
        return None
    return [min(max(end, bounds.low), bounds.high) for end in interval]
