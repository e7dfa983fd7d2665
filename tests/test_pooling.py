"""Values over several runs: made data with known variance of images and trainings, and hand-worked numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xaicore.core.errors import UserError
from xaicore.metrics.intervals import Estimate, proportion_ci
from xaicore.metrics.pooling import pooled_differences, pooled_estimates, pooled_outcomes

TRIALS = 1500


def made(rng: np.random.Generator, runs: int, images: int, spread: tuple[float, float, float]) -> np.ndarray:
    """Outcomes (runs, images) around 0: an effect of the image, of the training, and of both together."""
    of_images, of_runs, of_both = spread
    return (
        of_images * rng.normal(size=images)
        + of_runs * rng.normal(size=runs)[:, None]
        + of_both * rng.normal(size=(runs, images))
    )


@pytest.mark.parametrize(
    ("spread", "image_only"),
    [((1.0, 0.3, 0.5), 0.8), ((1.0, 1.0, 0.5), 0.45), ((0.3, 0.5, 0.5), 0.3)],
)
def test_the_interval_covers_95_percent_and_that_of_images_alone_does_not(
    spread: tuple[float, float, float], image_only: float
) -> None:
    rng, images = np.random.default_rng(0), np.arange(100)
    both = alone = formula = 0
    for _ in range(TRIALS):
        outcomes = made(rng, 5, 100, spread)
        _, interval = pooled_outcomes(outcomes, [images] * 5)
        both += interval.low <= 0 <= interval.high
        per_image = outcomes.mean(0)
        alone += abs(per_image.mean()) <= 1.96 * per_image.std(ddof=1) / 10
        widths = 1.96 * outcomes.std(axis=1, ddof=1) / 10
        runs = [Estimate(m, m - w, m + w, 100) for m, w in zip(outcomes.mean(1), widths, strict=True)]
        found = pooled_estimates(runs).interval
        assert found is not None
        formula += found.low <= 0 <= found.high
    error = 3 * (0.95 * 0.05 / TRIALS) ** 0.5
    assert abs(both / TRIALS - 0.95) < error + 0.01  # Satterthwaite's degrees of freedom are an approximation
    assert formula / TRIALS > 0.95 - error
    assert alone / TRIALS < image_only


def test_the_prediction_covers_one_more_run() -> None:
    rng, inside = np.random.default_rng(1), 0
    for _ in range(TRIALS):
        means = made(rng, 6, 100, (1.0, 0.3, 0.5)).mean(1)
        found = pooled_estimates([Estimate(mean, mean, mean, 100) for mean in means[:5]]).prediction
        assert found is not None
        inside += found.low <= means[5] <= found.high
    assert abs(inside / TRIALS - 0.95) < 3 * (0.95 * 0.05 / TRIALS) ** 0.5


@pytest.mark.parametrize(("share", "between_runs"), [(0.5, 1.0), (0.9, 0.5), (0.02, 0.5)])
def test_the_interval_of_a_share_covers_at_least_95_percent(share: float, between_runs: float) -> None:
    rng, covered = np.random.default_rng(2), 0
    base = np.log(share / (1 - share))
    many = 1 / (1 + np.exp(-(base + between_runs * rng.normal(size=10**6) + rng.normal(size=10**6))))
    for _ in range(TRIALS):
        logits = base + between_runs * rng.normal(size=5)[:, None] + rng.normal(size=100)
        outcomes = rng.random((5, 100)) < 1 / (1 + np.exp(-logits))
        _, interval = pooled_outcomes(outcomes, [np.arange(100)] * 5)
        covered += interval.low <= many.mean() <= interval.high
    assert covered / TRIALS > 0.95 - 3 * (0.95 * 0.05 / TRIALS) ** 0.5


def test_by_hand() -> None:
    # means 1 and 3; images: ((0 - 1) + (2 - 3))/4 and ((2 - 1) + (4 - 3))/4, squared, times 2/1
    value, interval = pooled_outcomes([[0, 2], [2, 4]], [[5, 9], [5, 9]])
    of_images, of_runs, single = 2 * (0.25 + 0.25), 2 / 2, 4 / 16
    variance = of_images + of_runs - single
    freedom = variance**2 / (of_runs**2 + of_images**2)
    assert value == 2
    assert interval.high - 2 == pytest.approx(stats.t.ppf(0.975, freedom) * variance**0.5)
    assert interval.low == pytest.approx(4 - interval.high)


def test_the_formula_by_hand() -> None:
    found = pooled_estimates([Estimate(1.0, 0.02, 1.98, 10), Estimate(3.0, 2.02, 3.98, 10)])
    width = stats.t.ppf(0.975, 1)
    half = 0.98 / stats.norm.ppf(0.975)
    assert (found.value, found.runs) == (2, 2)
    assert found.interval == pytest.approx(
        [2 - width * (half**2 + 1) ** 0.5, 2 + width * (half**2 + 1) ** 0.5]
    )
    assert found.prediction is not None
    assert found.prediction.high == pytest.approx(2 + width * (half**2 + 3) ** 0.5)


def test_equal_outcomes_have_wilsons_width() -> None:
    value, interval = pooled_outcomes([np.ones(20)] * 3, [np.arange(20)] * 3)
    assert value == 1
    assert interval == pytest.approx(proportion_ci(20, 20))


def test_one_run_is_itself() -> None:
    found = pooled_estimates([Estimate(2.0, 1.0, 3.5, 7)])
    assert (found.value, found.interval, found.prediction, found.runs) == (2.0, (1.0, 3.5), None, 1)
    assert pooled_estimates([Estimate(2.0, 2.0, 2.0, 7)]).interval is None


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=2, max_size=6))
def test_shares_stay_between_0_and_1(runs: list[list[bool]]) -> None:
    value, interval = pooled_outcomes(runs, [range(len(run)) for run in runs])
    assert 0 <= interval.low <= value + 1e-12
    assert value - 1e-12 <= interval.high <= 1


@given(st.floats(-50, 50), st.floats(0.1, 10))
def test_shift_and_scale(shift: float, scale: float) -> None:
    outcomes = made(np.random.default_rng(3), 3, 8, (1.0, 1.0, 1.0))
    images = [np.arange(8)] * 3
    value, interval = pooled_outcomes(outcomes, images)
    moved, wider = pooled_outcomes(outcomes * scale + shift, images)
    assert moved == pytest.approx(value * scale + shift)
    assert wider == pytest.approx([end * scale + shift for end in interval], rel=1e-6, abs=1e-6)


def test_several_outcomes_of_an_image_count_as_one_image() -> None:
    outcomes, images = made(np.random.default_rng(4), 3, 8, (1.0, 1.0, 1.0)), np.arange(8)
    once = pooled_outcomes(outcomes, [images] * 3)
    twice = pooled_outcomes(outcomes.repeat(2, axis=1), [images.repeat(2)] * 3)
    assert twice[0] == pytest.approx(once[0])
    assert twice[1] == pytest.approx(once[1])


def test_the_mean_is_over_outcomes_as_in_the_runs() -> None:
    value, _ = pooled_outcomes([[1, 0, 0], [1, 1, 0]], [[0, 1, 1], [0, 1, 1]])
    assert value == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_a_difference_of_the_same_images_is_that_of_the_pairs() -> None:
    rng, images = np.random.default_rng(5), [np.arange(8)] * 3
    first, second = (made(rng, 3, 8, (1.0, 1.0, 1.0)) for _ in range(2))
    paired = pooled_outcomes(first - second, images)
    found = pooled_differences(first, images, second, images)
    assert found[0] == pytest.approx(paired[0])
    assert found[1] == pytest.approx(paired[1])


def test_a_difference_of_other_images_covers_95_percent() -> None:
    rng, covered = np.random.default_rng(6), 0
    first, second = [np.arange(60)] * 5, [np.arange(60, 100)] * 5
    for _ in range(TRIALS):
        outcomes = made(rng, 5, 100, (1.0, 0.0, 0.5))
        outcomes[:, :60] += 0.3 * rng.normal(size=5)[:, None]
        _, interval = pooled_differences(outcomes[:, :60], first, outcomes[:, 60:], second)
        covered += interval.low <= 0 <= interval.high
    assert abs(covered / TRIALS - 0.95) < 3 * (0.95 * 0.05 / TRIALS) ** 0.5 + 0.01


def test_what_cannot_be_pooled_is_refused() -> None:
    with pytest.raises(UserError, match="two runs or more"):
        pooled_outcomes([[1.0]], [[0]])
    with pytest.raises(UserError, match="two runs or more"):
        pooled_outcomes([[1.0], []], [[0], []])
    with pytest.raises(UserError, match="the same runs"):
        pooled_differences([[1.0]] * 3, [[0]] * 3, [[1.0]] * 2, [[0]] * 2)
    with pytest.raises(UserError, match="must not be empty"):
        pooled_estimates([])
