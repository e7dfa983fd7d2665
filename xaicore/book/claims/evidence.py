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
    """A rule cannot read a number: none is recorded under its id, or too few images stand behind it; says which."""


LEAST = 10
"""Images that a number needs to be judged."""
WIDEST_SHARE = 15.0
"""Half the width, in points, that the interval of a share may have where images are counted."""
TRACE = 1e-12
"""Below it, in its own unit, a number is a zero that float64 rounded."""


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

        Where the outcomes of all n images are equal, a bootstrap interval has no width and would claim certainty from any
        n. The exact 97.5 % binomial bound (Clopper and Pearson 1934) stands in: to the inside for a number at the end of
        its unit's range (a mean of outcomes between 0 and 1 is 1 in n of n images at most as often as a share is), and to
        both sides for a difference in points that is 0 in every image, which could as well go either way.

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
        value, *ends = (0.0 if abs(each) < TRACE else each for each in (value, *ends))
        low, high = min([*ends, value]), max([*ends, value])
        if ends and n:
            share, known = 1 - 0.025 ** (1 / n), UNITS[unit]
            if unit == "points" and value == 0:
                if 0 in (low, high):
                    width = max(share * known.high, -low, high)
                    low, high = -width, width
            elif low == high and unit in ("%", "share", "correlation", "points"):
                width = share * (known.high - known.low) / (2 if unit == "points" else 1)
                if value == known.low:
                    high = value + width
                elif value == known.high:
                    low = value - width
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
        details += [] if self.n is None else [f"n = {self.n:,}"]
        details += [] if self.runs == 1 else [f"{self.runs} runs"]
        return quantity(self.value, self.unit) + (f" ({', '.join(details)})" if details else "")

    @property
    def interval(self) -> str | None:
        """The interval as "low to high", or None for a number without one."""
        return None if self.low == self.high else f"{number(self.low)} to {number(self.high)}"

    def shortage(self, least: int) -> str | None:
        """Why too few images stand behind the number to be judged, or None.

        Args:
            least: the fewest images. A share (``%``) with an interval has enough where this is no wider than
                :data:`WIDEST_SHARE` points to a side.
        """
        if self.n is not None and self.n < least:
            return f"rests on {self.n} images, at least {least} are needed"
        half = (self.high - self.low) / 2
        if least and self.unit == "%" and half > WIDEST_SHARE + 1e-9:
            words = f"is {self}, an interval of ± {number(half)} points where ± {number(WIDEST_SHARE)} are the most"
            enough = math.ceil((self.n or 0) * (half / WIDEST_SHARE) ** 2)
            return words + (f"; about {enough} images are needed" if enough else "")
        return None


@dataclass(frozen=True)
class Evidence:
    """What a rule may look at: recorded numbers, each over ``least`` images or more, and the paper's own numbers."""

    values: Mapping[str, Measured] = field(default_factory=dict)
    reported: Mapping[str, float] = field(default_factory=dict)
    least: int = 0

    def __getitem__(self, name: str) -> Measured:
        """Return a recorded number.

        Raises:
            MissingResult: there is none, or too few images stand behind it.
        """
        if name not in self.values:
            raise MissingResult(f"the run recorded no number `{name}`")
        shortage = self.values[name].shortage(self.least)
        if shortage:
            raise MissingResult(f"`{name}` {shortage}")
        return self.values[name]


@dataclass(frozen=True)
class Outcome:
    """A verdict and why.

    Attributes:
        verdict: what the rule says.
        explanation: one sentence with the numbers in it.
        parts: the outcomes that a combined rule rests on.
        about: the number or the difference that a single comparison judges.
        measured: that number.
        clearance: how many times as wide its interval may become before it reaches the rule's boundary; below 1 it spans
            it. None where nothing measured is compared.
        needed: what the clearance has to be; above 1 where several are made (:mod:`xaicore.book.claims.several`).
        controls: the name and the outcome of each control.
    """

    verdict: Verdict
    explanation: str
    parts: tuple[Outcome, ...] = ()
    about: str = ""
    measured: Measured | None = None
    clearance: float | None = None
    needed: float = 1.0
    controls: tuple[tuple[str, Outcome], ...] = ()
