"""How fast the metrics are beside the libraries whose numbers they give: scikit-image and scipy, image by image.

A peer gets each map as it is stored, and what it needs done to it first (for the entropy, quantising into 256 bins,
without which it only counts pixels) is part of its time. Our times include our checks. The sides alternate, and the
fastest of each counts. The bootstrap takes as many resamples on both sides, from the same generator in the same way;
with equal seeds the draws are equal, and so are the intervals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from skimage.measure import shannon_entropy as skimage_entropy
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.measure import clocked, interleaved
from xaicore.metrics import bootstrap_ci, nissim, shannon_entropy

Numbers = np.ndarray
FASTER = 10.0
"""How many times as fast as a loop over images the batched metrics are to be."""


@dataclass(frozen=True)
class Pair:
    """A metric and its peer's on the same data; each call gives the numbers that are compared."""

    name: str
    peer: str
    subject: str
    n: int
    ours: Callable[[], Numbers]
    theirs: Callable[[], Numbers]
    goal: float | None
    note: str


def rows(*, repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Return one row for each comparison.

    Args:
        repeats: turns of each pair.
        quick: few and small maps, few resamples: does it run?

    Returns:
        Dicts ``{name, peer, subject, n, ours_ms, peer_ms, ratio, goal, met, max_relative_error, note}``: times in
        milliseconds for all n, ratio the peer's time over ours, goal the least ratio wanted or None.
    """
    return [_row(pair, repeats) for pair in _pairs(quick)]


def _pairs(quick: bool) -> list[Pair]:
    count, side, resamples = (3, 28, 50) if quick else (500, 224, 2000)
    maps, attacked = _heatmaps(count, side, seed=0), _heatmaps(count, side, seed=1)
    attacked = 0.7 * maps + 0.3 * attacked
    values = np.random.default_rng(0).exponential(size=count)
    about = f"heatmaps of {side} x {side}"
    pairs = [
        Pair(
            "nissim",
            "scikit-image structural_similarity",
            about,
            count,
            lambda: nissim(maps, attacked).numpy(),
            lambda: _skimage_nissim(maps, attacked),
            FASTER,
            "uniform window; scikit-image in float32, as the maps are",
        ),
        Pair(
            "shannon_entropy",
            "scikit-image shannon_entropy",
            about,
            count,
            lambda: shannon_entropy(maps).numpy(),
            lambda: _skimage_entropy(maps),
            FASTER,
            "256 bins of the absolute value over the largest; the peer's maps are quantised in its time",
        ),
    ]
    averages: dict[Literal["mean", "median"], Callable[..., Any]] = {"mean": np.mean, "median": np.median}
    for statistic, function in averages.items():
        pairs.append(
            Pair(
                f"bootstrap_ci of a {statistic}",
                "scipy.stats.bootstrap",
                f"{resamples} resamples",
                count,
                partial(_our_interval, values, statistic, resamples),
                partial(_scipy_interval, values, function, resamples),
                1.0,
                "percentile interval, both vectorised; drawing the numbers bounds both",
            )
        )
    return pairs


def _row(pair: Pair, repeats: int) -> dict[str, Any]:
    expected, found = pair.theirs(), pair.ours()
    best, _ = interleaved(
        {"theirs": partial(clocked, pair.theirs), "ours": partial(clocked, pair.ours)}, repeats
    )
    theirs, ours = best["theirs"].seconds, best["ours"].seconds
    ratio = theirs / ours
    scale = np.abs(expected).max()
    return {
        "name": pair.name,
        "peer": pair.peer,
        "subject": pair.subject,
        "n": pair.n,
        "ours_ms": 1e3 * ours,
        "peer_ms": 1e3 * theirs,
        "ratio": ratio,
        "goal": pair.goal,
        "met": pair.goal is None or ratio >= pair.goal,
        "max_relative_error": float(np.abs(found - expected).max() / scale),
        "note": pair.note,
    }


def _heatmaps(count: int, side: int, seed: int) -> Tensor:
    """Return maps (count, side, side) in [0, 1] such as Grad-CAM gives: 14 x 14 values, none negative, enlarged."""
    coarse = torch.randn(count, 1, 14, 14, generator=torch.Generator().manual_seed(seed)).relu()
    maps = interpolate(coarse, size=(side, side), mode="bilinear").squeeze(1)
    return maps / maps.amax((1, 2), keepdim=True)


def _skimage_nissim(a: Tensor, b: Tensor) -> Numbers:
    pairs = zip(a.numpy(), b.numpy(), strict=True)
    return np.array([(1 - structural_similarity(x, y, data_range=1.0)) / 2 for x, y in pairs])


def _skimage_entropy(maps: Tensor) -> Numbers:
    def quantised(values: Numbers) -> Numbers:
        share = np.abs(values.astype(np.float64))
        return np.minimum(share / share.max() * 256, 255).astype(np.uint8)

    return np.array([skimage_entropy(quantised(values)) for values in maps.numpy()])


def _our_interval(values: Numbers, statistic: Literal["mean", "median"], resamples: int) -> Numbers:
    return np.array(bootstrap_ci(values, statistic=statistic, n_resamples=resamples))


def _scipy_interval(values: Numbers, statistic: Callable[..., Any], resamples: int) -> Numbers:
    found = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=resamples,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return np.array([found.confidence_interval.low, found.confidence_interval.high])
