"""Confidence intervals: equal to scipy's where both draw alike, by coverage, against loops, and their limits."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xaicore.metrics import (
    Interval,
    bootstrap_ci,
    bootstrap_difference_ci,
    intervals,
    proportion_ci,
    row_bootstrap,
)


def skewed(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=n)


def scipys(groups: tuple[np.ndarray, ...], statistic: Any, n_resamples: int = 2000) -> tuple[float, float]:
    settings_of_scipy: dict[str, Any] = {"method": "percentile", "rng": np.random.default_rng(0)}
    found = stats.bootstrap(groups, statistic, n_resamples=n_resamples, **settings_of_scipy)
    return tuple(found.confidence_interval)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_the_interval_is_scipys_of_the_same_seed(statistic: str) -> None:
    values, rest = skewed(60, 0), skewed(50, 1) / 2
    function = {"mean": np.mean, "median": np.median}[statistic]
    expected = scipys((values,), function)
    assert bootstrap_ci(values, statistic=statistic) == pytest.approx(expected, rel=1e-12)
    rows = row_bootstrap(function, values, n_resamples=2000)
    assert rows == pytest.approx((function(values), *expected, 60), rel=1e-12)

    def difference(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return function(x, axis=axis) - function(y, axis=axis)

    expected = scipys((values, rest), difference)
    assert bootstrap_difference_ci(values, rest, statistic=statistic) == pytest.approx(expected, rel=1e-12)


def test_coverage() -> None:
    rng = np.random.default_rng(0)
    hits = sum(
        low <= 0 <= high
        for low, high in (bootstrap_ci(rng.normal(size=60), n_resamples=500) for _ in range(300))
    )
    assert 0.90 <= hits / 300 <= 0.98


def test_same_seed_same_interval_in_any_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(40, 3)
    first, difference = bootstrap_ci(values), bootstrap_difference_ci(values, values[:30])
    assert first == bootstrap_ci(torch.tensor(values)) == bootstrap_ci(values.tolist())
    assert first != bootstrap_ci(values, seed=1)
    monkeypatch.setattr(intervals, "VALUES_AT_ONCE", 130)
    assert (bootstrap_ci(values), bootstrap_difference_ci(values, values[:30])) == (first, difference)


def test_constant_values() -> None:
    assert bootstrap_ci([2.5] * 4) == Interval(2.5, 2.5)
    assert bootstrap_ci([2.5]) == Interval(2.5, 2.5)
    assert bootstrap_ci([True] * 20) == proportion_ci(20, 20)
    assert bootstrap_ci(torch.zeros(20, dtype=torch.bool)) == proportion_ci(0, 20)
    assert bootstrap_ci([True, False] * 10) == bootstrap_ci([1.0, 0.0] * 10)


def test_rows_are_drawn_whole() -> None:
    # Ten equal measurements of each image carry no more than one: the interval must not shrink.
    values = np.random.default_rng(0).normal(size=(50, 1))
    once, often = row_bootstrap(np.mean, values), row_bootstrap(np.mean, np.repeat(values, 10, 1))
    assert once == pytest.approx(often)
    assert once.high - once.low == pytest.approx(2 * 1.96 * values.std() / 50**0.5, rel=0.15)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_the_same_rows_are_drawn_from_every_array(values: list[float]) -> None:
    found = row_bootstrap(lambda a, b: float((a - b).mean()), values, values, n_resamples=20)
    assert tuple(found) == (0, 0, 0, len(values))


def test_draws_that_leave_a_statistic_undefined_are_left_out() -> None:
    values = [1.0, np.nan, 3.0, np.nan]
    rng = np.random.default_rng(0)
    drawn = [np.array(values)[rng.integers(4, size=4)] for _ in range(200)]
    means = [np.nanmean(draw) for draw in drawn if np.isfinite(draw).any()]
    assert len(means) < 200
    found = row_bootstrap(
        lambda a: np.nanmean(a) if np.isfinite(a).any() else np.nan, values, n_resamples=200
    )
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
@settings(max_examples=60, deadline=None)
def test_wilson_is_scipys(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    ours = proportion_ci(successes, n, level=level)
    theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(ours, (theirs.low, theirs.high), atol=1e-12)
    assert 0 <= ours.low <= successes / n <= ours.high <= 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_interval_lies_within_the_values(values: list[float]) -> None:
    tolerance = 1e-9 * max(1.0, max(map(abs, values)))
    for statistic in ("mean", "median"):
        low, high = bootstrap_ci(values, statistic=statistic, n_resamples=50)
        assert min(values) - tolerance <= low <= high <= max(values) + tolerance


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: bootstrap_ci([]), "values must be one-dimensional and not empty"),
        (lambda: bootstrap_ci([[1.0]]), "values must be one-dimensional"),
        (lambda: bootstrap_ci([1.0, float("nan")]), "values must be finite"),
        (lambda: bootstrap_ci([1.0, float("inf")]), "values must be finite"),
        (lambda: bootstrap_ci([1.0], level=1.0), "level must be"),
        (lambda: bootstrap_ci([1.0], n_resamples=0), "n_resamples must be"),
        (lambda: bootstrap_ci([1.0], statistic="mode"), "statistic must be one of mean, median"),
        (lambda: bootstrap_difference_ci([1.0], []), "b must be one-dimensional and not empty"),
        (lambda: row_bootstrap(np.mean), "arrays must have rows"),
        (lambda: row_bootstrap(np.mean, np.zeros((2, 1)), np.zeros((3, 1))), "the same number"),
        (lambda: row_bootstrap(np.mean, np.zeros((0, 1))), "at least one row"),
        (lambda: row_bootstrap(lambda a: float("nan"), np.zeros(3)), "undefined"),
        (lambda: row_bootstrap(np.mean, np.zeros(3), n_resamples=0), "n_resamples must be"),
        *((lambda s=s, n=n: proportion_ci(s, n), "successes must lie") for s, n in ((3, 2), (-1, 2), (0, 0))),
        (lambda: proportion_ci(1, 2, level=0), "level must be"),
    ],
)
def test_bad_arguments_are_named(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_values_that_are_no_numbers() -> None:
    with pytest.raises(TypeError, match="values must be numbers"):
        bootstrap_ci(["a"])
