"""Row bootstrap, separation and matched difference against scikit-learn, loops and cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from xaicore import metrics

RNG = np.random.default_rng(0)


def test_separation_is_scikit_learns_auroc_of_the_defined_cases():
    scores, events = RNG.normal(size=(30, 4)), (RNG.random((30, 4)) < 0.4).astype(float)
    scores[3, 1], events[5, 2] = np.nan, np.nan
    kept = np.isfinite(scores) & np.isfinite(events)
    assert metrics.separation(scores, events) == pytest.approx(
        roc_auc_score(events[kept], scores[kept]), abs=1e-12
    )
    assert np.isnan(metrics.separation(scores, np.ones_like(events)))


def test_matched_difference_by_hand():
    # Two strata, cut at the median score 2.5: low {a: 1, 0; b: 0}, high {a: 1; b: 1, 0}.
    a, score_a = [1, 0, 1], [1, 2, 3]
    b, score_b = [0, 1, 0], [1.5, 4, 5]
    edge = np.median([*score_a, *score_b])
    assert edge == 2.5
    low, high = (0.5 - 0) * 3, (1 - 0.5) * 3
    assert metrics.matched_difference(a, score_a, b, score_b, strata=2) == pytest.approx((low + high) / 6)
    assert metrics.matched_difference(a, score_a, b, score_b, strata=1) == pytest.approx(2 / 3 - 1 / 3)


def test_matching_takes_away_what_the_score_explains():
    score_a, score_b = RNG.random(4000), RNG.random(4000) ** 2
    a, b = RNG.random(4000) < score_a, RNG.random(4000) < score_b
    assert a.mean() - b.mean() > 0.12
    assert abs(metrics.matched_difference(a, score_a, b, score_b, strata=20)) < 0.03


def test_strata_without_both_kinds_are_left_out():
    assert np.isnan(metrics.matched_difference([1, 1], [0, 0.1], [0, 0], [5, 6], strata=2))


def test_rows_are_drawn_whole():
    # Ten equal measurements of each image carry no more than one: the interval must not shrink.
    values = RNG.normal(size=50)
    once = metrics.row_bootstrap(np.mean, values[:, None])
    often = metrics.row_bootstrap(np.mean, np.repeat(values[:, None], 10, 1))
    assert once == pytest.approx(often)
    assert once.high - once.low == pytest.approx(2 * 1.96 * values.std() / 50**0.5, rel=0.15)


def test_intervals_cover():
    hits = 0
    for trial in range(200):
        sample = np.random.default_rng(trial).normal(1.0, 1.0, size=(40, 1))
        found = metrics.row_bootstrap(np.mean, sample, n_resamples=200, seed=trial)
        hits += found.low <= 1 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_a_statistic_of_arrays_lies_where_the_arrays_say(values):
    array = np.array(values)
    found = metrics.row_bootstrap(lambda a, b: float((a - b).mean()), array, array, n_resamples=20)
    assert tuple(found) == (0, 0, 0, len(values))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.row_bootstrap(np.mean), "arrays must have rows"),
        (lambda: metrics.row_bootstrap(np.mean, np.zeros((2, 1)), np.zeros((3, 1))), "the same number"),
        (lambda: metrics.row_bootstrap(np.mean, np.zeros((0, 1))), "at least one row"),
        (lambda: metrics.row_bootstrap(lambda a: float("nan"), np.zeros(3)), "undefined"),
        (lambda: metrics.row_bootstrap(np.mean, np.zeros(3), level=1), "level"),
        (lambda: metrics.matched_difference([1], [1], [1], [1], strata=0), "strata must be at least 1"),
        (lambda: metrics.matched_difference([1, 2], [1], [1], [1]), "the same shape"),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
