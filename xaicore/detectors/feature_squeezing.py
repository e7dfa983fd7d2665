r"""Feature squeezing: how much the answer changes when the input loses detail (Xu, Evans and Qi 2018).

.. math:: s(x) = \max_i \| g(x) - g(x^{\text{squeezed by } i}) \|_1, \qquad g = \text{softmax}

Sec. V: the joint detector takes the largest distance over its squeezers; the threshold is the one that at most 5 % of
clean images exceed. Its best squeezers (Table IV): for MNIST 1 bit and the median of 2 x 2; for ImageNet 5 bits, the
median of 2 x 2, and non-local means with an 11 x 11 window, 3 x 3 patches and strength 4.
"""

import re
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.ndimage import median_filter
from skimage.color import lab2xyz, xyz2lab
from skimage.color.colorconv import rgb_from_xyz, xyz_from_rgb
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.detectors.base import Detector
from xaicore.detectors.non_local_means import exact_means

DIGITS = ("bit_depth_1", "median_2")
PHOTOGRAPHS = ("bit_depth_5", "median_2", "non_local_means_11_3_4")
"""The paper's best joint detectors, for MNIST and for ImageNet."""
NAME = re.compile(r"bit_depth_([1-8])|median_(\d+)|non_local_means_(\d+)_(\d+)_(\d+)")


def squeezed(images: Tensor, squeezer: str) -> Tensor:
    """Return images with less detail.

    Args:
        images: (N, C, H, W) float32 in [0, 1]; checked as everywhere, as is the name.
        squeezer: ``bit_depth_B``, B bits a value, rounded to the nearest; ``median_S``, the median of S x S pixels, for
            even S the upper one, as SciPy takes it; ``non_local_means_W_P_H``, window W, patches P, strength H in
            steps of 1/255. The last is what the paper has from OpenCV, without its rounding to 8 bits: colours go to
            L*a*b*, lightness and chromaticity are denoised apart.

    Returns:
        (N, C, H, W) in [0, 1].
    """
    images = checks.images(images).detach()
    bits, side, window, patch, strength = _parsed(squeezer)
    if bits:
        levels = 2**bits - 1
        return (images * levels).round() / levels
    if side:
        filtered = median_filter(images.cpu().numpy(), size=(1, 1, side, side), mode="reflect")
        return torch.from_numpy(np.ascontiguousarray(filtered)).to(images.device)
    return _windowed_means(images, window, patch, strength)


def _windowed_means(images: Tensor, window: int, patch: int, strength: int) -> Tensor:
    """Return what OpenCV's ``fastNlMeansDenoising``, for three channels ``…Colored``, gives but for 8-bit rounding.

    It takes the values for linear light, without sRGB's gamma.
    """
    if images.shape[1] != 3:
        return exact_means(images * 255, window, patch, strength).div_(255).clamp_(0, 1)
    scale = np.array([255 / 100, 1, 1])
    light = images.permute(0, 2, 3, 1).cpu().double().numpy() @ xyz_from_rgb.T
    lab = torch.from_numpy(xyz2lab(light) * scale).permute(0, 3, 1, 2)
    parts = [exact_means(part, window, patch, strength) for part in (lab[:, :1], lab[:, 1:])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of colours that do not exist, which are cut to those that do
        back = lab2xyz(torch.cat(parts, 1).permute(0, 2, 3, 1).numpy() / scale) @ rgb_from_xyz.T
    return torch.from_numpy(back).permute(0, 3, 1, 2).to(images).contiguous().clamp_(0, 1)


class FeatureSqueezing(Detector):
    """The joint detector: the largest L1 distance between the answers to an image and to its squeezed versions.

    Args:
        model: the classifier.
        squeezers: names as in :func:`squeezed`; None: the paper's for ImageNet for colour images, else for MNIST.
        fpr: the share of calibration images that :meth:`flagged` flags at most; the paper has 0.05.
        batch_size: rows of a pass of the network; None: what suits the size of the images.

    References:
        Xu, Evans and Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks, NDSS 2018.
    """

    def __init__(
        self,
        model: nn.Module,
        squeezers: Sequence[str] | None = None,
        *,
        fpr: float = 0.05,
        batch_size: int | None = None,
    ) -> None:
        if squeezers is not None:
            if isinstance(squeezers, str) or not squeezers:
                raise UserError(f"squeezers must be a list of names, not {squeezers!r}")
            for name in squeezers:
                _parsed(name)
        super().__init__(
            model,
            fpr=fpr,
            squeezers=None if squeezers is None else tuple(squeezers),
            batch_size=None if batch_size is None else checks.integer("batch_size", batch_size, least=1),
        )

    def distances(self, images: Tensor) -> Tensor:
        """Return the L1 distance for each squeezer, (N, squeezers) float64 on the CPU, from 0 to 2."""
        return self._distances(checks.images(images).detach(), squeezed).cpu()

    def _distances(self, images: Tensor, squeeze: Callable[[Tensor, str], Tensor]) -> Tensor:
        names = self._settings["squeezers"] or (PHOTOGRAPHS if images.shape[1] == 3 else DIGITS)
        plain, *others = (
            self._logits(each, self._settings["batch_size"]).double().softmax(1)
            for each in (images, *(squeeze(images, name) for name in names))
        )
        return torch.stack([(each - plain).abs().sum(1) for each in others], dim=1)

    def _score(self, images: Tensor) -> Tensor:
        return self.distances(images).amax(1)


def _parsed(squeezer: str) -> tuple[int, int, int, int, int]:
    """Return bits, side of the median, and window, patch and strength of non-local means; 0 where not meant."""
    found = NAME.fullmatch(squeezer) if isinstance(squeezer, str) else None
    numbers = [int(number or 0) for number in found.groups()] if found else []
    if (
        not any(numbers)
        or (found and found[2] and numbers[1] < 1)
        or (found and found[3] and not all(numbers[2:]))
    ):
        raise UserError(f"squeezers must be bit_depth_B, median_S or non_local_means_W_P_H, not {squeezer!r}")
    bits, side, window, patch, strength = numbers
    return bits, side, window, patch, strength
