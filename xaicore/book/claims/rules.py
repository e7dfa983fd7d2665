"""The registry of rules, and the rules that combine others.

Every check of a claim names an entry of ``RULES``; adding a rule is a class (here or in
:mod:`xaicore.book.claims.simple_rules`), its entry in the registry, and a test. A combined verdict follows its
parts: all reproduced is *reproduced*; reproduced beside not reproduced is *partly*; not reproduced beside
inconclusive or not testable is *not reproduced*; otherwise a part that is not testable makes the whole so, and then one
that is inconclusive makes it *inconclusive*. The comparisons of all parts together are corrected by Holm's procedure
(:mod:`xaicore.book.claims.several`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from typing_extensions import override

from xaicore.book.claims.arithmetic import Arithmetic
from xaicore.book.claims.evidence import Evidence, MissingResult, Outcome, Verdict
from xaicore.book.claims.several import corrected
from xaicore.book.claims.simple_rules import Difference, Rule, SingleRule, Threshold, Trend, Units, Within


class _Combined(Rule):
    """Several checks: written out (``checks``), or one check (``each``) applied to many ids (``over``)."""

    _phrase: ClassVar[str] = ""
    checks: tuple[Check, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, data: Any) -> Any:
        if isinstance(data, dict) and ("over" in data or "each" in data):
            rest = {key: value for key, value in data.items() if key not in ("over", "each")}
            over, each = data.get("over"), data.get("each")
            if "checks" in rest or not isinstance(over, list) or not isinstance(each, dict):
                raise ValueError("give either 'checks', or 'over' (ids) with 'each' (a check without value)")
            return rest | {"checks": [{**each, "value": name} for name in over]}
        return data

    @override
    def ids(self) -> set[str]:
        return set().union(*(check.ids() for check in self.checks))

    @override
    def reported_ids(self) -> set[str]:
        return set().union(*(check.reported_ids() for check in self.checks))

    @override
    def check_units(self, units: Units) -> None:
        for check in self.checks:
            check.check_units(units)

    @abstractmethod
    def combine(self, parts: list[Outcome]) -> Outcome:
        """Return the outcome that those of the checks come to."""

    @override
    def words(self) -> str:
        return f"{self._phrase} of these {len(self.checks)} hold: {self._conditions()}"

    def _conditions(self) -> str:
        """The parts in words, those that ask the same of several results taken together."""
        same: dict[str, list[str]] = {}
        for check in self.checks:
            words = check.words()
            subject, separator, rest = words.partition("` is ")
            condition, whose = (separator + rest, subject) if separator else (words, "")
            same.setdefault(condition, []).append(whose)
        several = {
            rest: rest.replace("` is ", "`, each is ", 1) for rest, names in same.items() if len(names) > 1
        }
        return "; ".join(
            "`, ".join(filter(None, names)) + several.get(rest, rest) for rest, names in same.items()
        )


class AllOf(_Combined):
    """Every part holds: all reproduced, *partly* where some are reproduced and some are not."""

    _phrase = "all"

    @override
    def combine(self, parts: list[Outcome]) -> Outcome:
        found = {part.verdict for part in parts}
        if Verdict.PARTLY in found or found >= {Verdict.REPRODUCED, Verdict.NOT_REPRODUCED}:
            return _combined(Verdict.PARTLY, parts)
        order = (Verdict.NOT_REPRODUCED, Verdict.NOT_TESTABLE, Verdict.INCONCLUSIVE, Verdict.REPRODUCED)
        return _combined(next(each for each in order if each in found), parts)


class AnyOf(_Combined):
    """At least one part holds."""

    _phrase = "any"
    _order: ClassVar[tuple[Verdict, ...]] = (
        Verdict.REPRODUCED,
        Verdict.NOT_TESTABLE,
        Verdict.INCONCLUSIVE,
        Verdict.PARTLY,
        Verdict.NOT_REPRODUCED,
    )

    @override
    def combine(self, parts: list[Outcome]) -> Outcome:
        found = {part.verdict for part in parts}
        return _combined(next(verdict for verdict in self._order if verdict in found), parts)


class FractionOf(_Combined):
    """At least ``needed`` of the parts hold; with ``partly`` set, that many make it *partly*."""

    needed: int = Field(ge=1)
    partly: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> FractionOf:
        if self.needed > len(self.checks) or (self.partly is not None and self.partly >= self.needed):
            raise ValueError("'needed' must not exceed the number of checks, 'partly' must be below 'needed'")
        return self

    @override
    def words(self) -> str:
        partly = f" (partly: at least {self.partly})" if self.partly else ""
        fewest = "all" if self.needed == len(self.checks) else f"at least {self.needed}"
        return f"{fewest} of these {len(self.checks)} hold{partly}: {self._conditions()}"

    @override
    def combine(self, parts: list[Outcome]) -> Outcome:
        found = [part.verdict for part in parts]
        sure = found.count(Verdict.REPRODUCED)
        unknown = found.count(Verdict.NOT_TESTABLE)
        open_ = unknown + found.count(Verdict.INCONCLUSIVE)
        if sure >= self.needed:
            verdict = Verdict.REPRODUCED
        elif sure + open_ >= self.needed:
            verdict = Verdict.NOT_TESTABLE if unknown else Verdict.INCONCLUSIVE
        else:
            verdict = Verdict.PARTLY if self.partly and sure >= self.partly else Verdict.NOT_REPRODUCED
        return _combined(verdict, parts)


def evaluate(check: Rule, evidence: Evidence, *, correct: bool = True) -> Outcome:
    """Judge a check; a missing number makes it *not testable here* and is named.

    Args:
        check: the rule with its arguments.
        evidence: the numbers of one run, or pooled, and the paper's own.
        correct: whether several comparisons are corrected (:mod:`xaicore.book.claims.several`).

    Returns:
        The verdict with its explanation; never raises for a missing result.
    """
    found = [_single(single, evidence) for single in singles(check)]
    return _put_together(check, iter(corrected(found) if correct else found))


def singles(check: Rule) -> list[SingleRule]:
    """The rules without parts of which a check is made, in order."""
    if isinstance(check, _Combined):
        return [single for part in check.checks for single in singles(part)]
    assert isinstance(check, SingleRule)
    return [check]


def substituted(check: Rule, instead: Mapping[str, str]) -> Rule:
    """Return the check with other record ids.

    Args:
        check: the rule with its arguments.
        instead: beginning of an id → beginning that takes its place; whole words between dots count.

    Raises:
        ValueError: nothing is replaced.
    """

    def other(data: Any) -> Any:
        if isinstance(data, dict):
            return {key: other(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [other(value) for value in data]
        for old, new in instead.items():
            if isinstance(data, str) and (data == old or data.startswith(old + ".")):
                return new + data.removeprefix(old)
        return data

    found = parse_check(other(check.model_dump()))
    if found == check:
        raise ValueError(f"'instead' replaces nothing: the check reads no {', '.join(instead)}")
    return found


def _single(check: SingleRule, evidence: Evidence) -> Outcome:
    try:
        return check.judge(evidence)
    except MissingResult as missing:
        return Outcome(Verdict.NOT_TESTABLE, missing.args[0])


def _put_together(check: Rule, found: Iterator[Outcome]) -> Outcome:
    if isinstance(check, _Combined):
        return check.combine([_put_together(part, found) for part in check.checks])
    return next(found)


def parse_check(data: Any) -> Rule:
    """Read a check as it stands in the YAML file: a mapping whose ``rule`` names an entry of ``RULES``.

    Raises:
        ValueError: not a mapping, or an unknown rule (pydantic reports unknown or mistyped arguments itself).
    """
    if isinstance(data, Rule):
        return data
    name = data.get("rule") if isinstance(data, dict) else data
    if not isinstance(data, dict) or not isinstance(name, str) or name not in RULES:
        raise ValueError(f"unknown rule {name!r}; the rules are {', '.join(sorted(RULES))}")
    return RULES[name].model_validate(data)


Check = Annotated[SerializeAsAny[Rule], BeforeValidator(parse_check)]

RULES: dict[str, type[Rule]] = {
    "within": Within,
    "at_least": Threshold,
    "at_most": Threshold,
    "more_than": Threshold,
    "less_than": Threshold,
    "difference": Difference,
    "trend": Trend,
    "fraction_of": FractionOf,
    "all_of": AllOf,
    "any_of": AnyOf,
    "arithmetic": Arithmetic,
}
for _rule in (AllOf, AnyOf, FractionOf):
    _rule.model_rebuild()


def _combined(verdict: Verdict, parts: Sequence[Outcome]) -> Outcome:
    missing = [part.explanation for part in parts if part.verdict is Verdict.NOT_TESTABLE]
    if verdict is Verdict.NOT_TESTABLE:
        return Outcome(verdict, missing[0], tuple(parts))
    counts = [(kind, sum(part.verdict is kind for part in parts)) for kind in Verdict]
    shown = ", ".join(f"{count} {kind}" for kind, count in counts if count)
    named = f" ({'; '.join(missing)})" if missing else ""
    return Outcome(verdict, f"of {len(parts)} parts: {shown}{named}", tuple(parts))
