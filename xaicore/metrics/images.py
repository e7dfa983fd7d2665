"""How far an image is from another: peak signal-to-noise ratio, and the norms of a perturbation."""

from typing import NamedTuple

import torch
from torch import Tensor

from xaicore.core import checks


class Norms(NamedTuple):
    """Norms of a perturbation, (N,) each.

    Attributes:
        l0: number of changed pixels (a pixel counts once, whichever of its channels changed), int64.
        l2: Euclidean norm over all pixels and channels, float64.
        linf: largest absolute change, float64.
    """

    l0: Tensor
    l2: Tensor
    linf: Tensor


def norms(delta: Tensor) -> Norms:
    """Return the L0, L2 and L-infinity norms of perturbations (N, C, H, W) or (N, H, W) in the units of the images.

    Another shape, or values that are not finite, raise ValueError.
    """
    values = checks.finite("delta", delta, checks.MAPS).double()
    values = values[:, None] if values.ndim == 3 else values
    changed = (values != 0).any(1).sum((1, 2))
    return Norms(changed, values.square().sum((1, 2, 3)).sqrt(), values.abs().amax((1, 2, 3)))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the peak signal-to-noise ratio of images in [0, 1], in decibel.

    .. math:: -10 \log_{10} \frac{1}{CHW} \sum (a - b)^2

    Args:
        a: (N, C, H, W) or (N, H, W) in [0, 1].
        b: images of the same shape.

    Returns:
        (N,) float64, at least 0; infinite where the images are equal.

    Raises:
        ValueError: shapes differ, or values lie outside [0, 1] or are not finite.
    """
    first, second = checks.floating("a", a, checks.MAPS), checks.floating("b", b, checks.MAPS)
    checks.same_shape("a and b", first, second)
    checks.within("a", first, 1.0)
    checks.within("b", second, 1.0)
    return -10 * torch.log10((first.double() - second.double()).square().flatten(1).mean(1))
