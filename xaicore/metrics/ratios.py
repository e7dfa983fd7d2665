"""Rates and their differences with intervals over images, when an image may count more than once.

An extended test set holds a clean image and, where the attack succeeded, its adversarial twin as well.
The two are not independent, so the bootstrap of :mod:`xaicore.metrics.intervals` draws *images*:
image i brings ``numerators[i]`` correct answers out of ``denominators[i]``, and a rate is the ratio of
the sums. Two rates on the same images are compared on the same draws, which pairs them. Shapes that differ, nothing to
count, or values out of range raise ValueError.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.metrics.intervals import Array, Estimate, percentiles, proportion_ci, resampled

COUNTS_AT_ONCE = 2_000_000
"""Most counts, 8 bytes each, that are added up as one matrix product; sums round as it does, or image by image."""


def ratio(
    numerators: ArrayLike, denominators: ArrayLike | None = None, *, n_resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Ratio of sums with a 95 % percentile bootstrap interval over images.

    Args:
        numerators: (N,) what each image contributes above, finite.
        denominators: (N,) what each image contributes below, non-negative; None: 1 each, so that the
            ratio is a mean.
        n_resamples: number of draws, whose generator has the ``seed``.
        seed: likewise for all functions here.

    Returns:
        The estimate; ``n`` is the sum of the denominators, rounded. Where every image of a plain rate
        agrees, the interval is Wilson's, since the bootstrap has no spread there.
    """
    above, below = _checked(numerators, denominators)
    value = float(above.sum() / below.sum())
    if denominators is None and np.isin(above, (0, 1)).all() and value in (0.0, 1.0):
        return Estimate(value, *proportion_ci(int(above.sum()), len(above)), len(above))
    interval = percentiles(_ratios(above, below, n_resamples, seed))
    return Estimate(value, *interval, round(float(below.sum())))


def ratio_difference(
    first: tuple[ArrayLike, ArrayLike | None],
    second: tuple[ArrayLike, ArrayLike | None],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """First ratio minus second on the same N images, paired: each draw takes the same images for both.

    Args:
        first: numerators and denominators as in :func:`ratio`.
        second: likewise, of the same length.

    Returns:
        The estimate; ``n`` is the number of images.
    """
    one, other = _checked(*first), _checked(*second)
    if len(one[0]) != len(other[0]):
        raise UserError(
            f"first and second must rest on the same images, got {len(one[0])} and {len(other[0])}"
        )
    value = float(one[0].sum() / one[1].sum() - other[0].sum() / other[1].sum())
    differences = _ratios(*one, n_resamples, seed) - _ratios(*other, n_resamples, seed)
    return Estimate(value, *percentiles(differences), len(one[0]))


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
    """
    checks.integer("strata", strata, least=1)
    kinds = _known(a, score_a), _known(b, score_b)
    scores = np.concatenate([score for _, score in kinds])
    if not len(scores):
        return float("nan")
    edges = np.quantile(scores, np.linspace(0, 1, strata + 1)[1:-1])
    total = weight = 0.0
    for stratum in range(strata):
        left, right = (
            values[np.searchsorted(edges, score, side="right") == stratum] for values, score in kinds
        )
        if len(left) and len(right):
            cases = len(left) + len(right)
            total += cases * float(left.mean() - right.mean())
            weight += cases
    return total / weight if weight else float("nan")


def _known(values: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    value, score = np.asarray(values, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if value.shape != score.shape:
        raise UserError(f"values and scores must have the same shape, not {value.shape} and {score.shape}")
    kept = np.isfinite(value) & np.isfinite(score)
    return value[kept], score[kept]


def _checked(numerators: ArrayLike, denominators: ArrayLike | None) -> tuple[Array, Array]:
    above = np.asarray(numerators, dtype=np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, dtype=np.float64)
    if above.ndim != 1 or above.shape != below.shape:
        raise UserError(f"numerators and denominators must be (N,), got {above.shape} and {below.shape}")
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise UserError("numerators and denominators must be finite")
    if (below < 0).any() or below.sum() == 0:
        raise UserError("denominators must be non-negative and not all zero")
    return above, below


def _ratios(above: Array, below: Array, n_resamples: int, seed: int) -> Array:
    """Return the ratios (n_resamples,) of the draws, NaN where nothing counts; the same images for an N and a seed."""
    images = np.arange(len(above)), np.random.default_rng(seed)

    def counts(draws: NDArray[np.int64]) -> Array:
        return np.array([np.bincount(rows, minlength=len(above)) for rows in draws], dtype=np.float64)

    if len(above) * n_resamples <= COUNTS_AT_ONCE:
        drawn = resampled(counts, images, n_resamples=n_resamples)
        sums, totals = drawn @ above, drawn @ below
    else:
        sums, totals = resampled(
            lambda draws: [(row @ above, row @ below) for row in counts(draws)],
            images,
            n_resamples=n_resamples,
        ).T
    return np.divide(sums, totals, out=np.full(n_resamples, np.nan), where=totals != 0)
