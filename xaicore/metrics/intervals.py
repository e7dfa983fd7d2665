r"""Confidence intervals: bootstrap over images, and Wilson's interval for a proportion.

The percentile bootstrap draws ``n`` of the ``n`` values with replacement, many times, and reports the
quantiles :math:`(1-\text{level})/2` and :math:`(1+\text{level})/2` of the statistic of the draws (Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13). The unit that is drawn is the image; in a
paired design it is the pair.

When all values are equal the bootstrap interval is a point, however few the values: it cannot know what
it has not seen. For a proportion, use :func:`proportion_ci`, which has a width also for 0 of n;
:func:`bootstrap_ci` does so by itself for boolean values that are all equal.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xaicore.metrics.checks import as_array, sample

Array = NDArray[np.float64]
Statistic = Literal["mean", "median"] | Callable[..., Any]
VALUES_AT_ONCE = 4_000_000
"""Two independent groups are drawn in turns of so many values together: part of what a seed means."""
VALUES_IN_CACHE = 100_000
"""Values of a group drawn and reduced before the next ones, so that they stay in the processor's cache."""


def _median(values: Array, axis: int) -> Array:
    """Return the median over the last axis of finite values, as ``numpy.median``, which also looks for NaN."""
    middle = values.shape[axis] // 2
    parted = np.partition(values, middle, axis=axis)
    upper = parted[..., middle]
    return upper if values.shape[axis] % 2 else (parted[..., :middle].max(axis) + upper) / 2


STATISTICS: dict[str, Callable[..., Any]] = {"mean": np.mean, "median": _median}


class Interval(NamedTuple):
    """An interval from ``low`` to ``high``, both included."""

    low: float
    high: float


def bootstrap_ci(
    values: ArrayLike | Tensor,
    *,
    statistic: Statistic = "mean",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic of ``values``.

    Args:
        values: (n,) finite numbers or booleans, one per image.
        statistic: ``"mean"``, ``"median"``, or a function of an array and ``axis=`` like ``numpy.mean``.
        level: the confidence level, between 0 and 1.
        n_resamples: number of draws.
        seed: of the generator of the draws.

    Returns:
        The interval, in the units of the statistic. For the mean of booleans that are all equal it is
        Wilson's.

    Raises:
        ValueError: empty or not finite values, or another argument out of range.
        TypeError: values that are not numbers.
    """
    array = sample(values, "values")
    if statistic == "mean" and as_array(values).dtype == np.bool_ and array.min() == array.max():
        return proportion_ci(int(array.sum()), len(array), level=level)
    return _bootstrap([array], _function(statistic), level, n_resamples, seed)


def paired_bootstrap_ci(
    a: ArrayLike | Tensor,
    b: ArrayLike | Tensor,
    *,
    statistic: Statistic = "mean",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the interval of statistic(a) − statistic(b) where a and b were measured on the same images.

    Args:
        a: (n,) values, one per image.
        b: (n,) values of the same images in the same order; pairs are drawn together.
        statistic: see :func:`bootstrap_ci`, as for the other arguments and errors.
        level: the confidence level.
        n_resamples: number of draws.
        seed: of the generator of the draws.

    Raises:
        ValueError: a and b differ in length, or as for :func:`bootstrap_ci`.
    """
    first, second = sample(a, "a"), sample(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a and b must have the same length, not {len(first)} and {len(second)}")
    return _bootstrap([first, second], _function(statistic), level, n_resamples, seed, paired=True)


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
        a: (n,) values of one group.
        b: (m,) values of the other; each group is drawn on its own.
        statistic: see :func:`bootstrap_ci`, as for the other arguments and errors.
        level: the confidence level.
        n_resamples: number of draws.
        seed: of the generator of the draws.
    """
    groups = [sample(a, "a"), sample(b, "b")]
    return _bootstrap(groups, _function(statistic), level, n_resamples, seed)


def proportion_ci(successes: int, n: int, *, level: float = 0.95) -> Interval:
    r"""Return Wilson's score interval of a proportion (Wilson, JASA 22, 1927).

    .. math:: \frac{\hat p + z^2/2n \pm z \sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Args:
        successes: how many of the ``n`` trials succeeded.
        n: number of trials, at least 1.
        level: the confidence level, between 0 and 1.

    Returns:
        The interval, within [0, 1].

    Raises:
        ValueError: an argument is out of range.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..n with n at least 1, not {successes} of {n}")
    _check_level(level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    scale = 1 + z**2 / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return Interval(low, high)


def percentiles(statistics: Array, level: float) -> Interval:
    """Return the percentile interval of the statistics (n_resamples,) of the draws."""
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def check_draws(level: float, n_resamples: int) -> None:
    """Raise ValueError unless the level lies between 0 and 1 and there is a draw."""
    _check_level(level)
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, not {n_resamples}")


def _bootstrap(
    groups: list[Array],
    function: Callable[..., Any],
    level: float,
    n_resamples: int,
    seed: int,
    *,
    paired: bool = False,
) -> Interval:
    """Return the interval of the statistic of one group, or of the difference of two."""
    check_draws(level, n_resamples)
    rng = np.random.default_rng(seed)
    results = []
    step = max(1, VALUES_AT_ONCE // sum(map(len, groups)))
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        units = [groups] if paired else [[group] for group in groups]
        drawn = [values for unit in units for values in _statistics(unit, function, rows, rng)]
        results.append(drawn[0] - drawn[1] if len(drawn) == 2 else drawn[0])
    return percentiles(np.concatenate(results), level)


def _statistics(
    groups: list[Array], function: Callable[..., Any], rows: int, rng: np.random.Generator
) -> list[Array]:
    """Return the statistic of each group of one length in ``rows`` draws (rows,), the same draws for all."""
    length = len(groups[0])
    results = [np.empty(rows) for _ in groups]
    step = max(1, VALUES_IN_CACHE // length)
    for start in range(0, rows, step):
        indices = rng.integers(length, size=(min(step, rows - start), length))
        for group, result in zip(groups, results, strict=True):
            values = np.asarray(function(group[indices], axis=-1), dtype=np.float64)
            if values.shape != (len(indices),):
                raise ValueError("statistic must reduce the axis it is given, as numpy.mean does")
            result[start : start + step] = values
    return results


def _function(statistic: Statistic) -> Callable[..., Any]:
    if isinstance(statistic, str):
        if statistic not in STATISTICS:
            raise ValueError(
                f"statistic must be one of {', '.join(STATISTICS)} or a function, not {statistic!r}"
            )
        return STATISTICS[statistic]
    return statistic


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
