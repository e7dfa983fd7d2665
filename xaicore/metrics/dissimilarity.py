"""How far heatmaps shift under an attack: NISSIM, MOD and VID.

Chakraborty, Trehan, Mallat and Dugelay, Generalizing Adversarial Explanations with Grad-CAM, 2022, Sec. 3.
Dissimilarities are those of :func:`nissim`, in [0, 1], NaN where undefined; another shape, no image, or values outside
[0, 1] raise ValueError.
"""

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from xaicore.core.errors import UserError
from xaicore.metrics.checks import defined
from xaicore.metrics.structural import ssim


def nissim(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the normalised inverted structural similarity of heatmaps.

    .. math:: (1 - \mathrm{SSIM}) / 2 \qquad \text{(Eq. 1)}

    Args:
        a: (N, H, W) maps or (N, C, H, W) images in [0, 1], at least 7 x 7.
        b: of the same shape.

    Returns:
        (N,) float64 in [0, 1): 0 for equal maps. A map that is zero everywhere counts as any other: two of them
        have 0. Where such a map means that there is no explanation, set the result to NaN; :func:`mod` and
        :func:`vid` know what to do with it.

    Raises:
        TypeError: not floating-point tensors.
        ValueError: as for :func:`~xaicore.metrics.ssim`, whose 7 x 7 window is used.
    """
    # Rounding may take the similarity of equal maps past 1 by one unit in the last place.
    return ((1 - ssim(a, b)) / 2).clamp(min=0)


def mod(dissimilarities: ArrayLike | Tensor) -> float:
    """Return the mean observed dissimilarity of a test set (N,) at one level of attack (Eq. 2).

    Its interval over images is ``bootstrap_ci(defined(dissimilarities))``.

    Returns:
        The mean of what is defined, in [0, 1]; NaN where nothing is.
    """
    return defined(_checked(dissimilarities, 1, "(N,)")).mean().item()


def vid(dissimilarities: ArrayLike | Tensor) -> Tensor:
    r"""Return the variation in dissimilarity of each image over the levels of an attack (Eq. 3 and 4).

    .. math:: \sqrt{\frac{1}{L} \sum_l (\mathrm{NISSIM}_l - m)^2}, \quad m = \frac{1}{L} \sum_l \mathrm{NISSIM}_l

    Both divisions are by the number L of levels, as printed: the population's standard deviation.

    Args:
        dissimilarities: (N, L), one column per level, at least two. The paper's levels include 0, whose column is 0.

    Returns:
        (N,) float64 in [0, 0.5]; NaN where any level of the image is undefined, since the levels left would not
        compare with those of other images.
    """
    values = _checked(dissimilarities, 2, "(N, levels)")
    if values.shape[1] < 2:
        raise UserError(f"dissimilarities must have at least two levels, not {values.shape[1]}")
    return values.std(1, correction=0)


def _checked(values: ArrayLike | Tensor, dimensions: int, shape: str) -> Tensor:
    tensor = torch.as_tensor(values)
    if tensor.ndim != dimensions or not len(tensor):
        raise UserError(f"dissimilarities must have the shape {shape}, not {tuple(tensor.shape)}")
    tensor = tensor.double()
    if bool(((tensor < 0) | (tensor > 1)).any()):
        raise UserError("dissimilarities must lie in [0, 1]: they are of nissim, not of ssim")
    return tensor
