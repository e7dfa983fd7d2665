r"""The structural similarity index of images and heatmaps (Wang et al. 2004), equal to scikit-image's.

In a window around every pixel it compares means, variances and covariance:

.. math:: \frac{(2\mu_a\mu_b + C_1)(2\sigma_{ab} + C_2)}{(\mu_a^2 + \mu_b^2 + C_1)(\sigma_a^2 + \sigma_b^2 + C_2)}

with :math:`C_1 = 0.01^2`, :math:`C_2 = 0.03^2` for values in [0, 1]. The index of a pair is the mean over
all windows that lie inside the image. Sums are float64: a variance is a small difference of large numbers, and
:math:`C_2` is only 0.0009.
"""

import math

import numpy as np
import torch
from torch import Tensor

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.metrics.threads import share_out

SIDE = 7
"""Rows and columns of the window."""
C1, C2 = 0.01**2, 0.03**2
ROUNDING = 1e-6
"""By how much resizing may leave the range."""


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the structural similarity of images, as ``skimage.metrics.structural_similarity`` of each.

    The window is uniform, 7 x 7, with sample covariances (scikit-image's default); the data range is 1, the one that
    values can have, not the one they happen to have.

    Args:
        a: (N, H, W) maps or (N, C, H, W) images in [0, 1]; of channels the mean is taken.
        b: of the same shape.

    Returns:
        (N,) float64 in (-1, 1] on the device of ``a``: 1 for equal images, near -1 for a rich image and its negative.
        It is defined for constant images too, where only the means count: two equal ones have 1, also two that are
        zero everywhere.

    Raises:
        TypeError: not floating-point tensors.
        ValueError: shapes differ, are smaller than the window, or values lie outside [0, 1] or are not finite.

    References:
        Wang, Bovik, Sheikh and Simoncelli, Image quality assessment, IEEE Trans. Image Processing 13, 2004, Eq. 13.
    """
    from xaicore.metrics.kernels import uniform_ssim  # numba takes half a second to load

    first, second = checks.floating("a", a, checks.MAPS), checks.floating("b", b, checks.MAPS)
    checks.same_shape("a and b", first, second)
    height, width = first.shape[-2:]
    if min(height, width) < SIDE:
        raise UserError(f"a and b must be at least {SIDE} x {SIDE} pixels, not {height} x {width}")
    for values, name in ((first, "a"), (second, "b")):
        checks.within(name, values, 1.0, slack=ROUNDING)
    kind = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    p, q = (
        values.to(kind).reshape(-1, height, width).cpu().contiguous().numpy() for values in (first, second)
    )
    result = np.empty(len(p))
    share_out(len(p), lambda part: uniform_ssim(p[part], q[part], C1, C2, result[part]))
    found = torch.from_numpy(result).to(first.device)
    return found.reshape(len(first), math.prod(first.shape[1:-2])).mean(1)
