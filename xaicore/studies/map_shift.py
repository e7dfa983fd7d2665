"""How far explanations move, by every measure the papers use, all turned so that a larger number is a larger shift.

Paper 1 compares maps by rank, paper 2 by NISSIM, paper 3 by the cosine, paper 4 by the overlap of the masks it keeps,
paper 5 by the entropy.
"""

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from xaicore import metrics


def compare(before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Return how alike finite maps (N, H, W) of two versions of the same images are, (N,) float64 each, as the metrics
    say it; NaN where a measure is not defined.

    Returns:
        ``nissim`` of the absolute maps over their largest values, ``cosine``, ``rank`` (Spearman's correlation),
        ``iou`` of the masks at two standard deviations, and ``entropy`` after less entropy before, in bits.

    Raises:
        ValueError: shapes do not fit, or a value is not finite.
    """

    def unit_scaled(maps: Tensor) -> Tensor:
        return maps.abs() / maps.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)

    masks = metrics.relevance_mask(before), metrics.relevance_mask(after)
    return {
        "nissim": metrics.nissim(unit_scaled(before), unit_scaled(after)),
        "cosine": metrics.cosine_similarity(before, after),
        "rank": metrics.rank_correlation(before, after),
        "iou": metrics.mask_iou(*masks),
        "entropy": metrics.shannon_entropy(after) - metrics.shannon_entropy(before),
    }


SHIFTS: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {
    "NISSIM": lambda found: found["nissim"],
    "1 − cosine": lambda found: 1 - found["cosine"],
    "1 − rank": lambda found: 1 - found["rank"],
    "1 − IoU": lambda found: 1 - found["iou"],
    "|Δ entropy|": lambda found: found["entropy"].abs(),
}
"""Name of a shift to what it makes of :func:`compare`."""


def map_shifts(before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Return every measure of :data:`SHIFTS`, (N,) float64 each; NaN for an image one of whose maps is zero everywhere.

    The arguments and errors are those of :func:`compare`.
    """
    found = compare(before, after)
    known = ((before != 0).flatten(1).any(1) & (after != 0).flatten(1).any(1)).to(found["nissim"].device)
    return {name: shift(found).where(known, torch.nan) for name, shift in SHIFTS.items()}


def agreement(values: Mapping[str, NDArray[np.float64]], cases: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how alike measures rank images, (M, M): Spearman's correlation within each case, averaged over cases.

    Within a case, say one explanation and one attack, what differs is the image alone. Averages weigh cases by their
    number of images; a case in which a measure is undefined for all but two images, or constant, is left out. The values
    are name to (N,) numbers, NaN where undefined; ``cases`` (N,) has the number of the case of each.
    """
    names = list(values)
    matrix = np.eye(len(names))
    for i, j in combinations(range(len(names)), 2):
        total, weight = 0.0, 0
        for case in np.unique(cases):
            a, b = (values[names[k]][cases == case] for k in (j, i))
            both = np.isfinite(a) & np.isfinite(b)
            if both.sum() >= 3 and np.ptp(a[both]) > 0 and np.ptp(b[both]) > 0:
                correlation = np.corrcoef(rankdata(a[both]), rankdata(b[both]))[0, 1]
                total, weight = total + correlation * both.sum(), weight + int(both.sum())
        matrix[i, j] = matrix[j, i] = total / weight if weight else np.nan
    return matrix
