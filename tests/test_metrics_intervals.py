"""Confidence intervals: against scipy, by coverage, and their limits."""

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
    paired_bootstrap_ci,
    proportion_ci,
)
from xaicore.metrics import intervals as module


def skewed(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=n)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_bootstrap_agrees_with_scipy(statistic: str) -> None:
    values = skewed(60, 0)
    ours = bootstrap_ci(values, statistic=statistic, n_resamples=20000)
    function = {"mean": np.mean, "median": np.median}[statistic]
    theirs = stats.bootstrap((values,), function, n_resamples=20000, method="percentile", rng=1)
    np.testing.assert_allclose(ours, tuple(theirs.confidence_interval), rtol=0.02)


def test_differences_agree_with_scipy() -> None:
    a, b = skewed(50, 0), skewed(50, 1) / 2

    def difference(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return x.mean(axis) - y.mean(axis)

    settings_of_scipy: dict[str, Any] = {"n_resamples": 20000, "method": "percentile", "rng": 1}
    for function, paired in ((paired_bootstrap_ci, True), (bootstrap_difference_ci, False)):
        ours = function(a, b, n_resamples=20000)
        theirs = stats.bootstrap((a, b), difference, paired=paired, **settings_of_scipy).confidence_interval
        np.testing.assert_allclose(ours, tuple(theirs), atol=0.015)
    assert bootstrap_difference_ci(a, b[:20]).low < a.mean() - b[:20].mean()


def test_pairs_are_drawn_together() -> None:
    a = skewed(30, 0)
    low, high = paired_bootstrap_ci(a + 1, a)
    assert (low, high) == (pytest.approx(1), pytest.approx(1))
    apart = bootstrap_difference_ci(a + 1, a)
    assert apart.high - apart.low > 0.3
    assert paired_bootstrap_ci(a, a[::-1]) == pytest.approx(bootstrap_ci(a - a[::-1]))


def test_coverage() -> None:
    rng = np.random.default_rng(0)
    hits = sum(
        low <= 0 <= high
        for low, high in (bootstrap_ci(rng.normal(size=60), n_resamples=500) for _ in range(300))
    )
    assert 0.90 <= hits / 300 <= 0.98


def test_same_seed_same_interval_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(40, 3)
    first = bootstrap_ci(values)
    assert first == bootstrap_ci(torch.tensor(values)) == bootstrap_ci(values.tolist())
    assert first != bootstrap_ci(values, seed=1)
    monkeypatch.setattr(module, "VALUES_AT_ONCE", 1000)
    assert bootstrap_ci(values) == first


def test_own_statistic() -> None:
    values = skewed(40, 3)
    assert bootstrap_ci(values, statistic=np.mean) == bootstrap_ci(values)
    assert bootstrap_ci(values, statistic=np.std).low > 0
    with pytest.raises(ValueError, match="statistic must reduce"):
        bootstrap_ci(values, statistic=lambda x, axis: x)


def test_constant_values() -> None:
    assert bootstrap_ci([2.5] * 4) == Interval(2.5, 2.5)
    assert bootstrap_ci([True] * 20) == proportion_ci(20, 20)
    assert bootstrap_ci(torch.zeros(20, dtype=torch.bool)) == proportion_ci(0, 20)
    assert bootstrap_ci([True, False] * 10) == bootstrap_ci([1.0, 0.0] * 10)


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
    ("values", "options", "match"),
    [
        ([], {}, "values must be one-dimensional and not empty"),
        ([[1.0]], {}, "values must be one-dimensional"),
        ([1.0, float("nan")], {}, "values must be finite"),
        ([1.0, float("inf")], {}, "values must be finite"),
        ([1.0], {"level": 1.0}, "level must lie"),
        ([1.0], {"n_resamples": 0}, "n_resamples must be"),
        ([1.0], {"statistic": "mode"}, "statistic must be one of mean, median"),
    ],
)
def test_bad_arguments_are_named(values: list[float], options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        bootstrap_ci(values, **options)


def test_other_bad_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="values must be numbers"):
        bootstrap_ci(["a"])
    with pytest.raises(ValueError, match="same length"):
        paired_bootstrap_ci([1.0, 2.0], [1.0])
    for successes, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="successes must lie"):
            proportion_ci(successes, n)
