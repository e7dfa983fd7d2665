r"""Confidence intervals: the bootstrap over images, and Wilson's interval for a proportion.

The percentile bootstrap draws ``n`` of the ``n`` images with replacement, many times, and reports the
quantiles :math:`(1-\text{level})/2` and :math:`(1+\text{level})/2` of the statistic of the draws (Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13). The unit that is drawn is the image with all that was
measured on it, at several attack sizes or by several networks, since these depend on one another.

When all values are equal the bootstrap interval is a point, however few the values: it cannot know what
it has not seen. For a proportion, use :func:`proportion_ci`, which has a width also for 0 of n;
:func:`bootstrap_ci` does so by itself for boolean values that are all equal.

One sample's draws are those of ``scipy.stats.bootstrap`` with a generator of the same seed. Scipy draws two groups from
one generator, refuses a single image and returns no interval where a draw leaves the statistic undefined.

Everywhere ``level`` is the confidence level, between 0 and 1, ``n_resamples`` the number of draws, at least 1, and
``seed`` that of the generator of the draws; what is out of range raises ValueError, values that are no numbers TypeError.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.metrics.checks import as_array, sample

Array = NDArray[np.float64]
Statistic = Literal["mean", "median"]
STATISTICS: dict[str, Callable[..., Any]] = {"mean": np.mean, "median": np.median}
VALUES_AT_ONCE = 100_000
"""Values drawn and reduced before the next ones, so that they stay in the processor's cache."""


class Interval(NamedTuple):
    """An interval from ``low`` to ``high``, both included."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A number with its 95 % interval and the count it rests on."""

    value: float
    low: float
    high: float
    n: int

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit, say ``factor=100`` for percent."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.n)


def bootstrap_ci(
    values: ArrayLike | Tensor,
    *,
    statistic: Statistic = "mean",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic, ``"mean"`` or ``"median"``.

    Args:
        values: (n,) finite numbers or booleans, one per image, n at least 1.

    Returns:
        The interval, in the units of the values. For the mean of booleans that are all equal it is Wilson's.
    """
    array = sample("values", values)
    if statistic == "mean" and as_array(values).dtype == np.bool_ and array.min() == array.max():
        return proportion_ci(int(array.sum()), len(array), level=level)
    return percentiles(_statistics(statistic, array, n_resamples, np.random.default_rng(seed)), level)


def bootstrap_difference_ci(
    a: ArrayLike | Tensor,
    b: ArrayLike | Tensor,
    *,
    statistic: Statistic = "mean",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the interval of statistic(a) − statistic(b) for two independent groups of images.

    Args:
        a: (n,) values of one group, as for :func:`bootstrap_ci`.
        b: (m,) values of the other; each group is drawn on its own, the second after the first.
    """
    rng = np.random.default_rng(seed)
    groups = sample("a", a), sample("b", b)
    of_a, of_b = (_statistics(statistic, group, n_resamples, rng) for group in groups)
    return percentiles(of_a - of_b, level)


def row_bootstrap(
    statistic: Callable[..., float], *arrays: ArrayLike, n_resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return a statistic of arrays with a 95 % interval over their rows.

    Args:
        statistic: takes arrays with the same rows drawn from each, returns a number; NaN where a draw leaves it
            undefined, which is left out of the interval.
        arrays: (N, ...) each, one row an image, of the same N of at least 1.

    Returns:
        The estimate; ``n`` is N.

    Raises:
        ValueError: the arrays do not fit, or leave the statistic undefined.
    """
    (found,) = row_bootstraps(statistic, *arrays, n_resamples=n_resamples, seed=seed)
    if not np.isfinite(found.value):
        raise UserError("statistic is undefined for these arrays")
    return found


def row_bootstraps(
    statistic: Callable[..., ArrayLike], *arrays: ArrayLike, n_resamples: int = 1000, seed: int = 0
) -> list[Estimate]:
    """Return several statistics of arrays, each with a 95 % interval over their rows, from the same draws.

    Args:
        statistic: as for :func:`row_bootstrap`, as ``arrays``; returns numbers (K,), or one.

    Returns:
        K estimates; NaN with NaN bounds where a statistic is undefined for the arrays as they are.
    """
    values = [np.asarray(array, dtype=np.float64) for array in arrays]
    if not values or any(array.ndim == 0 for array in values) or len({len(array) for array in values}) != 1:
        raise UserError("arrays must have rows, each the same number of them")
    if not (n := len(values[0])):
        raise UserError("arrays must have at least one row")

    def each(draws: NDArray[np.int64]) -> list[Array]:
        return [
            np.atleast_1d(np.asarray(statistic(*(array[rows] for array in values)), dtype=np.float64))
            for rows in draws
        ]

    (whole,) = each(np.arange(n)[None])
    undefined = Interval(np.nan, np.nan)
    drawn = resampled(each, (np.arange(n), np.random.default_rng(seed)), n_resamples=n_resamples)
    return [
        Estimate(float(value), *(percentiles(column) if np.isfinite(value) else undefined), n)
        for value, column in zip(whole, drawn.T, strict=True)
    ]


def proportion_ci(successes: int, n: int, *, level: float = 0.95) -> Interval:
    r"""Return Wilson's score interval of a proportion (Wilson, JASA 22, 1927).

    .. math:: \frac{\hat p + z^2/2n \pm z \sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Args:
        successes: how many of the ``n`` trials, at least one, succeeded.

    Returns:
        The interval, within [0, 1].
    """
    if n < 1 or not 0 <= successes <= n or int(successes) != successes:
        raise UserError(f"successes must lie in 0..n and be whole, with n at least 1, not {successes} of {n}")
    checks.number("level", level, above=0, below=1)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    scale = 1 + z**2 / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return Interval(low, high)


def resampled(
    statistic: Callable[..., ArrayLike], *groups: tuple[NDArray, np.random.Generator], n_resamples: int
) -> Array:
    """Return a statistic of every draw: the one bootstrap, on which all intervals rest.

    Args:
        statistic: takes draws (rows, n) from each group, returns (rows, ...), one entry a draw.
        groups: values (n,), and the generator that draws n of them with replacement, one draw after the other.

    Returns:
        (n_resamples, ...).
    """
    checks.integer("n_resamples", n_resamples, least=1)
    step = max(1, VALUES_AT_ONCE // sum(len(values) for values, _ in groups))
    results = []
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        drawn = (values[rng.integers(len(values), size=(rows, len(values)))] for values, rng in groups)
        results.append(np.asarray(statistic(*drawn), dtype=np.float64))
    return np.concatenate(results)


def percentiles(statistics: Array, level: float = 0.95) -> Interval:
    """Return the percentile interval of the statistics (n_resamples,) of the draws; NaN are left out."""
    checks.number("level", level, above=0, below=1)
    low, high = np.nanquantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _statistics(statistic: str, values: Array, n_resamples: int, rng: np.random.Generator) -> Array:
    reduce = STATISTICS[checks.one_of("statistic", statistic, STATISTICS)]
    return resampled(lambda draws: reduce(draws, axis=-1), (values, rng), n_resamples=n_resamples)
