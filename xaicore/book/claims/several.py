r"""Several comparisons in one claim: Holm's correction, and how many images an open comparison needs.

Each comparison has a two-sided p-value from the side of its interval that faces the rule's boundary: with c the distance
from the value to the boundary divided by that to the interval's end (the *clearance*), :math:`p = 2(1 - F(z\,c))`,
:math:`z = F^{-1}(0.975)`. F is the normal distribution for a single run, and for a number over k runs Student's t with
k − 1 degrees of freedom, the fewest that its interval can have (:mod:`xaicore.metrics.pooling`). So p is below 0.05 just
where the 95 % interval leaves the boundary out. Holm's step-down procedure (Scandinavian J. Statistics 6, 1979) takes the
comparisons in the order of their p-values and asks for :math:`p \le 0.05/m` while m numbers are left, that is for an
interval :math:`F^{-1}(1 - 0.025/m)/z` times as wide. Comparisons of one number with several boundaries rest on one
interval, which holds for all of them at once, so m counts numbers. The chance that any of the comparisons is definite on
the wrong side is then at most 5 %, whatever their dependence. That all of them hold could be said with less, each at 5 %;
this is the price of reading them one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from scipy import special

from xaicore.book.claims.evidence import Outcome, Verdict
from xaicore.core.units import number

LEVEL = 0.05
"""Chance of a wrong side that one claim's comparisons may have together."""


def widening(numbers: int, runs: int = 1) -> float:
    """Return how many times as wide as the 95 % interval Holm asks an interval to be.

    Args:
        numbers: how many are left to compare.
        runs: that the interval is over.
    """
    tail = LEVEL / 2
    return _far(tail / numbers, runs) / _far(tail, runs)


@cache
def _far(tail: float, runs: int) -> float:
    """How far out so much of the distribution lies beyond."""
    return float(-special.stdtrit(runs - 1, tail) if runs > 1 else -special.ndtri(tail))


def _p_value(outcome: Outcome) -> float:
    runs = _runs(outcome)
    out = -(outcome.clearance or 0.0) * _far(LEVEL / 2, runs)
    return float(2 * (special.stdtr(runs - 1, out) if runs > 1 else special.ndtr(out)))


def _runs(outcome: Outcome) -> int:
    return outcome.measured.runs if outcome.measured else 1


def clearance(value: float, end: float, boundary: float) -> float:
    """Return how many times as far from the value the end of its interval may lie before it reaches the boundary.

    Args:
        value: the number.
        end: of the interval, on the side of the boundary.
        boundary: of the rule.

    Returns:
        0 or more; infinite for an exact number.
    """
    return abs(boundary - value) / abs(end - value) if end != value else math.inf


def corrected(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Make the definite outcomes inconclusive that Holm's procedure does not bear.

    Args:
        outcomes: of single comparisons, and others, which stay as they are.

    Returns:
        The outcomes in their order; of those that are open, ``needed`` says what clearance they need.
    """
    settled = list(outcomes)
    left = [i for i, each in enumerate(outcomes) if each.clearance is not None]
    left.sort(key=lambda i: _p_value(outcomes[i]))
    while left:
        numbers = len({outcomes[i].about for i in left})
        first = outcomes[left[0]]
        if first.verdict is Verdict.INCONCLUSIVE or (first.clearance or 0) < widening(numbers, _runs(first)):
            break
        left.pop(0)
    for i in left:
        settled[i] = _opened(outcomes[i], widening(numbers, _runs(outcomes[i])))
    return settled


def _opened(outcome: Outcome, needed: float) -> Outcome:
    words = outcome.explanation
    if outcome.verdict is not Verdict.INCONCLUSIVE:
        words += f", but not with an interval {number(needed, 3)} times as wide, as several comparisons need (Holm)"
    return replace(outcome, verdict=Verdict.INCONCLUSIVE, explanation=words, needed=needed)


def comparisons(outcome: Outcome) -> Iterator[Outcome]:
    """The single outcomes that an outcome rests on."""
    if not outcome.parts:
        yield outcome
    for part in outcome.parts:
        yield from comparisons(part)


def deciding(outcome: Outcome) -> str | None:
    """Say how many images would decide an inconclusive outcome, if values stay and intervals narrow with 1/√n.

    Returns:
        A sentence without its full stop; None where the outcome is not inconclusive or rests on no count of images. All
        open comparisons are decided with that many; fewer may do where one of them decides the whole.
    """
    if outcome.verdict is not Verdict.INCONCLUSIVE:
        return None
    factor, count, networks = 0.0, 0, 1
    for each in comparisons(outcome):
        if each.verdict is not Verdict.INCONCLUSIVE or each.measured is None or not each.measured.n:
            continue
        if not each.clearance:
            return f"no number of images decides {each.about}: the value lies on the rule's boundary"
        wanted = (each.needed / each.clearance) ** 2
        if wanted > factor:
            factor, count, networks = wanted, each.measured.n, each.measured.runs
    if not count:
        return None
    images, now = f"{_round_up(count * factor + 1):,} images", f"{count:,}"
    if networks > 1:
        images += f" × {math.ceil(networks * factor)} networks"
        now += f" × {networks}"
    return f"about {images} instead of {now}, if the values stay and intervals narrow with 1/√n"


def _round_up(value: float) -> int:
    """Round up to two digits: an estimate of a number of images has no more."""
    step = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return math.ceil(value / step - 1e-9) * step
