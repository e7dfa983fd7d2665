"""Rules with one condition: a number against a threshold, a band, another number or a trend.

A rule is a small immutable object read from ``claims/pN.yml``: it knows its arguments, says itself in
words, and judges evidence (the numbers of a run with their intervals) into an outcome. One principle holds
for all of them: a verdict is definite only where the whole interval lies on one side of the rule's
boundary; an interval that spans the boundary is *inconclusive*.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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

    def common(self, names: Iterator[str] | tuple[str, ...]) -> str | None:
        """Return the one unit of several ids.

        Raises:
            ValueError: they have several, or one has none.
        """
        first, *others = names
        for other in others:
            if self[first] != self[other]:
                raise ValueError(
                    f"{first} is in {self[first] or 'no unit'} and {other} in {self[other] or 'no unit'}: "
                    "numbers of different units cannot be compared"
                )
        return self[first]

    def difference(self, names: tuple[str, ...], value: str) -> str | None:
        """Return the unit of a difference of the ids, whose paired value, if any, has the id ``value``.

        Raises:
            ValueError: the ids have several units, or the paired value has not that of their difference.
        """
        unit = self.common(names)
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


class _Threshold(SingleRule):
    """One number against a threshold; subclasses fix the direction and whether equality is enough."""

    _reads: ClassVar[tuple[str, ...]] = ("value",)
    _upwards: ClassVar[bool] = True
    _strict: ClassVar[bool] = False
    _phrase: ClassVar[str] = ""
    value: str
    threshold: float

    @override
    def words(self) -> str:
        return f"`{self.value}` is {self._phrase} {number(self.threshold)}"

    @override
    def judge(self, evidence: Evidence) -> Outcome:
        return self._compare(f"`{self.value}`", evidence[self.value])

    @override
    def check_units(self, units: Units) -> None:
        check_range("threshold", self.threshold, units[self.value])

    def _compare(self, name: str, measured: Measured, how: str = "") -> Outcome:
        verdict = _side(measured, self.threshold, upwards=self._upwards, strict=self._strict)
        words = f"{name}{how} is {measured}, {_where(measured, self.threshold)}"
        room = _clearance(measured, self.threshold, verdict)
        return Outcome(verdict, words, about=name, measured=measured, clearance=room)


class AtLeast(_Threshold):
    """The number is the threshold or more."""

    _phrase = "at least"


class AtMost(_Threshold):
    """The number is the threshold or less."""

    _upwards, _phrase = False, "at most"


class MoreThan(_Threshold):
    """The number lies above the threshold."""

    _strict, _phrase = True, "more than"


class LessThan(_Threshold):
    """The number lies below the threshold."""

    _upwards, _strict, _phrase = False, True, "less than"


class Difference(_Threshold):
    """``a`` minus ``b`` lies above the threshold; ``value`` is the difference itself, used where recorded."""

    _reads = ("value", "a", "b")
    value: str = ""
    a: str
    b: str
    threshold: float = 0.0
    _strict, _phrase = True, "more than"

    @override
    def words(self) -> str:
        return f"`{self.a}` exceeds `{self.b}` by more than {number(self.threshold)}"

    @override
    def judge(self, evidence: Evidence) -> Outcome:
        for name in (self.a, self.b):
            if name in evidence.values:
                evidence[name]  # raises where the group is too small, also where the difference is recorded
        if self.value in evidence.values:
            return self._compare(f"`{self.value}`", evidence[self.value], " (the recorded difference)")
        return self._compare(f"`{self.a}` minus `{self.b}`", evidence[self.a] - evidence[self.b])

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
        if low <= measured.low and measured.high <= high:
            verdict, where = Verdict.REPRODUCED, f"within {band}"
        elif measured.high < low or high < measured.low:
            verdict, where = Verdict.NOT_REPRODUCED, f"outside {band}"
        else:
            verdict, where = Verdict.INCONCLUSIVE, f"an interval that reaches both inside and outside {band}"
        edges = (low, high) if low <= measured.value <= high else (low if measured.value < low else high,)
        room = min(_clearance(measured, edge, verdict) for edge in edges)
        name = f"`{self.value}`"
        return Outcome(
            verdict, f"{name} is {measured}, {where}", about=name, measured=measured, clearance=room
        )

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
        levels = [evidence[name] for name in self.sequence]
        paired = self.change in evidence.values
        change = evidence[self.change] if paired else levels[-1] - levels[0]
        upwards = self.direction == "rising"
        verdict = _side(change, 0.0, upwards=upwards, strict=True)
        worst = max((a.value - b.value if upwards else b.value - a.value) for a, b in pairwise(levels))
        if verdict is Verdict.REPRODUCED and worst > self.slack:
            verdict = Verdict.PARTLY
        step = "no step goes back" if worst <= 0 else f"the largest step back is {number(worst)}"
        path = f"`{self.sequence[0]}` to `{self.sequence[-1]}`"
        words = f"{path} changes by {change}; {step} (slack {number(self.slack)})"
        about = f"`{self.change}`" if paired else f"the change from {path}"
        room = _clearance(change, 0.0, verdict)
        return Outcome(verdict, words, about=about, measured=change, clearance=room)

    @override
    def check_units(self, units: Units) -> None:
        units.difference(self.sequence, self.change)
        units.check_size("a slack", self.slack, units[self.sequence[0]])


def _clearance(measured: Measured, boundary: float, verdict: Verdict) -> float:
    """How many times as wide the interval may be before it reaches the boundary (:func:`clearance`)."""
    if measured.value == boundary:
        return 0.0 if verdict is Verdict.INCONCLUSIVE else math.inf
    return clearance(measured.value, measured.low if measured.value > boundary else measured.high, boundary)


def _side(measured: Measured, threshold: float, *, upwards: bool, strict: bool) -> Verdict:
    low, high = (measured.low, measured.high) if upwards else (-measured.high, -measured.low)
    boundary = threshold if upwards else -threshold
    if low > boundary or (low == boundary and not strict):
        return Verdict.REPRODUCED
    if high < boundary or (high == boundary and strict):
        return Verdict.NOT_REPRODUCED
    return Verdict.INCONCLUSIVE


def _where(measured: Measured, threshold: float) -> str:
    limit = number(threshold)
    if measured.low == measured.high == threshold:
        return f"exactly {limit}"
    if measured.low >= threshold:
        return f"above {limit}" if measured.low > threshold else f"not below {limit}"
    if measured.high <= threshold:
        return f"below {limit}" if measured.high < threshold else f"not above {limit}"
    return f"an interval that spans {limit}"
