"""Holm's correction on made data and by hand, and the number of images that would decide an open comparison."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from xaicore.book.claims.evidence import Evidence, Measured, Outcome, Verdict
from xaicore.book.claims.rules import evaluate, parse_check
from xaicore.book.claims.several import clearance, corrected, deciding, widening

R, P, N = Verdict.REPRODUCED, Verdict.PARTLY, Verdict.NOT_REPRODUCED
INC, NT = Verdict.INCONCLUSIVE, Verdict.NOT_TESTABLE
Z = float(stats.norm.ppf(0.975))


def above_zero(names: list[str], rule: str = "all_of", **more: object) -> dict:
    return {"rule": rule, "over": names, "each": {"rule": "more_than", "threshold": 0}, **more}


def intervals(values: np.ndarray, error: float = 1.0) -> dict[str, Measured]:
    return {f"p1.x{i}": Measured(v, v - Z * error, v + Z * error, 100) for i, v in enumerate(values)}


@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("rule", ["all_of", "fraction_of", "any_of", "chain"])
def test_where_no_effect_exists_a_definite_part_is_seen_in_five_percent_at_most(
    rule: str, correlation: float
) -> None:
    rng, runs, parts = np.random.default_rng(0), 1500, 6
    names = [f"p1.x{i}" for i in range(parts)]
    check = parse_check(
        {"rule": "all_of", "checks": [{"rule": "difference", "a": a, "b": b} for a, b in pairwise(names)]}
        if rule == "chain"
        else above_zero(names, rule, **({"needed": 3} if rule == "fraction_of" else {}))
    )
    plain = wrong = 0
    for _ in range(runs):
        shared = rng.normal() * correlation**0.5
        values = intervals(shared + rng.normal(size=parts) * (1 - correlation) ** 0.5)
        found = [evaluate(check, Evidence(values), correct=correct) for correct in (False, True)]
        definite = [any(part.verdict is not INC for part in each.parts) for each in found]
        plain, wrong = plain + definite[0], wrong + definite[1]
    allowed = 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert wrong / runs <= allowed
    if correlation == 0 and rule != "chain":
        assert plain / runs > 0.2  # six comparisons without correction: 1 − 0.95⁶ = 26 %


def test_numbers_over_five_runs_are_as_safe() -> None:
    rng, trials, parts, runs = np.random.default_rng(3), 3000, 6, 5
    check = parse_check(above_zero([f"p1.x{i}" for i in range(parts)]))
    wrong = 0
    for _ in range(trials):
        each = rng.normal(size=(parts, runs))
        means, half = each.mean(1), stats.t.ppf(0.975, runs - 1) * each.std(1, ddof=1) / runs**0.5
        values = {
            f"p1.x{i}": Measured(m, m - h, m + h, 100, None, runs)
            for i, (m, h) in enumerate(zip(means, half, strict=True))
        }
        wrong += any(part.verdict is not INC for part in evaluate(check, Evidence(values)).parts)
    assert (
        wrong / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
    )  # with the normal distribution it is 11 %


def test_some_effects_beside_none_are_told_apart_with_five_percent_error() -> None:
    rng, runs = np.random.default_rng(1), 1500
    check, effects = parse_check(above_zero([f"p1.x{i}" for i in range(6)])), np.array([5.0, 5, 5, 0, 0, 0])
    wrong = seen = 0
    for _ in range(runs):
        parts = evaluate(check, Evidence(intervals(effects + rng.normal(size=6)))).parts
        wrong += any(part.verdict is not INC for part in parts[3:])
        seen += sum(part.verdict is R for part in parts[:3])
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert seen / (3 * runs) > 0.95


def test_the_comparisons_are_those_of_holms_p_values() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        z = rng.normal(0, 2, size=7)
        parts = evaluate(
            parse_check(above_zero([f"p1.x{i}" for i in range(7)])), Evidence(intervals(z))
        ).parts
        p = 2 * stats.norm.sf(abs(z))
        order = np.argsort(p)
        passed = np.cumprod(p[order] <= 0.05 / np.arange(7, 0, -1)).astype(bool)
        assert {i for i, part in enumerate(parts) if part.verdict is not INC} == set(order[passed])


def test_widening_is_what_holm_asks() -> None:
    assert widening(1) == pytest.approx(1)
    assert widening(5) * Z == pytest.approx(stats.norm.ppf(1 - 0.005))
    assert widening(5, 5) * stats.t.ppf(0.975, 4) == pytest.approx(stats.t.ppf(1 - 0.005, 4))
    assert clearance(2.0, 1.0, 0.0) == 2
    assert clearance(2.0, 2.0, 0.0) == math.inf


def test_a_part_that_only_several_comparisons_make_doubtful_says_so() -> None:
    values = intervals(np.array([2.1, 0.3]))
    outcome = evaluate(parse_check(above_zero(["p1.x0", "p1.x1"])), Evidence(values))
    assert outcome.verdict is INC
    assert "Holm" in outcome.parts[0].explanation
    assert "1.14 times" in outcome.parts[0].explanation
    assert "Holm" not in outcome.parts[1].explanation
    assert evaluate(parse_check(above_zero(["p1.x0"])), Evidence(values)).verdict is R
    alone = evaluate(parse_check(above_zero(["p1.x0", "p1.x1"])), Evidence(values), correct=False)
    assert alone.parts[0].verdict is R


def test_two_boundaries_of_one_number_are_one_comparison() -> None:
    two = {
        "rule": "all_of",
        "checks": [
            {"rule": "more_than", "value": "p1.x0", "threshold": 0},
            {"rule": "less_than", "value": "p1.x0", "threshold": 50},
        ],
    }
    assert evaluate(parse_check(two), Evidence(intervals(np.array([2.0])))).verdict is R


def test_parts_of_parts_are_corrected_together() -> None:
    inner = above_zero(["p1.x0", "p1.x1"])
    nested = {"rule": "any_of", "checks": [inner, above_zero(["p1.x2"])]}
    values = Evidence(intervals(np.array([0.0, 0.1, 2.3])))
    assert evaluate(parse_check(nested), values).verdict is INC  # 2.3 is below 2.39, the two-sided 5 % / 3
    assert evaluate(parse_check(above_zero(["p1.x1", "p1.x2"], "any_of")), values).verdict is R  # above 2.24


def test_outcomes_without_a_comparison_stay() -> None:
    given = [Outcome(NT, "none"), Outcome(R, "exact", clearance=math.inf, about="a")]
    assert corrected(given) == given
    assert corrected([]) == []


def test_as_many_images_as_it_says_decide() -> None:
    check = parse_check(above_zero(["p1.x0", "p1.x1"]))

    def at(n: int) -> Outcome:
        half = Z / (n / 100) ** 0.5
        return evaluate(
            check,
            Evidence({f"p1.x{i}": Measured(v, v - half, v + half, n) for i, v in enumerate((0.5, 1.0))}),
        )

    open_ = at(100)
    assert open_.verdict is INC
    words = deciding(open_)
    assert words is not None
    assert words.startswith("about ")
    assert "instead of 100" in words
    needed = int(words.split()[1].replace(",", ""))
    assert at(needed).verdict is R
    assert at(int(needed * 0.7)).verdict is INC
    assert deciding(at(needed)) is None


def test_a_value_on_the_boundary_is_decided_by_no_number_of_images() -> None:
    check = parse_check({"rule": "more_than", "value": "p1.x", "threshold": 0})
    words = deciding(evaluate(check, Evidence({"p1.x": Measured(0.0, -1.0, 1.0, 50)})))
    assert words is not None
    assert words.startswith("no number of images decides `p1.x`")
    uncounted = evaluate(check, Evidence({"p1.x": Measured(0.5, -1.0, 1.0)}))
    assert (uncounted.verdict, deciding(uncounted)) == (INC, None)


def test_networks_are_asked_for_with_the_images() -> None:
    check = parse_check({"rule": "more_than", "value": "p1.x", "threshold": 0})
    words = deciding(evaluate(check, Evidence({"p1.x": Measured(1.0, -1.0, 3.0, 50, None, 5)})))
    assert words is not None
    assert "about 210 images × 20 networks instead of 50 × 5" in words
