"""What the similarities of layers say: the quantities of paper 3, with intervals over images.

Every function takes similarities by image, strength and layer, NaN where a map has no content, and leaves these out. The
intervals draw images, each with all of its strengths, layers and both kinds of noise.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from xaicore.metrics import Estimate, RankTest, holm, row_bootstraps, wilcoxon

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Findings:
    """The quantities of one analysis, at the strengths S and layers L that it was given.

    Attributes:
        gap: (L,) mean similarity under Gaussian minus under adversarial noise, paired, at the reference strength.
        rank: (L,) rank of the gap among the layers, 1 the largest.
        variance_ratio: (L,) variance of the similarity under adversarial over that under Gaussian noise, there.
        adversarial: (S,) 1 minus the similarity under adversarial noise, mean over layers.
        gaussian: (S,) the same under Gaussian noise.
        adversarial_change: the last of the first minus the first of them.
        gaussian_change: the same under Gaussian noise.
        depth_correlation: Spearman correlation of depth and mean adversarial similarity at the reference strength.
        distance: (i, j) to the mean absolute difference of the adversarial layer curves of strengths i and j.
        compromise: (S,) share of (image, layer) pairs that are compromised.
    """

    gap: list[Estimate]
    rank: list[Estimate]
    variance_ratio: list[Estimate]
    adversarial: list[Estimate]
    gaussian: list[Estimate]
    adversarial_change: Estimate
    gaussian_change: Estimate
    depth_correlation: Estimate
    distance: dict[tuple[int, int], Estimate]
    compromise: list[Estimate]


def compromise_probability(adversarial: ArrayLike, gaussian: ArrayLike) -> Array:
    """Return the share of compromised (image, layer) pairs at each strength, (S,), of :func:`compromised`."""
    return mean_of_known(compromised(adversarial, gaussian), (0, 2))


def compromised(adversarial: ArrayLike, gaussian: ArrayLike) -> Array:
    """Return which layers an image compromises: its similarity is below the layer's median under Gaussian noise.

    From similarities (N, S, L), by strength, under adversarial and under Gaussian noise, (N, S, L): 1 where compromised,
    0 where not, NaN where undefined (Renkhoff et al. 2022, Sec. III-C).
    """
    attack, noise = (np.asarray(each, dtype=np.float64) for each in (adversarial, gaussian))
    return below(attack, median_of_known(noise))


def findings(
    adversarial: ArrayLike,
    gaussian: ArrayLike,
    reference: int,
    *,
    compromise: Callable[[Array, Array], Array] = compromise_probability,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Findings:
    """Return the quantities of an analysis with 95 % intervals over images, by ``n_resamples`` bootstrap draws.

    Args:
        adversarial: (N, S, L) similarities with the clean maps under adversarial noise, by strength.
        gaussian: (N, S, L) the same under Gaussian noise.
        reference: which strength is 1.
        compromise: similarities to the probability of a compromise at each strength, (S,).

    Raises:
        ValueError: shapes differ or there is no image.
    """
    attack, noise = (np.asarray(each, dtype=np.float64) for each in (adversarial, gaussian))
    if attack.ndim != 3 or attack.shape != noise.shape or not attack.size:
        raise ValueError(f"adversarial and gaussian must be (N, S, L), not {attack.shape} and {noise.shape}")
    strengths, layers = attack.shape[1:]
    pairs = list(combinations(range(strengths), 2))

    def quantities(attack: Array, noise: Array) -> Array:
        at = attack[:, reference], noise[:, reference]
        gap = mean_of_known(at[1] - at[0], 0)
        curves = mean_of_known(attack, 0)
        attacked, noisy = (1 - mean_of_known(each, 1) for each in (curves, mean_of_known(noise, 0)))
        parts = [
            gap,
            ranks(gap),
            variance_ratio(*at),
            attacked,
            noisy,
            attacked[-1] - attacked[0],
            noisy[-1] - noisy[0],
            depth_correlation(curves[reference]),
            mean_of_known(np.abs(curves[[i for i, _ in pairs]] - curves[[j for _, j in pairs]]), 1),
            compromise(attack, noise),
        ]
        return np.hstack(parts)

    found = iter(row_bootstraps(quantities, attack, noise, n_resamples=n_resamples, seed=seed))

    def take(count: int) -> list[Estimate]:
        return list(islice(found, count))

    return Findings(
        gap=take(layers),
        rank=take(layers),
        variance_ratio=take(layers),
        adversarial=take(strengths),
        gaussian=take(strengths),
        adversarial_change=next(found),
        gaussian_change=next(found),
        depth_correlation=next(found),
        distance=dict(zip(pairs, take(len(pairs)), strict=True)),
        compromise=take(strengths),
    )


def paired_tests(adversarial: ArrayLike, gaussian: ArrayLike) -> list[tuple[RankTest, float]]:
    """Return Wilcoxon's test of each layer, Gaussian against adversarial similarity (N, L), and its p-value after Holm.

    There is one pair a layer; a layer without a pair of defined similarities has n = 0 and p = 1.
    """
    attack, noise = (np.asarray(each, dtype=np.float64) for each in (adversarial, gaussian))
    tests = []
    for a, b in zip(noise.T, attack.T, strict=True):
        known = np.isfinite(a) & np.isfinite(b)
        tests.append(wilcoxon(a[known], b[known]) if known.any() else RankTest(0.0, 1.0, 0.0, 0))
    return list(zip(tests, holm([test.p_value for test in tests]).tolist(), strict=True))


def variance_ratio(first: Array, second: Array) -> Array:
    """Return the variance of ``first`` (N, L) over that of ``second``, by layer; NaN where the latter has none."""
    known = np.isfinite(first) & np.isfinite(second)
    kept = [np.where(known, each, np.nan) for each in (first, second)]
    above, below = (mean_of_known((each - mean_of_known(each, 0)) ** 2, 0) for each in kept)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def ranks(values: Array) -> Array:
    """Return the ranks of ``values`` (L,), 1 the largest; NaN has the last."""
    return np.asarray(rankdata(-np.where(np.isfinite(values), values, -np.inf)))


def depth_correlation(curve: Array) -> float:
    """Return Spearman's correlation of the position of a layer and its value in ``curve`` (L,); NaN without spread."""
    known = np.isfinite(curve)
    if known.sum() < 2 or np.ptp(curve[known]) == 0:
        return float("nan")
    return float(np.corrcoef(np.flatnonzero(known).argsort(), rankdata(curve[known]))[0, 1])


def below(values: Array, threshold: Array) -> Array:
    """Return 1 where ``values`` lie below ``threshold``, 0 where not, NaN where either is undefined."""
    known = np.isfinite(values) & np.isfinite(threshold)
    return np.where(known, np.where(known, values, 0) < np.where(known, threshold, 0), np.nan)


def mean_of_known(values: ArrayLike, axis: int | Sequence[int]) -> Array:
    """Return the mean over ``axis`` of what is not NaN; NaN where nothing is left."""
    return _known(np.nanmean, values, axis)


def median_of_known(values: ArrayLike) -> Array:
    """Return the median over the first axis of what is not NaN; NaN where nothing is left."""
    return _known(np.nanmedian, values, 0)


def _known(statistic: Callable[..., Array], values: ArrayLike, axis: int | Sequence[int]) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where nothing is left
        return statistic(np.asarray(values, np.float64), axis if isinstance(axis, int) else tuple(axis))
