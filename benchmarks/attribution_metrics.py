"""How fast the metrics are beside the libraries whose numbers they give: scikit-image and scipy, image by image.

A peer gets each map as it is stored, and what it needs done to it first (for the entropy, quantising into 256 bins,
without which it only counts pixels) is part of its time. Our times include our checks. The sides alternate, and the
fastest of each counts. The bootstrap takes as many resamples on both sides, from the same generator in the same way;
with equal seeds the draws are equal, and so are the intervals.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from skimage.measure import shannon_entropy as skimage_entropy
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.measure import clocked, interleaved, versus
from xaicore.metrics import bootstrap_ci, nissim, shannon_entropy

Numbers = np.ndarray
FASTER = 10.0
"""How many times as fast as a loop over images the batched metrics are to be."""


def rows(*, repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Return one row of :func:`benchmarks.measure.versus` for each comparison, times for all n.

    Args:
        repeats: turns of each pair.
        quick: few and small maps, few resamples: does it run?
    """
    count, side, resamples = (3, 28, 50) if quick else (500, 224, 2000)
    maps, attacked = _heatmaps(count, side, seed=0), _heatmaps(count, side, seed=1)
    attacked = 0.7 * maps + 0.3 * attacked
    values = np.random.default_rng(0).exponential(size=count)
    about = f"heatmaps of {side} x {side}"

    def row(
        name: str,
        peer: str,
        about: str,
        ours: Callable[[], Any],
        theirs: Callable[[], Any],
        goal: float,
        note: str,
    ) -> dict[str, Any]:
        expected, found = np.asarray(theirs()), np.asarray(ours())
        sides = {"theirs": partial(clocked, theirs), "ours": partial(clocked, ours)}
        best, _ = interleaved(sides, repeats)
        error = np.abs(found - expected).max() / np.abs(expected).max()
        seconds = best["ours"].seconds, best["theirs"].seconds
        return versus(name, peer, about, count, seconds, error, goal=goal, note=note)

    found = [
        row(
            "nissim",
            "scikit-image structural_similarity",
            about,
            lambda: nissim(maps, attacked),
            lambda: _skimage_nissim(maps, attacked),
            FASTER,
            "uniform window; scikit-image in float32, as the maps are",
        ),
        row(
            "shannon_entropy",
            "scikit-image shannon_entropy",
            about,
            lambda: shannon_entropy(maps),
            lambda: _skimage_entropy(maps),
            FASTER,
            "256 bins of the absolute value over the largest; the peer's maps are quantised in its time",
        ),
    ]
    averages: dict[Literal["mean", "median"], Callable[..., Any]] = {"mean": np.mean, "median": np.median}
    for statistic, function in averages.items():
        found.append(
            row(
                f"bootstrap_ci of a {statistic}",
                "scipy.stats.bootstrap",
                f"{resamples} resamples",
                partial(bootstrap_ci, values, statistic=statistic, n_resamples=resamples),
                partial(_scipy_interval, values, function, resamples),
                1.0,
                "percentile interval, both vectorised; drawing the numbers bounds both",
            )
        )
    return found


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


def _scipy_interval(values: Numbers, statistic: Callable[..., Any], resamples: int) -> Numbers:
    given: dict[str, Any] = {"n_resamples": resamples, "method": "percentile", "vectorized": True}
    found = stats.bootstrap((values,), statistic, rng=np.random.default_rng(0), **given)
    return np.array([found.confidence_interval.low, found.confidence_interval.high])
