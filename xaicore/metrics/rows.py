"""Intervals of any statistic of images that were measured several times: whole rows are drawn.

The measurements of one image, at several attack sizes or by several networks, depend on one another. The bootstrap
(Efron and Tibshirani 1993, ch. 13) must therefore draw images, with all that was measured on them, not measurements.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xaicore.metrics.detection import auroc
from xaicore.metrics.intervals import check_draws
from xaicore.metrics.ratios import Estimate

Array = NDArray[np.float64]


def row_bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of arrays with an interval over their rows.

    Args:
        statistic: takes arrays with the same rows drawn from each, returns a number; NaN where a draw leaves it
            undefined, which is left out of the interval.
        arrays: (N, ...) each, one row an image, of the same N.
        level: the confidence level, between 0 and 1.
        n_resamples: number of draws.
        seed: of the generator of the draws.

    Returns:
        The estimate; ``n`` is N.

    Raises:
        ValueError: no array, no row, different numbers of rows, an undefined statistic, or an argument out of range.
    """
    (found,) = row_bootstraps(statistic, *arrays, level=level, n_resamples=n_resamples, seed=seed)
    if not np.isfinite(found.value):
        raise ValueError("statistic is undefined for these arrays")
    return found


def row_bootstraps(
    statistic: Callable[..., ArrayLike],
    *arrays: ArrayLike,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> list[Estimate]:
    """Return several statistics of arrays, each with an interval over their rows, from the same draws.

    Args:
        statistic: takes arrays with the same rows drawn from each, returns numbers (K,), or one.
        arrays: (N, ...) each, one row an image, of the same N.
        level: as for :func:`row_bootstrap`.
        n_resamples: number of draws.
        seed: of the generator of the draws.

    Returns:
        K estimates; NaN with NaN bounds where a statistic is undefined for the arrays as they are.

    Raises:
        ValueError: no array, no row, different numbers of rows, or an argument out of range.
    """
    check_draws(level, n_resamples)
    values = [np.asarray(array, dtype=np.float64) for array in arrays]
    if not values or any(array.ndim == 0 for array in values) or len({len(array) for array in values}) != 1:
        raise ValueError("arrays must have rows, each the same number of them")
    n = len(values[0])
    if not n:
        raise ValueError("arrays must have at least one row")
    whole = np.atleast_1d(np.asarray(statistic(*values), dtype=np.float64))
    defined = np.isfinite(whole)
    low, high = np.full((2, len(whole)), np.nan)
    if defined.any():
        rng = np.random.default_rng(seed)
        drawn = np.empty((n_resamples, len(whole)))
        for index in range(n_resamples):
            rows = rng.integers(n, size=n)
            drawn[index] = statistic(*(array[rows] for array in values))
        tail = (1 - level) / 2
        low[defined], high[defined] = np.nanquantile(drawn[:, defined], [tail, 1 - tail], axis=0)
    return [Estimate(float(v), float(a), float(b), n) for v, a, b in zip(whole, low, high, strict=True)]


def separation(scores: ArrayLike, events: ArrayLike) -> float:
    """Return how well scores rank cases with an event above those without: the AUROC.

    Args:
        scores: any shape; NaN where undefined, which is left out.
        events: of the same shape, 1 with the event, 0 without; NaN where it does not apply, left out.

    Returns:
        The AUROC in [0, 1], ties counting one half; NaN where there is no case of either kind.
    """
    score, event = np.asarray(scores, dtype=np.float64), np.asarray(events, dtype=np.float64)
    kept = np.isfinite(score) & np.isfinite(event)
    with_event, without = score[kept & (event == 1)], score[kept & (event == 0)]
    return auroc(without, with_event) if len(with_event) and len(without) else float("nan")


def matched_difference(
    a: ArrayLike, score_a: ArrayLike, b: ArrayLike, score_b: ArrayLike, *, strata: int = 5
) -> float:
    """Return the mean of ``a`` minus that of ``b`` at equal scores.

    The scores of both together are cut at their quantiles into strata. Within each the means are compared, and the
    differences are averaged by the number of cases; strata without both kinds are left out (direct standardisation,
    Cochran, Biometrics 24, 1968).

    Args:
        a: values, any shape.
        score_a: what must be equal, of the same shape; NaN where undefined, which is left out.
        b: values of the other kind.
        score_b: their scores.
        strata: number of strata, at least 1.

    Returns:
        The difference, NaN where no stratum has both kinds.

    Raises:
        ValueError: ``strata`` is below 1 or a shape differs.
    """
    if strata < 1:
        raise ValueError(f"strata must be at least 1, got {strata}")
    first, second = _defined(a, score_a), _defined(b, score_b)
    scores = np.concatenate([first[1], second[1]])
    if not len(scores):
        return float("nan")
    edges = np.quantile(scores, np.linspace(0, 1, strata + 1)[1:-1])
    total = weight = 0.0
    for stratum in range(strata):
        left, right = (
            values[np.searchsorted(edges, score, side="right") == stratum]
            for values, score in (first, second)
        )
        if len(left) and len(right):
            cases = len(left) + len(right)
            total += cases * float(left.mean() - right.mean())
            weight += cases
    return total / weight if weight else float("nan")


def _defined(values: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    value, score = np.asarray(values, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if value.shape != score.shape:
        raise ValueError(f"values and scores must have the same shape, not {value.shape} and {score.shape}")
    kept = np.isfinite(value) & np.isfinite(score)
    return value[kept], score[kept]
