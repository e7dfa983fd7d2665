"""Made numbers earn every claim each verdict that its rule can give: none is reproduced, or not, whatever comes out.

The numbers are made from the rule: each of its comparisons gets numbers well inside of its condition, on the other side,
or with an interval that spans the boundary, in the range of the unit. Numbers are left out or rest on too few images; the
control satisfies the rule, or fails it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from xaicore.book.claims import arithmetic
from xaicore.book.claims.arithmetic import Arithmetic
from xaicore.book.claims.assessment import assess
from xaicore.book.claims.evidence import LEAST, Evidence, Measured, Verdict
from xaicore.book.claims.rules import RULES, AllOf, FractionOf, evaluate, parse_check, singles
from xaicore.book.claims.schema import Claim, Control, Paper, load_claims
from xaicore.book.claims.simple_rules import Difference, Rule, Trend, Units, Within
from xaicore.core.units import UNITS

PAPERS = load_claims(Path(__file__).parents[1] / "claims")
CLAIMS = [(paper, claim) for paper in PAPERS for claim in paper.claims]
R, P, N = Verdict.REPRODUCED, Verdict.PARTLY, Verdict.NOT_REPRODUCED
INC, NT = Verdict.INCONCLUSIVE, Verdict.NOT_TESTABLE
Values = dict[str, Measured]


def possible(check: Rule) -> set[Verdict]:
    """The verdicts that a check can give, from its form."""
    inside = singles(check)
    if all(isinstance(single, Arithmetic) for single in inside):
        return {R, N, P} if isinstance(check, AllOf) and len(inside) > 1 else {R, N}
    mixed = isinstance(check, AllOf) and len(inside) > 1
    mixed |= isinstance(check, FractionOf) and check.partly is not None
    return {R, N, INC, NT} | ({P} if mixed or isinstance(check, Trend) else set())


def boundaries(check: Rule, name: str, numbers: dict[str, float]) -> set[float]:
    """The values at which the verdict on a number changes."""
    found = set()
    for single in singles(check):
        if isinstance(single, Within) and single.value == name:
            target = numbers[single.reported] if isinstance(single.reported, str) else single.reported
            found |= {target - single.tolerance, target + single.tolerance}
        elif hasattr(single, "threshold") and single.value == name:
            found.add(single.threshold)
    return found


def candidates(check: Rule, name: str, units: Units, numbers: dict[str, float]) -> list[Measured]:
    """Narrow intervals between all boundaries of a number, and wider ones about each, in the range of its unit."""
    spec = UNITS[units[name]]
    size = min(5.0, (spec.high - spec.low) / 10)
    bounded = spec.high - spec.low < 1e9
    anywhere = (
        {spec.low + part * (spec.high - spec.low) for part in (0.2, 0.5, 0.8)} if bounded else {0.3, 0.6}
    )
    edges = sorted(boundaries(check, name, numbers) or anywhere)
    low, high = max(spec.low, edges[0] - 4 * size), min(spec.high, edges[-1] + 4 * size)
    cells = [(a + b) / 2 for a, b in itertools.pairwise([low, *edges, high]) if b > a]
    made = [Measured(value, value - 1e-6 * size, value + 1e-6 * size) for value in cells]
    return made + [Measured(edge + 0.1 * size, edge - size, edge + size) for edge in edges]


def levels(single: Trend, units: Units, rng: random.Random) -> Values:
    """A sequence that moves one way, the other way, back in between, or not beyond doubt."""
    spec = UNITS[units[single.sequence[0]]]
    low, size = (spec.low, spec.high - spec.low) if spec.high - spec.low < 1e9 else (0.0, 1.0)
    steps = [(i + 1) / (len(single.sequence) + 1) for i in range(len(single.sequence))]
    back = [steps[0], steps[-2], steps[1], *steps[3:]]
    moves = rng.choice([steps, steps[::-1], back, [1 - step for step in back], [0.5] * len(steps)])
    half = 0.1 if moves[0] == moves[-1] else 1e-6
    values = {
        name: Measured(low + move * size, low + (move - half) * size, low + (move + half) * size)
        for name, move in zip(single.sequence, moves, strict=True)
    }
    if single.change:
        values[single.change] = values[single.sequence[-1]] - values[single.sequence[0]]
    return values


def options(check: Rule, single: Rule, paper: Paper, rng: random.Random) -> Iterator[Values]:
    """Numbers for one comparison, in a random order."""
    units, numbers = paper.record_units, dict(paper.numbers)
    if isinstance(single, Trend):
        for _ in range(20):
            yield levels(single, units, rng)
        return
    names = [single.a, single.b] if isinstance(single, Difference) else [single.value]  # type: ignore[attr-defined]
    choices = [candidates(check, name, units, numbers) for name in names]
    for chosen in sorted(itertools.product(*choices), key=lambda _: rng.random()):
        values = dict(zip(names, chosen, strict=True))
        if isinstance(single, Difference) and single.value:
            values[single.value] = chosen[0] - chosen[1]
        yield values


def made(
    check: Rule, paper: Paper, moods: list[set[Verdict]], fixed: Values, rng: random.Random
) -> Values | None:
    """Numbers with which each comparison of a check has a verdict of its mood; None where these shut each other out."""
    values = dict(fixed)
    for single, mood in zip(singles(check), moods, strict=True):
        for option in options(check, single, paper, rng):
            tried = {**option, **values}
            if isinstance(single, Difference) and single.value and single.value not in fixed:
                tried[single.value] = tried[single.a] - tried[single.b]
            if evaluate(single, Evidence(tried, paper.numbers)).verdict in mood:
                values = tried
                break
        else:
            return None
    return values


def reach(
    check: Rule, paper: Paper, wanted: Verdict, fixed: Values, judged: Callable[[Values], Verdict]
) -> Values | None:
    """Search numbers with which ``judged(values)`` is ``wanted``."""
    rng = random.Random(0)
    count = len(singles(check))
    for attempt in range(400):
        mood = [{R}, {N}, {INC}, {P}][attempt % 4]
        moods = (
            [mood] * count if attempt % 8 < 4 else [rng.choice([{R}, {N}, {INC}, mood]) for _ in range(count)]
        )
        values = made(check, paper, moods, fixed, rng)
        if values is not None and judged(values) is wanted:
            return values
    return None


def reported(check: Rule, paper: Paper) -> Iterator[dict[str, float]]:
    """The paper's numbers as others, sums made true for all, some or none of the comparisons."""
    rng = random.Random(0)
    for attempt in range(1000):
        values = dict(paper.numbers)
        for single in singles(check):
            assert isinstance(single, Arithmetic)
            drawn = [rng.uniform(0.1, 99) for _ in single.numbers]
            values |= dict(zip(single.numbers.values(), sorted(drawn) if attempt % 2 else drawn, strict=True))
        for single in singles(check):
            if isinstance(single.expected, str) and rng.random() < 0.5:
                body = arithmetic.parse(single.expression, frozenset(single.numbers))
                short = {name: values[identifier] for name, identifier in single.numbers.items()}
                values[single.numbers[single.expected]] = arithmetic.value(body, short)
        yield values


def checks(claim: Claim) -> list[tuple[str, Rule]]:
    """Each check with an edition in which it counts."""
    return [(edition, claim.check_for(edition)) for edition in claim.editions]


@pytest.mark.parametrize(("paper", "claim"), CLAIMS, ids=[claim.id for _, claim in CLAIMS])
def test_a_claim_can_earn_every_verdict_of_its_rule(paper: Paper, claim: Claim) -> None:
    if claim.internal:
        found = {
            evaluate(claim.check, Evidence(reported=numbers)).verdict
            for numbers in reported(claim.check, paper)
        }
        assert found == possible(claim.check), f"{claim.id} cannot be {possible(claim.check) - found}"
        return
    for edition, check in checks(claim):
        earns_every_verdict(paper, claim, edition, check)


def earns_every_verdict(paper: Paper, claim: Claim, edition: str, check: Rule) -> None:
    def outcome(values: Values, n: int = 1000) -> Verdict:
        counted = {name: replace(value, n=n, unit=paper.record_units[name]) for name, value in values.items()}
        return assess(claim, edition, Evidence(counted, paper.numbers)).verdict

    values = {wanted: reach(check, paper, wanted, {}, outcome) for wanted in possible(check) - {NT}}
    missing = [str(wanted) for wanted, made in values.items() if made is None]
    assert not missing, f"{claim.id} cannot be {missing} in the {edition} edition"
    sure = values[R]
    assert sure is not None
    assert outcome(sure, LEAST - 1) is NT, f"{claim.id} is judged on {LEAST - 1} images"
    assert outcome({}) is NT
    if isinstance(check, AllOf) or len(singles(check)) == 1:
        for single in singles(check):
            assert outcome({name: value for name, value in sure.items() if name not in single.ids()}) is NT


def test_a_rule_that_no_number_can_satisfy_is_noticed() -> None:
    paper = PAPERS[0]
    for rule, cannot in (("more_than", R), ("at_most", N)):
        check = parse_check({"rule": rule, "value": "p1.success.fgsm", "threshold": 100})
        found = {
            wanted: reach(
                check,
                paper,
                wanted,
                {},
                lambda values, check=check: evaluate(check, Evidence(values)).verdict,
            )
            for wanted in (R, N)
        }
        assert [wanted for wanted, values in found.items() if values is None] == [cannot]


PLACEBOS = [
    (paper, claim, edition, control)
    for paper, claim in CLAIMS
    for edition in claim.editions
    for control in claim.control
    if control.placebo
]


@pytest.mark.parametrize(
    ("paper", "claim", "edition", "control"),
    PLACEBOS,
    ids=[f"{claim.id}-{edition}-{control.placebo}" for _, claim, edition, control in PLACEBOS],
)
def test_a_placebo_that_satisfies_the_rule_leaves_partly_at_most(
    paper: Paper, claim: Claim, edition: str, control: Control
) -> None:
    check = claim.check_for(edition)
    rule = control.rule(check)

    def counted(values: Values) -> Evidence:
        units = paper.record_units
        return Evidence(
            {name: replace(value, n=1000, unit=units[name]) for name, value in values.items()}, paper.numbers
        )

    sure = reach(check, paper, R, {}, lambda values: evaluate(check, counted(values)).verdict)
    assert sure is not None
    shared = {name: value for name, value in sure.items() if name in rule.ids()}
    same, other = (
        reach(rule, paper, wanted, shared, lambda values: evaluate(rule, counted(values)).verdict)
        for wanted in (R, N)
    )
    assert same is not None, f"{control.placebo} can never satisfy the rule of {claim.id}"
    assert other is not None, f"{control.placebo} can never fail the rule of {claim.id}"
    capped = assess(claim, edition, counted(same | sure))
    assert capped.verdict is P
    assert f"so does {control.placebo}" in capped.explanation
    assert assess(claim, edition, counted(other | sure)).verdict is R
    alone = assess(claim, edition, counted(sure))
    assert alone.verdict is R
    assert alone.explanation.endswith("no control run")


def test_claims_without_a_control_that_was_run_say_so() -> None:
    missing = Control(missing="one that nobody has run")
    for paper in PAPERS:
        claim = next(claim for claim in paper.claims if not claim.internal)
        claim = claim.model_copy(update={"control": (missing,)})
        edition, check = checks(claim)[0]

        def judged(
            values: Values, claim: Claim = claim, edition: str = edition, paper: Paper = paper
        ) -> Verdict:
            return assess(claim, edition, Evidence(values, paper.numbers)).verdict

        values = reach(check, paper, R, {}, judged)
        assert values is not None, claim.id
        assert assess(claim, edition, Evidence(values, paper.numbers)).explanation.endswith("no control run")


def test_all_rules_have_a_form_that_is_known_here() -> None:
    known = {"within", "at_least", "at_most", "more_than", "less_than", "difference", "trend", "arithmetic"}
    used = {single.rule for _, claim in CLAIMS for single in singles(claim.check)}
    assert used <= known <= set(RULES)
