"""Where a heatmap is strong: its binary mask, how much of the image that covers, and how far two masks agree.

Masks are (N, H, W) booleans. All raise TypeError for tensors of another kind, and ValueError for another shape, shapes
that differ, or values that are not finite.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xaicore.core import checks


def relevance_mask(maps: Tensor, *, k_std: float = 2.0) -> Tensor:
    r"""Return the pixels whose relevance exceeds the map's mean by some standard deviations.

    .. math:: |r|_i > \overline{|r|} + k\,s

    The relevance of a pixel is the sum of its channels' absolute values, the standard deviation s that of the
    population of pixels.

    Args:
        maps: (N, C, H, W) or (N, H, W), finite.
        k_std: k, finite; the paper's 2 leaves about the top 5 %.

    Returns:
        (N, H, W) booleans; all false for a constant map.

    References:
        Brama and Grinshpoun, Heat and Blur, 2020, Eq. 2.
    """
    checks.number("k_std", k_std)
    values = checks.finite("maps", maps, checks.MAPS).double().abs()
    values = values.sum(1) if values.ndim == 4 else values
    pixels = values.flatten(1)
    threshold = pixels.mean(1) + k_std * pixels.std(1, correction=0)
    varied = pixels.amax(1) > pixels.amin(1)
    return (values > threshold[:, None, None]) & varied[:, None, None]


def mask_fraction(masks: Tensor) -> Tensor:
    """Return the share of each mask's pixels that are true, (N,) float64."""
    return checks.booleans("masks", masks).flatten(1).double().mean(1)


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of masks (Jaccard's index).

    Returns:
        (N,) float64 in [0, 1]: 1 for equal masks, 0 for disjoint ones; NaN where both are empty.
    """
    first, second = checks.booleans("a", a), checks.booleans("b", b)
    checks.same_shape("a and b", first, second)
    return (first & second).sum((1, 2)).double() / (first | second).sum((1, 2))  # 0 / 0 is NaN


def mean_iou_with_others(masks: Tensor) -> NDArray[np.float64]:
    """Return the mean overlap of each mask with those of all other images, what chance gives.

    Returns:
        (N,) in [0, 1]; NaN for a single mask, and where an overlap of :func:`mask_iou` is undefined.
    """
    overlaps = [mask_iou(masks, masks.roll(shift, 0)).numpy() for shift in range(1, len(masks))]
    return np.mean(overlaps, 0) if overlaps else np.full(len(masks), np.nan)
