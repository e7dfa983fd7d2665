"""What the published code of paper 3 computes, each of its deviations from the text a step of its own.

The code is that of Renkhoff et al. 2022, repository JustusRen/Exploring-Adversarial-Attacks-on-Neural-Networks, files
``DLFuzz/DLFuzz.py`` (the images), ``Grad_CAM.py`` (the pictures of the maps) and ``experiment.py`` (the numbers), as they
stand at commit 6c14757. Nothing of it is used here; each function says what its file does. :class:`Deviations` switches
them one by one, and :mod:`xaicore.studies.layer_similarity` computes what they ask for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor, nn

from xaicore.attribution import grad_cam
from xaicore.attribution.grad_cam import GradCams
from xaicore.attribution.inputs import network_of
from xaicore.metrics.map_comparison import Measure
from xaicore.studies.layer_findings import below, mean_of_known

ALPHA = np.float32(0.4)
"""Weight of the colours in the pictures (``Grad_CAM.py``, ``save_and_display_gradcam``)."""

ROUNDING = 1e-4
"""Grey levels by which a value may miss a whole one and still be it."""


@dataclass(frozen=True)
class Deviations:
    """Which steps are done as in the published code instead of as in the text.

    Attributes:
        drift: the image is overwritten from one strength to the next, see :func:`drifted`.
        pictures: the similarity is that of coloured pictures, see :func:`coloured`.
        threshold: compromised means below one mean over all layers, and random noise is compared with itself at all
            strengths but the first, see :func:`compromise`.
        truncation: perturbed images are rounded down to whole grey levels, see :func:`truncate`.
        softmax: the clean map starts at the softmax, see :func:`softmax_grad_cam`.
        pooled: the boxes of the layers hold the examples of all strengths (``experiment.py`` hands them to ``boxplot``
            together), not those of strength 1.
    """

    drift: bool = False
    pictures: bool = False
    threshold: bool = False
    truncation: bool = False
    softmax: bool = False
    pooled: bool = False

    @classmethod
    def each(cls) -> "dict[str, Deviations]":
        """Return the deviations by name, each on its own."""
        return {field.name: cls(**{field.name: True}) for field in fields(cls)}


CORRECTED = Deviations()
AS_PUBLISHED = Deviations(True, True, True, True, True, True)


def drifted(strengths: Sequence[float]) -> list[tuple[float, float]]:
    """Return what the images of nominal strengths hold in the published code.

    In ``DLFuzz.py`` the image starts as S + N_a. For each strength s in turn, N_a is taken off, s N_a added, and the
    result is the image that the next strength starts from: a_k = a_{k-1} - 1 + s_k, with a_0 = 1. The Gaussian image of
    the same strength is made of what is left after taking off.

    Returns:
        For each strength, in the order of the loop, the multiple of N_a in its adversarial image, and the multiple of N_a
        that its Gaussian image holds beside s N_g. Without the drift these would be s and 0.
    """
    held, found = 1.0, []
    for strength in strengths:
        base = held - 1
        held = base + strength
        found.append((held, base))
    return found


def truncate(images: Tensor) -> Tensor:
    """Return images in [0, 1] as ``astype('uint8')`` stores them: rounded down to whole grey levels of 1/255.

    A perturbation of less than a grey level becomes -1 where it is negative and 0 where not.
    """
    levels = images.double() * 255
    return ((levels + ROUNDING).floor() / 255).to(images.dtype)


def softmax_grad_cam(model: nn.Module, images: Tensor, layers: str | Sequence[str] = "all") -> GradCams:
    """Return the Grad-CAM maps whose gradient starts at the softmax of the predicted class.

    In ``Grad_CAM.py`` the clean images pass through the network as it is, with its softmax; only then is the softmax
    taken off, for the perturbed images. The gradient of p_t is p_t (dz_t - sum_k p_k dz_k): the other classes enter with
    a minus sign, and where p_t rounds to 1 it is zero and with it the map.

    The arguments are those of :func:`xaicore.attribution.grad_cam`.
    """
    prefix = "0." if network_of(model) is model else "0.network."
    inner: str | list[str] = layers if isinstance(layers, str) else [prefix + name for name in layers]
    found = grad_cam(nn.Sequential(model, nn.Softmax(1)), images, None, inner)
    renamed = GradCams({name.removeprefix(prefix): maps for name, maps in found.items()})
    renamed.targets = found.targets
    return renamed


def coloured(images: Callable[[], Tensor], *, overlay: bool) -> Measure:
    """Return the measure of ``experiment.py``: the cosine of two maps as coloured pictures, all three channels in a row.

    Args:
        images: gives the images (N, C, H, W) in [0, 1] of the maps whose turn it is; the pictures have their size.
        overlay: whether the colours are laid over the image. ``Grad_CAM.py`` stores both kinds of picture;
            ``experiment.py`` takes every second file, which is the one without the image if the folder is listed by name.
    """

    def prepare(maps: Tensor) -> Tensor:
        return nn.functional.normalize(pictures(maps, images(), overlay=overlay).flatten(1), dim=1)

    return Measure(prepare, lambda before, after: (before * after).sum(1).double())


def pictures(maps: Tensor, images: Tensor, *, overlay: bool) -> Tensor:
    """Return maps as the pictures of ``Grad_CAM.py``.

    Each map (N, h, w), at least 0, is divided by its maximum, cut into 256 levels, coloured with the colour map jet,
    stretched to 0 … 255, enlarged to the image (N, C, H, W) in [0, 1] (bicubic), weighted with 0.4, laid over the image
    where ``overlay`` asks for that, and stretched again. A map that is zero everywhere is the lowest colour all over.

    Returns:
        (N, H, W, 3) float32, whole numbers from 0 to 255.
    """
    heat = maps.detach().cpu().numpy()
    peak = heat.max((1, 2), keepdims=True)
    share = np.divide(heat, peak, out=np.zeros_like(heat), where=peak > 0)
    levels = (255 * share).astype(np.uint8)
    height, width = images.shape[-2:]
    jet = mpl.colormaps["jet"](np.arange(256))[:, :3].astype(np.float32)
    photographs = 255 * images.detach().cpu().permute(0, 2, 3, 1).numpy() * np.float32(overlay)
    found = np.empty((len(heat), height, width, 3), dtype=np.uint8)
    for row, level in enumerate(levels):
        colours = Image.fromarray(_stretched(jet[level])).resize((width, height), Image.Resampling.BICUBIC)
        found[row] = _stretched(np.asarray(colours, dtype=np.float32) * ALPHA + photographs[row])
    return torch.from_numpy(found).float()


def _stretched(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return values stretched to 0 … 255 and rounded down, as Keras' ``array_to_img`` does."""
    above = picture - picture.min()
    if (highest := above.max()) > 0:
        above /= highest
    return (above * 255).astype(np.uint8)


def compromise(adversarial: ArrayLike, gaussian: ArrayLike) -> NDArray[np.float64]:
    """Return the probability that ``experiment.py`` prints for each strength (``calc_vulnerablility``).

    The similarities (N, S, L), by strength, are averaged over the examples first, which leaves one number for each layer.
    What is counted is the share of layers, (S,) in [0, 1], whose number lies below the mean of all layers under Gaussian
    noise. At the first strength these are the layers under adversarial noise; at all others the code takes the Gaussian
    ones there, too.
    """
    attack, noise = (mean_of_known(each, 0) for each in (adversarial, gaussian))
    compared = np.concatenate([attack[:1], noise[1:]])
    return mean_of_known(below(compared, mean_of_known(noise, 1)[:, None]), 1)


def compromised(adversarial: ArrayLike, gaussian: ArrayLike) -> NDArray[np.float64]:
    """Return which layers are compromised by the rule of :func:`compromise`, with its arguments, example by example.

    The files that can be read hold no code for the paper's Fig. 7; this carries the rule over to single examples, (N, S,
    L): 1 where compromised, 0 where not, NaN where the similarity is undefined.
    """
    attack, noise = (np.asarray(each, dtype=np.float64) for each in (adversarial, gaussian))
    threshold = mean_of_known(mean_of_known(noise, 0), 1)
    return below(np.concatenate([attack[:, :1], noise[:, 1:]], 1), threshold[:, None])
