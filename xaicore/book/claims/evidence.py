"""What a verdict rests on: recorded numbers with their intervals, and the paper's own reported numbers.

The interval of a difference of two numbers that were not compared pair by pair is made from their own
intervals by the MOVER method: with d = a - b, low = d - sqrt((a - a_low)^2 + (b_high - b)^2) and high
accordingly (Newcombe 1998, Statistics in Medicine 17:873; Zou and Donner 2008, Statistics in Medicine
27:1693). It assumes independent samples, so it is too wide, never too narrow, for the positively correlated
ones met here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from xaicore.core.units import UNITS, known_unit, number, quantity


class Verdict(StrEnum):
    """What a rule says about a claim."""

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTABLE = "not testable here"


class MissingResult(LookupError):
    """No run recorded a number under this id."""


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval (the value itself where there is none), n images, unit, and over how many runs."""

    value: float
    low: float
    high: float
    n: int | None = None
    unit: str | None = None
    runs: int = 1

    @classmethod
    def from_record(cls, entry: Mapping[str, Any]) -> Measured | None:
        """Read one entry of the ``values`` of evidence or of a record.

        A percentage of exactly 0 or 100 over n images has a bootstrap interval without width, which would
        claim certainty from any n; the exact 97.5 % binomial bound (Clopper and Pearson 1934) stands in.

        Args:
            entry: ``{"value", "n", "ci": [low, high] or None, "unit"}``, with ``runs`` where these are several.

        Returns:
            The number in the unit in which pages give it, or None where the run could not compute one (null, not
            finite, or over no image).
        """
        value, n, unit = entry.get("value"), entry.get("n"), entry.get("unit")
        if value is None or not math.isfinite(value) or n == 0:
            return None
        ends = [end for end in entry.get("ci") or () if end is not None and not math.isnan(end)]
        spec = UNITS[known_unit(unit)]
        if spec.parts != 1:
            unit, value, ends = spec.shown, value / spec.parts, [end / spec.parts for end in ends]
        low, high = min([*ends, value]), max([*ends, value])
        if unit == "%" and ends and n and low == high and value in (0, 100):
            width = 100 * (1 - 0.025 ** (1 / n))
            low, high = (0.0, width) if value == 0 else (100 - width, 100.0)
        return cls(float(value), float(low), float(high), n, unit, entry.get("runs", 1))

    def __sub__(self, other: Measured) -> Measured:
        difference = self.value - other.value
        low = difference - math.hypot(self.value - self.low, other.high - other.value)
        high = difference + math.hypot(self.high - self.value, other.value - other.low)
        n = None if self.n is None or other.n is None else min(self.n, other.n)
        unit = "points" if self.unit == "%" else self.unit
        return Measured(difference, low, high, n, unit, min(self.runs, other.runs))

    def __str__(self) -> str:
        details = [] if self.interval is None else [f"95 % interval {self.interval}"]
        details += [] if self.n is None else [f"n = {self.n}"]
        details += [] if self.runs == 1 else [f"{self.runs} runs"]
        return quantity(self.value, self.unit) + (f" ({', '.join(details)})" if details else "")

    @property
    def interval(self) -> str | None:
        """The interval as "low to high", or None for a number without one."""
        return None if self.low == self.high else f"{number(self.low)} to {number(self.high)}"


@dataclass(frozen=True)
class Evidence:
    """What a rule may look at: the numbers one run recorded, and the numbers the paper itself reports."""

    values: Mapping[str, Measured] = field(default_factory=dict)
    reported: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Measured:
        if name not in self.values:
            raise MissingResult(name)
        return self.values[name]


@dataclass(frozen=True)
class Outcome:
    """A verdict and why (one sentence with the numbers in it); a combined rule adds each part's outcome."""

    verdict: Verdict
    explanation: str
    parts: tuple[Outcome, ...] = ()
