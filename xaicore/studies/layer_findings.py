"""What the similarities of layers say: the quantities of paper 3, with intervals over images.

Every function takes similarities by image, strength and layer, NaN where a map has no content, and leaves these out. The
intervals draw images, each with all of its strengths, layers and both kinds of noise.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from xaicore.metrics import Estimate, RankTest, holm, row_bootstraps, wilcoxon

Array = NDArray[np.float64]
LEAST = 10
"""Images with a map that a layer needs to be judged; of fewer than twice as many, half of them."""


@dataclass(frozen=True)
class Findings:
    """The quantities of one analysis, at the strengths S and layers L that it was given.

    "There" is the reference strength, or all strengths together where the analysis pools them.

    Attributes:
        gap: (L,) mean similarity under Gaussian minus under adversarial noise, paired, there.
        smallest_gap: the smallest of them, and ``middle_gap`` their median over the layers.
        rank: (L,) rank of the gap among the layers, 1 the largest.
        gaussian_rank: (L,) rank of 1 minus the similarity under Gaussian noise, there.
        log_variance_ratio: (L,) variance of the similarity under adversarial over that under Gaussian noise, there, as
            binary logarithm; with ``smallest_log_ratio`` and ``middle_log_ratio``.
        lowest: (L,) share of the examples, at all strengths, in which the layer's similarity is the lowest of all.
        gaussian_lowest: (L,) the same under Gaussian noise.
        adversarial: (S,) 1 minus the similarity under adversarial noise, mean over examples and layers.
        gaussian: (S,) the same under Gaussian noise.
        strength_gap: (S,) the first minus the second.
        adversarial_change: the last of the first minus the first of them.
        gaussian_change: the same under Gaussian noise.
        change_gap: the first of these minus the second.
        depth_correlation: Spearman correlation of depth and mean adversarial similarity, there; of pooled strengths the
            mean of that of each, as the published code draws a curve for each.
        gaussian_depth_correlation: the same under Gaussian noise.
        distance: (i, j) to the mean absolute difference of the adversarial layer curves of strengths i and j. Resampling
            makes distances larger, so there is no interval.
        shift: (i, j) to the deviation under adversarial noise at strength j minus that at i; gaussian_shift likewise.
        shift_gap: (i, j) to the first of these minus the second.
        compromise: (S,) share of (image, layer) pairs that are compromised.
    """

    gap: list[Estimate]
    smallest_gap: Estimate
    middle_gap: Estimate
    rank: list[Estimate]
    gaussian_rank: list[Estimate]
    log_variance_ratio: list[Estimate]
    smallest_log_ratio: Estimate
    middle_log_ratio: Estimate
    lowest: list[Estimate]
    gaussian_lowest: list[Estimate]
    adversarial: list[Estimate]
    gaussian: list[Estimate]
    strength_gap: list[Estimate]
    adversarial_change: Estimate
    gaussian_change: Estimate
    change_gap: Estimate
    depth_correlation: Estimate
    gaussian_depth_correlation: Estimate
    distance: dict[tuple[int, int], float]
    shift: dict[tuple[int, int], Estimate]
    gaussian_shift: dict[tuple[int, int], Estimate]
    shift_gap: dict[tuple[int, int], Estimate]
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
    pooled: bool = False,
    compromise: Callable[[Array, Array], Array] = compromise_probability,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Findings:
    """Return the quantities of an analysis with 95 % intervals over images, by ``n_resamples`` bootstrap draws.

    Args:
        adversarial: (N, S, L) similarities with the clean maps under adversarial noise, by strength.
        gaussian: (N, S, L) the same under Gaussian noise.
        reference: which strength is 1.
        pooled: take what is measured at the reference strength from all strengths together.
        compromise: similarities to the probability of a compromise at each strength, (S,).

    Raises:
        ValueError: shapes differ or there is no image.
    """
    attack, noise = (np.asarray(each, dtype=np.float64) for each in (adversarial, gaussian))
    if attack.ndim != 3 or attack.shape != noise.shape or not attack.size:
        raise ValueError(f"adversarial and gaussian must be (N, S, L), not {attack.shape} and {noise.shape}")
    attack, noise = with_enough(attack, noise)
    strengths, layers = attack.shape[1:]
    pairs = list(combinations(range(strengths), 2))
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))

    def by_depth(curves: Array, there: Array) -> float:
        return float(mean_of_known([depth_correlation(each) for each in (curves if pooled else [there])], 0))

    def quantities(attack: Array, noise: Array) -> dict[str, ArrayLike]:
        at = [each.reshape(-1, layers) if pooled else each[:, reference] for each in (attack, noise)]
        curve, noise_curve = (mean_of_known(each, 0) for each in at)
        gap = mean_of_known(at[1] - at[0], 0)
        ratio = log_variance_ratio(*at)
        curves = mean_of_known(attack, 0)
        attacked, noisy = (1 - mean_of_known(each, (0, 2)) for each in (attack, noise))
        changes = attacked[-1] - attacked[0], noisy[-1] - noisy[0]
        shifts = attacked[second] - attacked[first], noisy[second] - noisy[first]
        return {
            "gap": gap,
            "smallest_gap": lowest_of_known(gap),
            "middle_gap": middle_of_known(gap),
            "rank": ranks(gap),
            "gaussian_rank": ranks(1 - noise_curve),
            "log_variance_ratio": ratio,
            "smallest_log_ratio": lowest_of_known(ratio),
            "middle_log_ratio": middle_of_known(ratio),
            "lowest": lowest_layers(attack),
            "gaussian_lowest": lowest_layers(noise),
            "adversarial": attacked,
            "gaussian": noisy,
            "strength_gap": attacked - noisy,
            "adversarial_change": changes[0],
            "gaussian_change": changes[1],
            "change_gap": changes[0] - changes[1],
            "depth_correlation": by_depth(curves, curve),
            "gaussian_depth_correlation": by_depth(mean_of_known(noise, 0), noise_curve),
            "shift": shifts[0],
            "gaussian_shift": shifts[1],
            "shift_gap": shifts[0] - shifts[1],
            "compromise": compromise(attack, noise),
        }

    def flat(attack: Array, noise: Array) -> Array:
        return np.hstack(list(quantities(attack, noise).values()))

    found = iter(row_bootstraps(flat, attack, noise, n_resamples=n_resamples, seed=seed))
    taken: dict[str, Any] = {}
    for name, values in quantities(attack, noise).items():
        each = list(islice(found, np.size(values)))
        taken[name] = each if np.ndim(values) else each[0]
    curves = mean_of_known(attack, 0)
    taken["distance"] = mean_of_known(np.abs(curves[first] - curves[second]), 1).tolist()
    taken |= {
        name: dict(zip(pairs, taken[name], strict=True))
        for name in ("distance", "shift", "gaussian_shift", "shift_gap")
    }
    return Findings(**taken)


def with_enough(attack: Array, noise: Array) -> tuple[Array, Array]:
    """Return similarities (N, S, L) without the layers that have a map under both in fewer than :data:`LEAST` images."""
    pairs = (np.isfinite(attack) & np.isfinite(noise)).any(1).sum(0)
    enough = pairs >= min(LEAST, len(attack) // 2)
    return np.where(enough, attack, np.nan), np.where(enough, noise, np.nan)


def chance_corrected(
    similarity: ArrayLike, others: ArrayLike, *, n_resamples: int = 1000, seed: int = 0
) -> tuple[Array, Array, list[Estimate]]:
    """Return the curve of the floor, that of (c - floor) / (1 - floor), and the correlations of both with depth.

    Args:
        similarity: (N, L) similarities c with the own clean map.
        others: (N, L) those of the clean map with the clean maps of other images, whose mean over images is the floor.
        n_resamples: bootstrap draws of images.
        seed: of the draws.

    Returns:
        The curves (L,), and Spearman's correlations with their intervals over images: of the second curve, of the floor.
    """

    def curve(own: Array, other: Array) -> Array:
        floor = mean_of_known(other, 0)
        return (mean_of_known(own, 0) - floor) / (1 - floor)

    own, other = (np.asarray(each, dtype=np.float64) for each in (similarity, others))

    def depths(own: Array, other: Array) -> list[float]:
        return [depth_correlation(each) for each in (curve(own, other), mean_of_known(other, 0))]

    found = row_bootstraps(depths, own, other, n_resamples=n_resamples, seed=seed)
    return mean_of_known(other, 0), curve(own, other), found


def lowest_layers(similarity: Array) -> Array:
    """Return the share of the examples (N, S, L) whose lowest similarity is that of each layer, (L,).

    It is what ``find_layer_lowest_sim.py`` of the published code counts as the most vulnerable layer: one for each
    example and strength, the first of several. Examples without a defined similarity are left out.
    """
    flat = similarity.reshape(-1, similarity.shape[-1])
    known = flat[np.isfinite(flat).any(1)]
    lowest = np.where(np.isfinite(known), known, np.inf).argmin(1)
    return np.bincount(lowest, minlength=flat.shape[1]) / max(len(known), 1)


def compromised_layers(flags: Array) -> tuple[Array, Array]:
    """Return how many layers each example compromises and how many are defined, (N, S) each, from flags (N, S, L).

    A layer whose map has no content is neither compromised nor not: it is left out of both.
    """
    return np.nansum(flags, 2), np.isfinite(flags).sum(2)


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


def log_variance_ratio(first: Array, second: Array) -> Array:
    """Return log2 of the variance of ``first`` (N, L) over that of ``second``, by layer; NaN where one has none."""
    known = np.isfinite(first) & np.isfinite(second)
    kept = [np.where(known, each, np.nan) for each in (first, second)]
    above, below = (mean_of_known((each - mean_of_known(each, 0)) ** 2, 0) for each in kept)
    there = (above > 0) & (below > 0)
    ratio = np.divide(above, below, out=np.ones_like(above), where=there)
    return np.where(there, np.log2(ratio), np.nan)


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


def lowest_of_known(values: Array) -> float:
    """Return the smallest of ``values`` (L,) that is not NaN; NaN where nothing is left."""
    return float(_known(np.nanmin, values, 0)) if np.isfinite(values).any() else float("nan")


def middle_of_known(values: Array) -> float:
    """Return the median of ``values`` (L,); NaN where nothing is left."""
    return float(median_of_known(values))


def _known(statistic: Callable[..., Array], values: ArrayLike, axis: int | Sequence[int]) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where nothing is left
        return statistic(np.asarray(values, np.float64), axis if isinstance(axis, int) else tuple(axis))
