r"""Intervals of a number over several runs, each with a network of its own, on the same images.

Images and trainings are two sources of chance, and more runs shrink only one of them. Of outcomes
:math:`y_{ir}` of image i in run r, the mean m of the runs' means :math:`m_r` has the variance

.. math:: V = V_\text{images} + V_\text{runs} - V_\text{both}

that is robust to both clusterings (Cameron, Gelbach and Miller, J. Business & Economic Statistics 29, 2011, Eq. 2.11):
the sums of squares of :math:`(y_{ir} - m_r)/(k n_r)` summed within images, of :math:`(m_r - m)/k` over runs, and of
the terms of one image in one run. The interval takes Student's t with Satterthwaite's degrees of freedom. The
percentiles of a bootstrap that draws images and five runs with replacement are too narrow where runs differ as much as
images do: on made data they cover 82 % instead of 95 %.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from xaicore.core.errors import UserError
from xaicore.metrics.intervals import Estimate, Interval

Array = NDArray[np.float64]
Z = float(stats.norm.ppf(0.975))


class Pooled(NamedTuple):
    """A number over k runs.

    Attributes:
        value: mean of the runs' values.
        interval: 95 % interval over images and runs; None where nothing says how wide it is.
        prediction: 95 % interval for the value of one more run on the same images; None for a single run.
        runs: k.
    """

    value: float
    interval: Interval | None
    prediction: Interval | None
    runs: int


def pooled_outcomes(
    outcomes: Sequence[ArrayLike], images: Sequence[ArrayLike], *, shares: bool | None = None
) -> tuple[float, Interval]:
    """Return the mean over runs of the mean of their outcomes, with its 95 % interval over images and runs.

    Args:
        outcomes: k arrays (n_r,) of finite numbers, k at least 2, one a run.
        images: the number of the image behind each outcome, equal in all runs for the same image, which may have several.
        shares: the outcomes are all 0 or 1 and the interval is to stay in between; None: where they are.

    Returns:
        The mean, and the interval. For shares it is Wilson's at the number of images that would give the same
        variance without clusters (Korn and Graubard, Survey Methodology 24, 1998), at most as many as there are.

    Raises:
        ValueError: fewer than two runs, a run without outcomes, or lengths that do not fit.
    """
    given, numbers = _checked(outcomes, images)
    means = np.array([run.mean() for run in given])
    variance, width, n = _spread(means, [_terms(run) for run in given], numbers)
    value = float(means.mean())
    if shares is None:
        shares = bool(np.isin(np.concatenate(given), (0.0, 1.0)).all())
    if not shares:
        return value, Interval(value - width * variance**0.5, value + width * variance**0.5)
    effective = min(n, value * (1 - value) / variance) if variance > 0 else n
    return value, _wilson(value, effective, width)


def pooled_differences(
    first: Sequence[ArrayLike],
    first_images: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    second_images: Sequence[ArrayLike],
) -> tuple[float, Interval]:
    """Return the mean over runs of one mean minus another, with its 95 % interval over images and runs.

    Args:
        first: k arrays of finite numbers, as for :func:`pooled_outcomes`.
        first_images: the number of the image behind each.
        second: k arrays of what is taken off; the images may be the same, others, or partly the same.
        second_images: the number of the image behind each.

    Raises:
        ValueError: as for :func:`pooled_outcomes`, or the runs are not equally many.
    """
    one, other = _checked(first, first_images), _checked(second, second_images)
    if len(one[0]) != len(other[0]):
        raise UserError(f"first and second must be of the same runs, got {len(one[0])} and {len(other[0])}")
    means = np.array([a.mean() - b.mean() for a, b in zip(one[0], other[0], strict=True)])
    terms = [np.concatenate([_terms(a), -_terms(b)]) for a, b in zip(one[0], other[0], strict=True)]
    variance, width, _ = _spread(
        means, terms, [np.concatenate(pair) for pair in zip(one[1], other[1], strict=True)]
    )
    value, half = float(means.mean()), width * variance**0.5
    return value, Interval(value - half, value + half)


def _checked(outcomes: Sequence[ArrayLike], images: Sequence[ArrayLike]) -> tuple[list[Array], list[Array]]:
    given = [np.asarray(run, dtype=np.float64) for run in outcomes]
    numbers = [np.asarray(run) for run in images]
    if (
        len(given) < 2
        or len(given) != len(numbers)
        or any(len(a) != len(b) or not len(a) for a, b in zip(given, numbers, strict=True))
    ):
        raise UserError(
            "outcomes and images must be those of two runs or more, equally many in each, none empty"
        )
    return given, numbers


def _terms(run: Array) -> Array:
    """Return what each outcome of a run adds to the error of their mean."""
    return (run - run.mean()) / len(run)


def _spread(means: Array, terms: Sequence[Array], images: Sequence[Array]) -> tuple[float, float, int]:
    """Return the variance of the mean of ``means``, the half-width of its interval in standard errors, and n images."""
    k = len(means)
    unique, owner = np.unique(np.concatenate(images), return_inverse=True)
    n = len(unique)
    ends = np.cumsum([len(run) for run in terms])[:-1]
    owners = np.split(owner.reshape(-1), ends)
    single = np.stack([np.bincount(own, run, n) / k for own, run in zip(owners, terms, strict=True)])
    of_images = float(np.square(single.sum(0)).sum()) * n / max(1, n - 1)
    of_runs = float(means.var(ddof=1)) / k
    variance = max(of_images + of_runs - float(np.square(single).sum()), of_images, of_runs)
    freedom = np.inf
    if variance > 0:
        freedom = variance**2 / (of_runs**2 / (k - 1) + of_images**2 / max(1, n - 1) or np.inf)
    return variance, float(stats.t.ppf(0.975, max(1.0, freedom))), n


def pooled_estimates(estimates: Sequence[Estimate]) -> Pooled:
    r"""Return a number over runs from the runs' own values and intervals.

    With :math:`s_i` the half-width of the runs' intervals divided by 1.96 and :math:`s_r` the standard deviation of
    the values, the interval is :math:`m \pm t_{k-1}\sqrt{s_i^2 + s_r^2/k}`, each side with the
    half-width of its side. It is too wide rather than too narrow: :math:`s_r` holds a part of :math:`s_i`.

    Args:
        estimates: one a run; ``low`` and ``high`` equal where there is no interval over images.

    Returns:
        The pooled number; of a single run its own. The prediction interval has :math:`s_r^2(1 + 1/k)`.

    Raises:
        ValueError: no estimate.
    """
    if not estimates:
        raise UserError("estimates must not be empty")
    k = len(estimates)
    values = np.array([each.value for each in estimates])
    ends = Interval(estimates[0].low, estimates[0].high)
    if k == 1:
        return Pooled(float(values[0]), ends if ends.low < ends.high else None, None, 1)
    mean, spread = float(values.mean()), float(values.var(ddof=1))
    below = float(np.mean([(each.value - each.low) ** 2 for each in estimates])) / Z**2
    above = float(np.mean([(each.high - each.value) ** 2 for each in estimates])) / Z**2
    width = float(stats.t.ppf(0.975, k - 1))

    def around(share: float) -> Interval:
        low, high = (width * (side + share * spread) ** 0.5 for side in (below, above))
        return Interval(mean - low, mean + high)

    return Pooled(mean, around(1 / k), around(1 + 1 / k), k)


def _wilson(share: float, n: float, z: float) -> Interval:
    """Return Wilson's interval of a share over a number of images that need not be whole."""
    centre = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    scale = 1 + z**2 / n
    return Interval(max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))
