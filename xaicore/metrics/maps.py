r"""Numbers from heatmaps: how alike two are, how rough and how spread out one is.

Maps are finite, (N, C, H, W) or (N, H, W); channels are added up first, so that a pixel has one relevance. Every
result is a float64 tensor (N,) on the device of the maps, one number per image. All raise TypeError for what is no
floating-point tensor, and ValueError for a wrong shape, two shapes that differ, or values that are not finite.
"""

import math

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.metrics.checks import single_maps
from xaicore.metrics.threads import share_out


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation of two maps over their pixels, with average ranks for ties.

    Returns:
        (N,) in [-1, 1]: 1 the same order of pixels, 0 unrelated, -1 reversed; NaN where a map is constant.
    """
    return _cosine(*(_centred_ranks(maps) for maps in _pair(a, b)))


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine between two maps, raw relevance and not colours, taken as vectors of pixels.

    Returns:
        (N,) in [-1, 1]; NaN where a map is zero everywhere, for which the cosine is not defined.
    """
    return _cosine(*(_scaled(maps).flatten(1) for maps in _pair(a, b)))


def total_variation(maps: Tensor) -> Tensor:
    r"""Return the mean absolute difference of neighbouring pixels, relative to the largest absolute value.

    .. math:: \frac{1}{\max|m|} \frac{\sum_{i,j} |m_{i+1,j}-m_{i,j}| + |m_{i,j+1}-m_{i,j}|}{(H-1)W + H(W-1)}

    The anisotropic total variation (after Rudin, Osher and Fatemi, Physica D 60, 1992), made independent
    of the map's scale and size. Maps have at least two pixels.

    Returns:
        (N,) in [0, 2]: 0 for a constant map, 2 for one that alternates between −m and m.
    """
    values = _scaled(single_maps("maps", maps))
    _, height, width = values.shape
    if height * width < 2:
        raise UserError("maps must have at least two pixels")
    total = values.diff(dim=1).abs().sum((1, 2)) + values.diff(dim=2).abs().sum((1, 2))
    return total / ((height - 1) * width + height * (width - 1))


def shannon_entropy(maps: Tensor, *, bins: int = 256) -> Tensor:
    r"""Return the entropy of the histogram of a map's absolute values, in bits.

    .. math:: -\sum_k p_k \log_2 p_k

    :math:`p_k` is the share of pixels with :math:`|m|/\max|m|` in bin k of ``bins`` equal ones over [0, 1]
    (Shannon 1948). Values are binned first: on raw floats, which are all different, an entropy only
    counts pixels.

    Args:
        maps: as for all functions here.
        bins: number of bins, at least 2.

    Returns:
        (N,) in [0, log2(bins)]: 0 for a map whose absolute value is constant, which a zero map is too.
    """
    from xaicore.metrics.kernels import histograms  # numba takes half a second to load

    checks.integer("bins", bins, least=2)
    values = checks.finite("maps", maps, checks.MAPS)
    values = values.sum(1, dtype=torch.float64) if values.ndim == 4 else values
    array = values.to(torch.promote_types(values.dtype, torch.float32)).cpu().contiguous().numpy()
    counts = np.zeros((len(values), bins), dtype=np.int64)
    share_out(len(values), lambda part: histograms(array[part], counts[part]))
    shares = torch.from_numpy(counts).double() / math.prod(values.shape[1:])
    nats: Tensor = torch.special.entr(shares).sum(1).to(values.device)
    return nats / math.log(2)


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    first, second = single_maps("a", a), single_maps("b", b)
    checks.same_shape("a and b", first, second)
    return first, second


def _scaled(maps: Tensor) -> Tensor:
    """Return maps (N, H, W) over their largest absolute value; zero maps stay zero."""
    largest = maps.abs().amax((1, 2), keepdim=True)
    return maps / largest.where(largest > 0, 1)


def _centred_ranks(maps: Tensor) -> Tensor:
    ranks = torch.from_numpy(rankdata(maps.flatten(1).cpu().numpy(), axis=1)).to(maps)
    return ranks - (ranks.shape[1] + 1) / 2


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    lengths = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
    return ((a * b).sum(1) / lengths.where(lengths > 0, torch.nan)).clamp(-1, 1)
