"""Gaussian blur as two matrix products: exactly linear, so that its gradient is its adjoint, at any border.

The matrix along one side is SciPy's filter applied to unit vectors; a blurred image is ``A X Bᵀ``, for every channel
of every image alike.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Return images blurred by a Gaussian filter, as ``scipy.ndimage.gaussian_filter`` with its defaults.

    The image is mirrored at its border, the border pixel included; the kernel ends at 4 σ. Weights are positive
    and sum to 1, so values stay between the least and the greatest of a channel.

    Args:
        images: (N, C, H, W) floating point.
        sigma: standard deviation of the kernel in pixels, at least 0; below 1/8 ``images`` themselves are returned.

    Returns:
        (N, C, H, W); differentiable with respect to ``images``.
    """
    if 4 * sigma + 0.5 < 1:  # the kernel is the pixel itself; SciPy divides by zero where σ² is
        return images
    rows, columns = (
        torch.from_numpy(_matrix(side, float(sigma))).to(images)
        for side in (images.shape[2], images.shape[3])
    )
    return rows @ images @ columns.T


@lru_cache(maxsize=64)
def _matrix(side: int, sigma: float) -> NDArray[np.float64]:
    """Return the (side, side) matrix that filters a column of pixels."""
    return np.asarray(gaussian_filter1d(np.eye(side), sigma, axis=0))
