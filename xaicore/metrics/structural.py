r"""The structural similarity index of images and heatmaps (Wang et al. 2004), equal to scikit-image's.

In a window around every pixel it compares means, variances and covariance:

.. math:: \frac{(2\mu_a\mu_b + C_1)(2\sigma_{ab} + C_2)}{(\mu_a^2 + \mu_b^2 + C_1)(\sigma_a^2 + \sigma_b^2 + C_2)}

with :math:`C_1 = (0.01 R)^2`, :math:`C_2 = (0.03 R)^2` for values in [0, R]. The index of a pair is the mean over
all windows that lie inside the image. Sums are float64: a variance is a small difference of large numbers, and
:math:`C_2` is only 0.0009.
"""

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from xaicore.metrics.checks import floating, same_shape, within
from xaicore.metrics.threads import share_out

Window = Literal["uniform", "gaussian"]

UNIFORM = 7
"""Rows and columns of the uniform window."""
SIGMA, RADIUS = 1.5, 5
"""Standard deviation of the Gaussian window, and its reach on each side, in pixels."""
ROUNDING = 1e-6
"""By how much, relative to the range, resizing may leave it."""
VALUES_AT_ONCE = 1_000_000


def ssim(a: Tensor, b: Tensor, *, window: Window = "uniform", data_range: float = 1.0) -> Tensor:
    """Return the structural similarity of images, as ``skimage.metrics.structural_similarity`` of each.

    Args:
        a: (N, H, W) maps or (N, C, H, W) images in [0, data_range]; of channels the mean is taken.
        b: of the same shape.
        window: ``"uniform"``, 7 x 7 with sample covariances (scikit-image's default), or ``"gaussian"``, 11 x 11
            with a standard deviation of 1.5 and population covariances (as in Wang et al.).
        data_range: the range R that values can have, not the one they happen to have.

    Returns:
        (N,) float64 in (-1, 1] on the device of ``a``: 1 for equal images. It is defined for constant images too,
        where only the means count: two equal ones have 1, also two that are zero everywhere.

    Raises:
        TypeError: not floating-point tensors.
        ValueError: shapes differ, are smaller than the window, or values lie outside of the range or are not finite.

    References:
        Wang, Bovik, Sheikh and Simoncelli, Image quality assessment, IEEE Trans. Image Processing 13, 2004, Eq. 13.
    """
    first, second = floating(a, "a"), floating(b, "b")
    same_shape(first, second)
    if window not in get_args(Window):
        raise ValueError(f"window must be one of {', '.join(get_args(Window))}, not {window!r}")
    if not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be positive, not {data_range}")
    side = UNIFORM if window == "uniform" else 2 * RADIUS + 1
    height, width = first.shape[-2:]
    if min(height, width) < side:
        raise ValueError(
            f"a and b must be at least {side} x {side} pixels for the {window} window, not {height} x {width}"
        )
    for values, name in ((first, "a"), (second, "b")):
        within(values, name, data_range, slack=ROUNDING * data_range)
    kind = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    p, q = (values.to(kind).reshape(-1, height, width) for values in (first, second))
    if data_range != 1:
        p, q = p.double() / data_range, q.double() / data_range
    if window == "uniform" and first.device.type == "cpu":
        found = _compiled(p, q)
    else:
        found = _windowed(p, q, window)
    return found.reshape(len(first), math.prod(first.shape[1:-2])).mean(1)


def _compiled(a: Tensor, b: Tensor) -> Tensor:
    """Return the index under the uniform window of planes (M, H, W) on the CPU, (M,)."""
    from xaicore.metrics.kernels import uniform_ssim  # numba takes half a second to load

    first, second = a.contiguous().numpy(), b.contiguous().numpy()
    result = np.empty(len(first))
    share_out(
        len(first), lambda part: uniform_ssim(first[part], second[part], 0.01**2, 0.03**2, result[part])
    )
    return torch.from_numpy(result)


def _windowed(a: Tensor, b: Tensor, window: Window) -> Tensor:
    """Return the index of planes (M, H, W) on any device, (M,)."""
    if window == "uniform":
        weights, unbiased = [1 / UNIFORM] * UNIFORM, UNIFORM**2 / (UNIFORM**2 - 1)
    else:
        bell = [math.exp(-0.5 * (x / SIGMA) ** 2) for x in range(-RADIUS, RADIUS + 1)]
        weights, unbiased = [weight / sum(bell) for weight in bell], 1.0
    step = max(1, VALUES_AT_ONCE // a[0].numel()) if len(a) else 1
    found = [a.new_empty(0, dtype=torch.float64)]
    for p, q in zip(a.split(step), b.split(step), strict=True):
        p, q = p.double(), q.double()
        mean_p, mean_q, mean_pq, mean_squares = _means(torch.stack([p, q, p * q, p * p + q * q]), weights)
        product, squares = mean_p * mean_q, mean_p**2 + mean_q**2
        covariance, variances = unbiased * (mean_pq - product), unbiased * (mean_squares - squares)
        index = (2 * product + 0.01**2) * (2 * covariance + 0.03**2)
        index /= (squares + 0.01**2) * (variances + 0.03**2)
        found.append(index.mean((1, 2)))
    return torch.cat(found)


def _means(values: Tensor, weights: list[float]) -> Tensor:
    """Return the weighted means over windows of (…, H, W) inside of it, by rows and then by columns."""
    for axis in (-2, -1):
        places = values.shape[axis] - len(weights) + 1
        total = weights[0] * values.narrow(axis, 0, places)
        for offset, weight in enumerate(weights[1:], start=1):
            total.add_(values.narrow(axis, offset, places), alpha=weight)
        values = total
    return values
