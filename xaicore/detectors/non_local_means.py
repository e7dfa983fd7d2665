r"""Non-local means denoising of batches, and the noise level it is set by.

.. math:: NL\,u(p) = \frac{1}{C(p)} \sum_q e^{-d(B(p), B(q))^2 / h^2} u(q), \qquad h = \text{strength} \cdot \sigma

Buades, Coll and Morel (IPOL 1, 2011), in the fast form of Darbon et al. (ISBI 2008), which scikit-image computes and
which is called here: with integral images a digit takes (2D + 1)(D + 1) shifts of some thirty operations a pixel for
search distance D, 2 to 8 ms, less than its explanation. It holds no lock, so threads share the images out.

Images are (N, C, H, W) floating point, finite; what is no such tensor raises TypeError, a shape or a number out of range
ValueError.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from skimage.restoration import denoise_nl_means
from torch import Tensor

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.metrics.threads import share_out

DAUBECHIES = np.array([1 - 3**0.5, -(3 - 3**0.5), 3 + 3**0.5, -(1 + 3**0.5)]) / (4 * 2**0.5)
"""High-pass filter of Daubechies' wavelet with two vanishing moments, from the last tap to the first."""


def non_local_means(
    images: Tensor,
    *,
    strength: float = 0.8,
    patch_size: int = 5,
    patch_distance: int = 6,
) -> Tensor:
    """Return denoised images: each pixel becomes a mean of those whose surroundings look alike.

    Every image gives what ``skimage.restoration.denoise_nl_means`` gives with ``fast_mode=True`` and
    ``h=strength * sigma``, sigma being its :func:`noise_level`; one without noise is returned as it is. In that mode
    scikit-image adds up the differences of s - 1 by s - 1 of a patch's s by s pixels and divides by all: for small
    patches it denoises more than the formula, which :func:`exact_means` keeps to.

    Args:
        images: of at least 2 pixels a side.
        strength: how far patches may differ, in standard deviations of the noise, positive; scikit-image's gallery
            takes 0.8 in this mode.
        patch_size: side of the patches that are compared, at least 1; an even number counts as the next odd one.
        patch_distance: how far a patch is looked for, in pixels along each axis, at least 1.

    Returns:
        (N, C, H, W) of the type and on the device of ``images``.

    References:
        Buades, Coll and Morel, Non-Local Means Denoising, Image Processing On Line 1, 2011.
    """
    images = checks.finite("images", images)
    if min(images.shape[2:]) < 2:
        raise UserError(f"images must have sides of at least 2 pixels, not {tuple(images.shape)}")
    checks.positive("strength", strength)
    checks.integer("patch_size", patch_size, least=1)
    checks.integer("patch_distance", patch_distance, least=1)
    levels = noise_level(images)
    layout = images.permute(0, 2, 3, 1).cpu().contiguous().numpy()
    denoised = layout.copy()

    def work(part: slice) -> None:
        for number in range(part.start or 0, part.stop):
            width = strength * float(levels[number])
            if width > 0:
                denoised[number] = denoise_nl_means(
                    layout[number],
                    patch_size=patch_size,
                    patch_distance=patch_distance,
                    h=width,
                    fast_mode=True,
                    channel_axis=-1,
                ).reshape(layout.shape[1:])

    share_out(len(images), work)
    return torch.from_numpy(denoised).permute(0, 3, 1, 2).contiguous().to(images.device)


def exact_means(images: Tensor, window: int, patch: int, strength: float) -> Tensor:
    r"""Return the means by the formula as it stands, all pixels of a patch counted alike: OpenCV's definition.

    :math:`d^2` is the mean squared difference over the pixels and channels of two patches; the image is mirrored at its
    border, which is not repeated.

    Args:
        images: (N, C, H, W) floating point; sides of more than half of window and patch together.
        window: side of the square in which patches are looked for, odd, as that of the patches is.
        patch: side of the patches.
        strength: h, in the units of ``images``, positive.
    """
    reach, half = window // 2, patch // 2
    height, width = images.shape[2:]
    if not window % 2 or not patch % 2 or min(height, width) <= reach + half:
        raise UserError(
            f"window and patch must be odd and fit images of {height} x {width}, not {window} and {patch}"
        )
    wide = torch.nn.functional.pad(images, [reach + half] * 4, mode="reflect")
    centre = wide[..., reach : reach + height + 2 * half, reach : reach + width + 2 * half]
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for down in range(window):
        for right in range(window):
            shifted = wide[..., down : down + height + 2 * half, right : right + width + 2 * half]
            apart = (shifted - centre).square_().mean(1, keepdim=True)
            weight = torch.nn.functional.avg_pool2d(apart, patch, stride=1).div_(-(strength**2)).exp_()
            weights += weight
            total += weight * shifted[..., half : half + height, half : half + width]
    return total / weights


def noise_level(images: Tensor) -> Tensor:
    """Return the standard deviation of the noise in each image, (N,) float64 on the CPU, the mean over channels.

    The median absolute wavelet coefficient of the diagonal detail over that of a standard normal variable, wholly
    black patches left out: the estimate of ``skimage.restoration.estimate_sigma`` with ``average_sigmas=True``, which
    leaves out exact zeros. The two part where the coefficient of a patch with light in it is zero to the last bit by
    chance. 0 for a black channel.

    References:
        Donoho and Johnstone, Ideal spatial adaptation by wavelet shrinkage, Biometrika 81, 1994.
    """
    images = checks.finite("images", images)
    rows, columns = (torch.from_numpy(_detail_matrix(side)) for side in images.shape[2:])
    levels = torch.zeros(images.shape[:2], dtype=torch.float64)
    for number, image in enumerate(images.cpu()):
        details = (rows @ image.double() @ columns.T).abs_().flatten(1)
        lit = rows.abs() @ (image != 0).double() @ columns.abs().T > 0
        for channel, values in enumerate(details):
            kept = values[lit[channel].flatten()].numpy()
            levels[number, channel] = float(np.median(kept)) if len(kept) else 0.0
    return levels.mean(1) / float(norm.ppf(0.75))


@lru_cache(maxsize=16)
def _detail_matrix(side: int) -> NDArray[np.float64]:
    """Return the matrix (about side / 2, side) of every other value of a mirrored signal's high-pass filter."""
    places = np.pad(np.arange(side), 3, mode="symmetric")
    matrix = np.zeros(((side + 3) // 2, side))
    for row in range(len(matrix)):
        for tap, weight in enumerate(DAUBECHIES):
            matrix[row, places[2 * row + 1 + tap]] += weight
    return matrix
