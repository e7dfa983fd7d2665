"""How far explanations move, by every measure the papers use, all turned so that a larger number is a larger shift.

Paper 1 compares maps by rank, paper 2 by NISSIM, paper 3 by the cosine, paper 4 by the overlap of the masks it keeps,
paper 5 by the entropy.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from xaicore import metrics


def unit_scaled(maps: Tensor) -> Tensor:
    """Return absolute maps (N, H, W) over their own maximum, in [0, 1]; a zero map stays zero."""
    absolute = maps.abs()
    return absolute / absolute.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)


def _entropy_change(before: Tensor, after: Tensor) -> Tensor:
    return (metrics.shannon_entropy(after) - metrics.shannon_entropy(before)).abs()


SHIFTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "NISSIM": lambda before, after: metrics.nissim(unit_scaled(before), unit_scaled(after)),
    "1 − cosine": lambda before, after: 1 - metrics.cosine_similarity(before, after),
    "1 − rank": lambda before, after: 1 - metrics.rank_correlation(before, after),
    "1 − IoU": lambda before, after: (
        1 - metrics.mask_iou(metrics.relevance_mask(before), metrics.relevance_mask(after))
    ),
    "|Δ entropy|": _entropy_change,
}
"""Name of a measure to function of two sets of maps (N, H, W)."""


def map_shifts(before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Return every measure of :data:`SHIFTS`, (N,) float64 each; NaN for an image whose measure is not defined.

    Args:
        before: (N, H, W) finite maps.
        after: maps of the same shape, of other versions of the same images.

    Raises:
        ValueError: shapes do not fit, or a value is not finite.
    """
    known = (before.flatten(1).abs().amax(1) > 0) & (after.flatten(1).abs().amax(1) > 0)
    shifts = {name: measure(before, after).double() for name, measure in SHIFTS.items()}
    return {name: values.where(known.to(values.device), float("nan")) for name, values in shifts.items()}


def agreement(values: Mapping[str, NDArray[np.float64]], cases: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how alike measures rank images, (M, M): Spearman's correlation within each case, averaged over cases.

    Within a case, say one explanation and one attack, what differs is the image alone. Averages weigh cases by their
    number of images; a case in which a measure is undefined for all but two images, or constant, is left out.

    Args:
        values: name to (N,) numbers, NaN where undefined.
        cases: (N,) number of the case of each.
    """
    names = list(values)
    matrix = np.eye(len(names))
    for i, first in enumerate(names):
        for j in range(i):
            total, weight = 0.0, 0
            for case in np.unique(cases):
                a, b = values[first][cases == case], values[names[j]][cases == case]
                both = np.isfinite(a) & np.isfinite(b)
                if both.sum() < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
                    continue
                correlation = np.corrcoef(rankdata(a[both]), rankdata(b[both]))[0, 1]
                total, weight = total + correlation * both.sum(), weight + int(both.sum())
            matrix[i, j] = matrix[j, i] = total / weight if weight else np.nan
    return matrix
