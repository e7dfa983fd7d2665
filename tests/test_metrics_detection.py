"""Detection against scikit-learn, plain loops and DeLong's variance; rank tests against scipy and by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from xaicore.metrics import (
    auroc,
    auroc_ci,
    holm,
    intervals,
    proportion_ci,
    roc_curve,
    separation,
    tpr_at_fpr,
    tpr_at_fpr_ci,
    wilcoxon,
)

few = settings(max_examples=40, deadline=None)
scores = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)), min_size=1, max_size=25)
CLEAN, ADVERSARIAL = [0.1, 0.2, 0.3, 0.4], [0.3, 0.5, 0.05]


def groups(n: int = 80, m: int = 50, ties: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    clean, adversarial = rng.normal(size=n), rng.normal(1, 1.5, size=m)
    return (clean.round(), adversarial.round()) if ties else (clean, adversarial)


def test_auroc_by_hand() -> None:
    # 0.3 is above two and ties with one; 0.5 above four; 0.05 above none: (2.5 + 4 + 0) of 12 pairs.
    assert auroc(CLEAN, ADVERSARIAL) == pytest.approx(6.5 / 12, abs=1e-15)
    assert auroc([1, 2], [3, 4]) == 1
    assert auroc([3, 4], [1, 2]) == 0
    assert auroc([5, 5, 5], [5]) == 0.5
    assert auroc(torch.tensor([False, True]), torch.tensor([True])) == 0.75


@few
@given(scores, scores)
def test_auroc_is_scikit_learns(clean: list[float], adversarial: list[float]) -> None:
    area = auroc(clean, adversarial)
    labels = [0] * len(clean) + [1] * len(adversarial)
    assert area == pytest.approx(sklearn_metrics.roc_auc_score(labels, clean + adversarial), abs=1e-12)
    assert area == pytest.approx(1 - auroc(adversarial, clean), abs=1e-12)
    assert area == auroc([2 * score for score in clean], [2 * score for score in adversarial])
    rate, truth, _ = roc_curve(clean, adversarial)
    assert np.trapezoid(truth, rate) == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_near_98_are_ties_only_where_they_are_equal(kind: type[np.floating]) -> None:
    # One unit in the last place apart: of the four pairs two are wins and two are ties, (2 + 2 / 2) / 4.
    score = kind(98)
    above = np.nextafter(score, kind(99))
    clean, adversarial = np.array([score, above]), np.array([above, above])
    assert auroc(clean, adversarial) == auroc(torch.tensor(clean), torch.tensor(adversarial)) == 0.75
    assert auroc(clean[:1], adversarial) == 1
    assert auroc_ci(clean[:1], adversarial) == (1, 1)
    assert separation(np.concatenate([clean, adversarial]), [0, 0, 1, 1]) == 0.75
    assert tpr_at_fpr(clean[:1], adversarial, fpr=0) == (1.0, 0.0, 98.0)
    assert roc_curve(clean, adversarial).thresholds[1:].tolist() == [above, score]
    assert auroc(np.full(3, kind(98.6)), [kind(98.6)]) == 0.5


def test_separation_is_the_auroc_of_the_defined_cases() -> None:
    rng = np.random.default_rng(0)
    values, events = rng.normal(size=(30, 4)), (rng.random((30, 4)) < 0.4).astype(float)
    values[3, 1], events[5, 2] = np.nan, np.nan
    kept = np.isfinite(values) & np.isfinite(events)
    expected = sklearn_metrics.roc_auc_score(events[kept], values[kept])
    assert separation(values, events) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(separation(values, np.ones_like(events)))


@few
@given(scores, scores)
def test_roc_curve_is_a_count(clean: list[float], adversarial: list[float]) -> None:
    curve = roc_curve(clean, adversarial)
    assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0, 0)
    assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1, 1)
    assert len(curve.thresholds) == 1 + len(set(clean + adversarial))
    for rate, truth, threshold in zip(*curve, strict=True):
        assert rate == pytest.approx(np.mean([score >= threshold for score in clean]))
        assert truth == pytest.approx(np.mean([score >= threshold for score in adversarial]))


def test_operating_point_by_hand() -> None:
    clean = [float(score) for score in range(1, 21)]
    # One of twenty may be flagged: 20 is, so the threshold is 19, and 19 itself is not flagged.
    assert tpr_at_fpr(clean, [18.5, 19.0, 19.5, 25.0]) == (0.5, 0.05, 19.0)
    assert tpr_at_fpr(clean[:-1], [18.5, 19.0, 19.5, 25.0]) == (0.5, 0.0, 19.0)
    assert tpr_at_fpr([*clean[:-1], 19.0], [19.0, 20.0]) == (0.5, 0.0, 19.0)  # a tie: none instead of one
    assert tpr_at_fpr(clean, [0.0], fpr=1.0) == (1.0, 1.0, -np.inf)
    assert tpr_at_fpr(clean, [21.0, 20.0], fpr=0.0) == (0.5, 0.0, 20.0)
    hundred = np.arange(100.0)
    assert tpr_at_fpr(hundred, [0.0], fpr=0.29).false_positive_rate == 0.29


@few
@given(scores, scores, st.sampled_from([0.0, 0.05, 0.1, 0.29, 0.5, 1.0]))
def test_operating_point_is_the_best_of_the_curve(
    clean: list[float], adversarial: list[float], fpr: float
) -> None:
    point = tpr_at_fpr(clean, adversarial, fpr=fpr)
    rate, truth, _ = roc_curve(clean, adversarial)
    assert point.false_positive_rate <= fpr + 1e-12
    assert point.true_positive_rate == pytest.approx(truth[rate <= fpr + 1e-12].max())
    assert point.threshold == tpr_at_fpr(clean, [0.0], fpr=fpr).threshold


@pytest.mark.parametrize("ties", [False, True])
def test_intervals_are_a_plain_loops(ties: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, adversarial = groups(30, 20, ties)
    of_clean, of_adversarial = (np.random.default_rng(s) for s in np.random.SeedSequence(3).spawn(2))
    areas, rates = [], []
    for _ in range(200):
        drawn = clean[of_clean.integers(30, size=30)], adversarial[of_adversarial.integers(20, size=20)]
        areas.append(auroc(*drawn))
        rates.append(tpr_at_fpr(*drawn, fpr=0.1).true_positive_rate)
    for at_once in (intervals.VALUES_AT_ONCE, 130):
        monkeypatch.setattr(intervals, "VALUES_AT_ONCE", at_once)
        interval = auroc_ci(clean, adversarial, n_resamples=200, seed=3)
        assert interval == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])), abs=1e-12)
        interval = tpr_at_fpr_ci(clean, adversarial, fpr=0.1, n_resamples=200, seed=3, level=0.9)
        assert interval == pytest.approx(tuple(np.quantile(rates, [0.05, 0.95])), abs=1e-12)


def test_auroc_interval_is_as_wide_as_delongs() -> None:
    clean, adversarial = groups(300, 200)
    wins = (adversarial[:, None] > clean).astype(float)
    variance = wins.mean(1).var(ddof=1) / 200 + wins.mean(0).var(ddof=1) / 300
    low, high = auroc_ci(clean, adversarial, n_resamples=4000)
    # The standard deviation of a quantile of 4,000 draws is under 3 % of the spread; four of those are allowed.
    width = 2 * stats.norm.ppf(0.975) * np.sqrt(variance)
    assert high - low == pytest.approx(width, rel=0.12)
    assert (low + high) / 2 == pytest.approx(wins.mean(), abs=0.12 * width)


def test_wholly_separate_groups() -> None:
    assert auroc_ci([1, 2], [3, 4]) == (1, 1)
    assert tpr_at_fpr_ci([1.0, 2.0], [3.0] * 10, fpr=0) == proportion_ci(10, 10)
    assert tpr_at_fpr_ci([4.0, 4.0], [3.0] * 10, fpr=0) == proportion_ci(0, 10)


@pytest.mark.parametrize("function", [auroc, roc_curve, auroc_ci, tpr_at_fpr, tpr_at_fpr_ci])
def test_bad_scores_are_named(function: Callable[..., Any]) -> None:
    for bad, match in (
        ([np.nan, 1.0], "finite"),
        ([np.inf], "finite"),
        ([], "not empty"),
        ([[1.0]], "one-dimensional"),
    ):
        with pytest.raises(ValueError, match=rf"^scores_clean must be .*{match}"):
            function(bad, [1.0])
        with pytest.raises(ValueError, match=r"^scores_adversarial must"):
            function([1.0], bad)
    with pytest.raises(TypeError, match="scores_clean must be numbers"):
        function(["a"], [1.0])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: tpr_at_fpr([1.0], [1.0], fpr=1.5), "fpr must be"),
        (lambda: tpr_at_fpr_ci([1.0], [1.0], fpr=-0.1), "fpr must be"),
        (lambda: auroc_ci([1.0], [1.0], level=1.0), "level must be"),
        (lambda: tpr_at_fpr_ci([1.0], [1.0], n_resamples=0), "n_resamples must be"),
        (lambda: wilcoxon([1.0, 2.0], [1.0]), "same length"),
        (lambda: wilcoxon([], [1.0]), "a must be one-dimensional and not empty"),
        (lambda: holm([0.5, 1.5]), "p_values must lie"),
        (lambda: holm([0.5, np.nan]), "p_values must be finite"),
    ],
)
def test_other_bad_arguments_are_named(call: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_wilcoxon_by_hand() -> None:
    # Differences 1, -2, 3, 4 and one zero: W+ = 1 + 3 + 4 = 8 of 10. Signs that give at least 8: 3 of 16.
    a, b = np.array([1.0, 0.0, 3.0, 4.0, 7.0]), np.array([0.0, 2.0, 0.0, 0.0, 7.0])
    assert wilcoxon(a, b) == (8.0, pytest.approx(2 * 3 / 16), pytest.approx(0.6), 4)
    assert wilcoxon(b, a).effect == pytest.approx(-0.6)
    assert wilcoxon(a, a) == (0.0, 1.0, 0.0, 0)
    assert wilcoxon(a + 1, a).effect == 1


@pytest.mark.parametrize("ties", [False, True])
def test_wilcoxon_is_scipys(ties: bool) -> None:
    a, _ = groups(80, ties=ties)
    b = a + groups(80, ties=ties, seed=1)[0] / 2 - 0.3
    found = wilcoxon(a, b)
    assert found.statistic == pytest.approx(stats.wilcoxon(a, b, alternative="greater").statistic)
    assert found.p_value == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-9)


def test_holm_by_hand() -> None:
    # Times 4, 3, 2, 1 in order: 0.04, 0.06, 0.06, 0.05; none may fall below the one before.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.05, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]


@few
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.3]))
def test_holm_rejects_what_the_procedure_rejects(p_values: list[float], alpha: float) -> None:
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    rejected = set()
    for step, index in enumerate(order):
        if (len(p_values) - step) * p_values[index] > alpha:
            break
        rejected.add(index)
    corrected = holm(p_values)
    assert {index for index, p in enumerate(corrected) if p <= alpha} == rejected
    assert all(p <= q <= min(1, len(p_values) * p + 1e-12) for p, q in zip(p_values, corrected, strict=True))
