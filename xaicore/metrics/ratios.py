"""Rates and their differences with intervals over images, when an image may count more than once.

An extended test set holds a clean image and, where the attack succeeded, its adversarial twin as well.
The two are not independent, so the bootstrap (Efron and Tibshirani 1993, ch. 13) resamples *images*:
image i brings ``numerators[i]`` correct answers out of ``denominators[i]``, and a rate is the ratio of
the sums. Two rates on the same images are compared on the same resamples, which pairs them.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xaicore.metrics.intervals import proportion_ci

KEPT_COUNTS = 2_000_000
"""Most counts, 8 bytes each, that are kept for the next interval over as many images."""


class Estimate(NamedTuple):
    """A number with its 95 % interval and the count it rests on."""

    value: float
    low: float
    high: float
    n: int

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit, say ``factor=100`` for percent."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.n)


def ratio(
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Ratio of sums with a percentile bootstrap interval over images.

    Args:
        numerators: (N,) what each image contributes above, finite.
        denominators: (N,) what each image contributes below, non-negative; None: 1 each, so that the
            ratio is a mean.
        level: coverage of the interval.
        n_resamples: bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        The estimate; ``n`` is the sum of the denominators, rounded. Where every image of a plain rate
        agrees, the interval is Wilson's, since the bootstrap has no spread there.

    Raises:
        ValueError: shapes differ, nothing to count, or a value is not finite.
    """
    above, below = _checked(numerators, denominators)
    value = float(above.sum() / below.sum())
    if denominators is None and np.isin(above, (0, 1)).all() and value in (0.0, 1.0):
        interval = proportion_ci(int(above.sum()), len(above), level=level)
        return Estimate(value, interval.low, interval.high, len(above))
    low, high = _quantiles(_resampled(above, below, n_resamples, seed), level)
    return Estimate(value, low, high, round(float(below.sum())))


def ratio_difference(
    first: tuple[ArrayLike, ArrayLike | None],
    second: tuple[ArrayLike, ArrayLike | None],
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """First ratio minus second on the same N images, paired: each resample takes the same images for both.

    Args:
        first: numerators and denominators as in :func:`ratio`.
        second: likewise, of the same length.
        level: coverage of the interval.
        n_resamples: bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        The estimate; ``n`` is the number of images.

    Raises:
        ValueError: shapes differ, nothing to count, or a value is not finite.
    """
    one, other = _checked(*first), _checked(*second)
    if len(one[0]) != len(other[0]):
        raise ValueError(
            f"first and second must rest on the same images, got {len(one[0])} and {len(other[0])}"
        )
    value = float(one[0].sum() / one[1].sum() - other[0].sum() / other[1].sum())
    differences = _resampled(*one, n_resamples, seed) - _resampled(*other, n_resamples, seed)
    low, high = _quantiles(differences, level)
    return Estimate(value, low, high, len(one[0]))


def _checked(
    numerators: ArrayLike, denominators: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    above = np.asarray(numerators, dtype=np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, dtype=np.float64)
    if above.ndim != 1 or above.shape != below.shape:
        raise ValueError(f"numerators and denominators must be (N,), got {above.shape} and {below.shape}")
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise ValueError("numerators and denominators must be finite")
    if (below < 0).any() or below.sum() == 0:
        raise ValueError("denominators must be non-negative and not all zero")
    return above, below


def _resampled(
    above: NDArray[np.float64], below: NDArray[np.float64], n_resamples: int, seed: int
) -> NDArray[np.float64]:
    """Ratios of ``n_resamples`` resamples; the same images for the same N and seed."""
    if len(above) * n_resamples <= KEPT_COUNTS:
        counts = _counts(len(above), n_resamples, seed)
        totals, sums = counts @ below, counts @ above
    else:
        drawn = [(counts @ below, counts @ above) for counts in _draws(len(above), n_resamples, seed)]
        totals, sums = np.array(drawn).T
    return np.divide(sums, totals, out=np.full(n_resamples, np.nan), where=totals != 0)


@lru_cache(maxsize=8)
def _counts(n: int, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each of n images is in each resample, (n_resamples, n)."""
    counts = np.array(list(_draws(n, n_resamples, seed)), dtype=np.float64)
    counts.setflags(write=False)
    return counts


def _draws(n: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    for _ in range(n_resamples):
        yield np.bincount(generator.integers(0, n, n), minlength=n)


def _quantiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)
