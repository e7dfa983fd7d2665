"""In how many layers chapter 3's findings hold, and the correlation with depth, by many draws at once.

It stands apart from :mod:`xaicore.studies.layer_findings`, as stored similarities belong to the code of that module. A
draw of images is a row of how often it holds each, so that the means of all draws are two matrix products.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from xaicore.metrics import Estimate, proportion_ci
from xaicore.metrics.intervals import percentiles, resampled
from xaicore.studies.layer_findings import depth_correlation, mean_of_known

Array = NDArray[np.float64]


class Counts(NamedTuple):
    """Of the layers judged, those whose 95 % interval over images lies above 0.

    Attributes:
        further: layers that adversarial noise moves further than Gaussian noise.
        vary_more: layers whose similarity varies more under adversarial noise.
        judged: layers with a map under both.
    """

    further: int
    vary_more: int
    judged: int


def layer_counts(attack: Array, noise: Array, *, n_resamples: int = 1000, seed: int = 0) -> Counts:
    """Count the layers of ``gap`` and ``log_variance_ratio`` of :class:`xaicore.studies.layer_findings.Findings`.

    Args:
        attack: (N, S, L) similarities under adversarial noise at the strengths that count together, NaN in layers that
            are not to be judged.
        noise: (N, S, L) the same under Gaussian noise.
        n_resamples: bootstrap draws of images, those of :func:`xaicore.studies.layer_findings.findings`.
        seed: of the draws.
    """
    known = np.isfinite(attack) & np.isfinite(noise)
    judged = known.any((0, 1))
    times = _draws(len(known), n_resamples, seed)

    def mean(values: Array) -> Array:
        return _means(times, np.where(known, values, np.nan))

    def variance(values: Array) -> Array:
        near = values - mean_of_known(np.where(known, values, np.nan), (0, 1))  # small squares round less
        return mean(near**2) - mean(near) ** 2

    above, below = (np.where(each > 0, each, np.nan) for each in (variance(attack), variance(noise)))
    further, vary_more = (
        sum(percentiles(column).low > 0 for column in drawn.T[judged] if np.isfinite(column).any())
        for drawn in (mean(noise - attack), np.log2(above / below))
    )
    return Counts(further, vary_more, int(judged.sum()))


def depth_estimate(similarity: Array, *, n_resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return the ``depth_correlation`` of Findings with its interval over images.

    Args:
        similarity: (N, S, L) at the strengths whose correlations are averaged.
        n_resamples: see :func:`layer_counts`, as for ``seed``.
        seed: of the draws.
    """

    times = _draws(len(similarity), n_resamples, seed)
    every = [_depths(_means(times, each[:, None])) for each in similarity.swapaxes(0, 1)]
    whole = [_depths(mean_of_known(each, 0)[None]) for each in similarity.swapaxes(0, 1)]
    value = mean_of_known(whole, 0).item()
    bounds = percentiles(mean_of_known(every, 0)) if np.isfinite(value) else (np.nan, np.nan)
    return Estimate(value, *bounds, len(similarity))


def with_width(share: Estimate, images: int) -> Estimate:
    """Return a share with Wilson's interval of none or all of so many images where it is none or all.

    There a bootstrap has no width. Examples of one image are not independent, so images count.
    """
    if share.value not in (0.0, 1.0) or not images:
        return share
    return Estimate(share.value, *proportion_ci(int(share.value) * images, images), share.n)


def _draws(images: int, n_resamples: int, seed: int) -> Array:
    """Return how often each image is in each draw, (n_resamples, images)."""

    def counted(rows: NDArray[np.int64]) -> Array:
        return np.array([np.bincount(row, minlength=images) for row in rows], np.float64)

    return resampled(counted, (np.arange(images), np.random.default_rng(seed)), n_resamples=n_resamples)


def _means(times: Array, values: Array) -> Array:
    """Return the mean of what is known of ``values`` (N, K, L) over images and K, (n_resamples, L)."""
    known = np.isfinite(values)
    sums, counts = (times @ each.sum(1) for each in (np.where(known, values, 0), known))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _depths(curves: Array) -> Array:
    """Return the ``depth_correlation`` of each curve (R, L), of those without gaps all at once."""
    curves = curves[:, np.isfinite(curves).any(0)]
    whole: NDArray[np.bool_] = np.isfinite(curves).all(1) & (
        curves.max(1, initial=-1) > curves.min(1, initial=1)
    )
    found = np.array(
        [np.nan if there else depth_correlation(each) for there, each in zip(whole, curves, strict=True)]
    )
    if whole.any():
        ranks, places = rankdata(curves[whole], axis=1), np.arange(curves.shape[1])
        ranks, places = (each - each.mean(-1, keepdims=True) for each in (ranks, places))
        found[whole] = (ranks @ places) / np.sqrt((ranks**2).sum(1) * (places**2).sum())
    return found
