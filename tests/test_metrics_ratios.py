"""Rates on images that may count more than once, against hand-worked cases and a slow bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaicore.metrics import matched_difference, proportion_ci, ratio, ratio_difference, ratios

outcomes = st.lists(st.integers(0, 1), min_size=2, max_size=40)


def test_extended_set_by_hand() -> None:
    # Four images, three right; two of those were attacked and their twins are wrong: 3 right of 6.
    right, extra = np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0])
    estimate = ratio(right, 1 + extra)
    assert estimate.value == 0.5
    assert estimate.n == 6
    assert estimate.low <= 0.5 <= estimate.high


def test_papers_own_arithmetic() -> None:
    # 85.80 % of 2,000 right and 940 successful attacks give the 58.37 % of Table 1.
    right = np.arange(2000) < 1716
    attacked = np.arange(2000) < 940
    assert round(100 * ratio(right, 1 + attacked).value, 2) == 58.37


def test_interval_equals_a_plain_loop() -> None:
    above, below = np.array([1.0, 0, 2, 1, 1]), np.array([1.0, 1, 2, 2, 1])
    generator = np.random.default_rng(3)
    slow = []
    for _ in range(500):
        chosen = generator.integers(0, 5, 5)
        slow.append(above[chosen].sum() / below[chosen].sum())
    estimate = ratio(above, below, n_resamples=500, seed=3)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


def test_a_rate_without_spread_gets_wilsons_interval() -> None:
    estimate = ratio(np.ones(20))
    wilson = proportion_ci(20, 20)
    assert (estimate.value, estimate.low, estimate.high) == (1.0, wilson.low, wilson.high)


@given(outcomes)
def test_a_rate_minus_itself_is_exactly_zero(values: list[int]) -> None:
    difference = ratio_difference((values, None), (values, None), n_resamples=50)
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


@given(outcomes, st.integers(0, 5))
def test_bounds_hold_the_value_and_lie_in_the_unit_interval(values: list[int], seed: int) -> None:
    estimate = ratio(values, seed=seed, n_resamples=100)
    assert 0 <= estimate.low <= estimate.high <= 1
    assert estimate.value == pytest.approx(np.mean(values))


def test_pairing_narrows_the_interval() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 2, 200).astype(float)
    second = first.copy()
    second[:5] = 1 - second[:5]
    paired = ratio_difference((first, None), (second, None))
    alone = ratio(first)
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("above", "below", "word"),
    [
        ([1, np.nan], None, "finite"),
        ([[1]], None, r"\(N,\)"),
        ([1, 0], [0, 0], "not all zero"),
        ([1], [1, 1], r"\(N,\)"),
    ],
)
def test_bad_counts_are_refused(above: list, below: list | None, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ratio(above, below)


def test_sums_image_by_image_are_the_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    above, below = generator.normal(size=37), generator.integers(0, 3, 37)
    whole = [ratio(above), ratio(above, below), ratio(above, seed=1)]
    assert whole[0] != whole[2]
    monkeypatch.setattr(ratios, "COUNTS_AT_ONCE", 0)
    alone = [ratio(above), ratio(above, below), ratio(above, seed=1)]
    np.testing.assert_allclose(np.array(whole), np.array(alone), rtol=1e-14)


def test_matched_difference_by_hand() -> None:
    # Two strata, cut at the median score 2.5: low {a: 1, 0; b: 0}, high {a: 1; b: 1, 0}.
    scored = [1, 0, 1], [1, 2, 3], [0, 1, 0], [1.5, 4, 5]
    low, high = (0.5 - 0) * 3, (1 - 0.5) * 3
    assert matched_difference(*scored, strata=2) == pytest.approx((low + high) / 6)
    assert matched_difference(*scored, strata=1) == pytest.approx(2 / 3 - 1 / 3)


def test_matching_takes_away_what_the_score_explains() -> None:
    rng = np.random.default_rng(0)
    score_a, score_b = rng.random(4000), rng.random(4000) ** 2
    a, b = rng.random(4000) < score_a, rng.random(4000) < score_b
    assert a.mean() - b.mean() > 0.12
    assert abs(matched_difference(a, score_a, b, score_b, strata=20)) < 0.03


def test_strata_without_both_kinds_are_left_out() -> None:
    assert np.isnan(matched_difference([1, 1], [0, 0.1], [0, 0], [5, 6], strata=2))
    with pytest.raises(ValueError, match="strata must be an integer of at least 1"):
        matched_difference([1], [1], [1], [1], strata=0)
    with pytest.raises(ValueError, match="the same shape"):
        matched_difference([1, 2], [1], [1], [1])
