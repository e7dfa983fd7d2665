"""Rules with one condition: a number against a threshold, a band, another number or a trend.

A rule is a small immutable object read from ``claims/pN.yml``: it knows its arguments, says itself in
words, and judges evidence (the numbers of a run with their intervals) into an outcome. One principle holds
for all of them: a verdict is definite only where the whole interval lies on one side of the rule's
boundary; an interval that spans the boundary is *inconclusive*.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from xaicore.book.claims.evidence import Evidence, Measured, Outcome, Verdict
from xaicore.book.claims.several import clearance
from xaicore.core.units import UNITS, check_range, number


@dataclass(frozen=True)
class Units:
    """The units of record ids, by the longest beginning that is listed, and of the paper's own numbers, by id."""

    of: Mapping[str, str | None]
    reported: Mapping[str, str | None]

    def __getitem__(self, name: str) -> str | None:
        """Return the unit of a record id.

        Raises:
            ValueError: none is listed.
        """
        words = name.split(".")
        for count in range(len(words), 0, -1):
            beginning = ".".join(words[:count])
            if beginning in self.of:
                return self.of[beginning]
        raise ValueError(f"no unit is listed for {name}")

    def difference(self, names: tuple[str, ...], value: str) -> str | None:
        """Return the unit of a difference of the ids, whose paired value, if any, has the id ``value``.

        Raises:
            ValueError: the ids have several units or none, or the paired value has not that of their difference.
        """
        first, unit = names[0], self[names[0]]
        for other in names[1:]:
            if self[other] != unit:
                raise ValueError(
                    f"{first} is in {unit or 'no unit'} and {other} in {self[other] or 'no unit'}: "
                    "numbers of different units cannot be compared"
                )
        found = "points" if unit == "%" else unit if unit in ("points", "logits", "dB") else None
        if value and self[value] != found:
            raise ValueError(
                f"{value} is in {self[value] or 'no unit'}, a difference of numbers in {unit or 'no unit'} is in "
                f"{found or 'no unit'}"
            )
        return found

    def check_size(self, what: str, size: float, unit: str | None) -> None:
        """Refuse a step, a margin or a tolerance larger than the range of the unit.

        Raises:
            ValueError: it is.
        """
        if abs(size) > UNITS[unit].high - UNITS[unit].low:
            raise ValueError(f"{what} of {number(size)} is more than the whole range of {unit}")


class Rule(BaseModel, ABC):
    """A named check with its arguments; ``reason`` says why this rule and this tolerance."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    _reads: ClassVar[tuple[str, ...]] = ()
    rule: str
    reason: str = ""

    def ids(self) -> set[str]:
        """The record ids the rule reads."""
        arguments = (getattr(self, name) for name in self._reads)
        listed = ((argument,) if isinstance(argument, str) else argument for argument in arguments)
        return {name for names in listed for name in names if name}

    def reported_ids(self) -> set[str]:
        """The ids of the paper's reported numbers the rule reads."""
        return set()

    @abstractmethod
    def words(self) -> str:
        """The condition for *reproduced*, in words."""

    def check_units(self, units: Units) -> None:
        """Refuse numbers of different units, and a threshold that its number cannot reach.

        Raises:
            ValueError: there is one, or an id without a unit.
        """


class SingleRule(Rule):
    """A rule that judges evidence by itself."""

    @abstractmethod
    def judge(self, evidence: Evidence) -> Outcome:
        """Judge the evidence.

        Raises:
            MissingResult: a number the rule needs was not recorded, or rests on too few images.
        """


class Threshold(SingleRule):
    """The number is ``at_least``, ``at_most``, ``more_than`` or ``less_than`` the threshold, as the rule's name says."""

    _reads: ClassVar[tuple[str, ...]] = ("value",)
    value: str
    threshold: float

    @override
    def words(self) -> str:
        return f"`{self.value}` is {self.rule.replace('_', ' ')} {number(self.threshold)}"

    @override
    def judge(self, evidence: Evidence) -> Outcome:
        measured, about = evidence[self.value], f"`{self.value}`"
        upwards = self.rule in ("at_least", "more_than")
        band = (self.threshold, math.inf) if upwards else (-math.inf, self.threshold)
        words = f"{about} is {measured}, {_where(measured, self.threshold)}"
        return _judged(measured, about, words, band, strict=self.rule in ("more_than", "less_than"))

    @override
    def check_units(self, units: Units) -> None:
        check_range("threshold", self.threshold, units[self.value])


class Difference(SingleRule):
    """``a`` minus ``b`` lies above the threshold; ``value`` is the difference itself, used where recorded."""

    _reads = ("value", "a", "b")
    value: str = ""
    threshold: float = 0.0
    a: str
    b: str

    @override
    def words(self) -> str:
        return f"`{self.a}` exceeds `{self.b}` by more than {number(self.threshold)}"

    @override
    def judge(self, evidence: Evidence) -> Outcome:
        for name in (self.a, self.b):
            if name in evidence.values:
                evidence[name]  # raises where the group is too small, also where the difference is recorded
        paired = self.value in evidence.values
        measured = evidence[self.value] if paired else evidence[self.a] - evidence[self.b]
        about = f"`{self.value}`" if paired else f"`{self.a}` minus `{self.b}`"
        how, where = " (the recorded difference)" if paired else "", _where(measured, self.threshold)
        words = f"{about}{how} is {measured}, {where}"
        return _judged(measured, about, words, (self.threshold, math.inf), strict=True)

    @override
    def check_units(self, units: Units) -> None:
        unit = units.difference((self.a, self.b), self.value)
        check_range("threshold", self.threshold, unit)
        units.check_size("a threshold", self.threshold, units[self.a])


class Within(SingleRule):
    """The number equals the reported one (a number, or the id of a reported number) to within a tolerance."""

    _reads = ("value",)
    value: str
    reported: float | str
    tolerance: float = Field(gt=0)

    @override
    def reported_ids(self) -> set[str]:
        return {self.reported} if isinstance(self.reported, str) else set()

    @override
    def words(self) -> str:
        target = (
            f"the reported `{self.reported}`" if isinstance(self.reported, str) else number(self.reported)
        )
        return f"`{self.value}` is within {number(self.tolerance)} of {target}"

    @override
    def judge(self, evidence: Evidence) -> Outcome:
        measured = evidence[self.value]
        target = evidence.reported[self.reported] if isinstance(self.reported, str) else self.reported
        low, high = target - self.tolerance, target + self.tolerance
        band = f"{number(low)} to {number(high)}"
        where = f"an interval that reaches both inside and outside {band}"
        if low <= measured.low and measured.high <= high:
            where = f"within {band}"
        elif measured.high < low or high < measured.low:
            where = f"outside {band}"
        about = f"`{self.value}`"
        return _judged(measured, about, f"{about} is {measured}, {where}", (low, high))

    @override
    def check_units(self, units: Units) -> None:
        unit = units[self.value]
        if isinstance(self.reported, str):
            if units.reported.get(self.reported) != unit:
                theirs = units.reported.get(self.reported) or "no unit"
                raise ValueError(f"{self.value} is in {unit or 'no unit'}, {self.reported} in {theirs}")
        else:
            check_range("reported", self.reported, unit)
        units.check_size("a tolerance", self.tolerance, unit)


class Trend(SingleRule):
    """The sequence moves one way from first to last, and no step goes back by more than ``slack``.

    The whole change, last minus first (``change`` is its paired value, where recorded), is judged with its
    interval. The steps between are judged by their values alone, because the slack already allows for their
    noise; a step back by more than the slack makes a sure trend *partly*.
    """

    _reads = ("sequence", "change")
    sequence: tuple[str, ...] = Field(min_length=2)
    direction: Literal["rising", "falling"]
    slack: float = Field(default=0.0, ge=0)
    change: str = ""

    @override
    def words(self) -> str:
        path = f"from `{self.sequence[0]}` to `{self.sequence[-1]}` ({len(self.sequence)} levels)"
        return f"the values are {self.direction} {path}, no step going back by more than {number(self.slack)}"

    @override
    def judge(self, evidence: Evidence) -> Outcome:
        paired, rising = self.change in evidence.values, self.direction == "rising"
        # Where it is paired the change alone is judged with its interval, the levels by their values.
        known = replace(evidence, least=0) if paired else evidence
        levels = [known[name] for name in self.sequence]
        change = evidence[self.change] if paired else levels[-1] - levels[0]
        path = f"`{self.sequence[0]}` to `{self.sequence[-1]}`"
        about = f"`{self.change}`" if paired else f"the change from {path}"
        worst = max((a.value - b.value if rising else b.value - a.value) for a, b in pairwise(levels))
        step = "no step goes back" if worst <= 0 else f"the largest step back is {number(worst)}"
        words = f"{path} changes by {change}; {step} (slack {number(self.slack)})"
        band = (0.0, math.inf) if rising else (-math.inf, 0.0)
        outcome = _judged(change, about, words, band, strict=True)
        if outcome.verdict is Verdict.REPRODUCED and worst > self.slack:
            return replace(outcome, verdict=Verdict.PARTLY)
        return outcome

    @override
    def check_units(self, units: Units) -> None:
        units.difference(self.sequence, self.change)
        units.check_size("a slack", self.slack, units[self.sequence[0]])


def _judged(
    measured: Measured, about: str, words: str, band: tuple[float, float], *, strict: bool = False
) -> Outcome:
    """Return the outcome of a number that has to lie in a band, without its ends where ``strict``."""
    (low, high), ends = band, {measured.low, measured.high}
    if low <= measured.low and measured.high <= high and not (strict and ends & {*band}):
        verdict = Verdict.REPRODUCED
    elif (
        measured.high < low
        or high < measured.low
        or (strict and (measured.high == low or measured.low == high))
    ):
        verdict = Verdict.NOT_REPRODUCED
    else:
        verdict = Verdict.INCONCLUSIVE
    edges = band if low <= measured.value <= high else (low if measured.value < low else high,)
    room = min(_clearance(measured, edge, verdict) for edge in edges)
    return Outcome(verdict, words, about=about, measured=measured, clearance=room)


def _clearance(measured: Measured, boundary: float, verdict: Verdict) -> float:
    """How many times as wide the interval may be before it reaches the boundary (:func:`clearance`)."""
    if measured.value == boundary:
        return 0.0 if verdict is Verdict.INCONCLUSIVE else math.inf
    return clearance(measured.value, measured.low if measured.value > boundary else measured.high, boundary)


def _where(measured: Measured, threshold: float) -> str:
    limit = number(threshold)
    if measured.low == measured.high == threshold:
        return f"exactly {limit}"
    if measured.low >= threshold:
        return f"above {limit}" if measured.low > threshold else f"not below {limit}"
    if measured.high <= threshold:
        return f"below {limit}" if measured.high < threshold else f"not above {limit}"
    return f"an interval that spans {limit}"
