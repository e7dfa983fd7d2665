r"""The scores of the detectors of chapter 5 as functions that an attacker can differentiate.

An attacker who knows a detector takes its gradient, and where it has none puts something in its place for the way back
only (backward pass differentiable approximation, Athalye, Carlini and Wagner, ICML 2018, Sec. 4.1):

- MagNet is differentiable as it stands, as are others that say so (:attr:`Detector.differentiable`);
- of feature squeezing the median has a gradient; on the way back rounding counts as a row of logistic steps, non-local
  means as the identity;
- of EXPLAINER denoising counts as the identity, the gradients within a map as constants, which they are almost
  everywhere in a network with ReLUs, so that a map depends on the image by its factor alone; and the histogram gets soft,
  wider bins. Maps without such a factor (plain gradient, DeepLIFT, Grad-CAM) count as constants: there is no slope.

The values are always those of the detector itself; only slopes are approximate.
"""

from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from xaicore.core.errors import UserError
from xaicore.detectors.base import Detector
from xaicore.detectors.explainer import PATHS, Explainer
from xaicore.detectors.feature_squeezing import FeatureSqueezing, squeezed
from xaicore.metrics import shannon_entropy

SOFT_BINS = 32
"""Bins of the soft histogram: wider than those of the entropy itself, so that a value feels more than its neighbours."""

STEEPNESS = 8.0


@singledispatch
def differentiable_score(detector: Detector, images: Tensor) -> Tensor:
    """Return the detector's scores with a slope, (N,), for images (N, C, H, W) in [0, 1] on the model's device.

    The images require a slope, the model is in eval mode. Raises UserError for a detector that is not differentiable and
    has no surrogate.
    """
    if not detector.differentiable:
        raise UserError(
            f"detector must have a surrogate for its gradient, which {type(detector).__name__} has not"
        )
    return detector._score(images).to(images.device)


@differentiable_score.register
def _(detector: FeatureSqueezing, images: Tensor) -> Tensor:
    return detector._distances(images, _squeezed).amax(1)


@differentiable_score.register
def _(detector: Explainer, images: Tensor) -> Tensor:
    cleaned = _through(images, detector.denoised(images.detach()))
    classes = [detector.model(each.detach().clone()).argmax(1) for each in (images, cleaned)]
    if detector._settings["hold_class"]:
        classes[1] = classes[0]
    before, after = (
        _entropy(_map(detector, each, targets), detector._settings["bins"])
        for each, targets in zip((images, cleaned), classes, strict=True)
    )
    return after - before


def _through(images: Tensor, changed: Tensor) -> Tensor:
    """Return ``changed`` with the slope of ``images``."""
    return images + (changed - images).detach()


def _squeezed(images: Tensor, name: str) -> Tensor:
    """Return squeezed images: the median with its own slope, rounding with soft steps', others with the identity's."""
    if name.startswith("bit_depth_"):
        levels = 2 ** int(name.removeprefix("bit_depth_")) - 1
        soft = torch.sigmoid(STEEPNESS * ((images * levels).frac() - 0.5)) / levels
        return _through(soft, squeezed(images, name))
    if not name.startswith("median_"):
        return _through(images, squeezed(images, name))
    side = int(name.removeprefix("median_"))
    height, width = images.shape[2:]
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(n), (side // 2, side - 1 - side // 2), mode="symmetric"))
        for n in (height, width)
    )
    windows = images[:, :, rows.to(images.device)][..., columns.to(images.device)]
    windows = windows.unfold(2, side, 1).unfold(3, side, 1).flatten(4)
    return windows.sort(4).values[..., side * side // 2]


def _map(detector: Explainer, images: Tensor, targets: Tensor) -> Tensor:
    """Return the detector's maps (N, H, W), as functions of the image by its factor alone."""
    if detector.explanation not in PATHS:
        return detector.maps(images.detach(), targets)
    total = torch.zeros_like(images)
    for start, noise, place, weight in zip(
        *(each.to(images.device) for each in detector.ways(images.shape[1:])), strict=True
    ):
        end = images + noise
        way = end - start
        point = (end - (1 - place) * way).detach().requires_grad_()
        chosen = detector.model(point.clone()).gather(1, targets[:, None])
        total = total + weight * torch.autograd.grad(chosen.sum(), point)[0] * way
    return total.sum(1)


def _entropy(maps: Tensor, bins: int) -> Tensor:
    """Return the entropy (N,) of maps in ``bins`` equal bins, with the slope of that in soft, wider ones."""
    values = maps.abs().flatten(1)
    peak = values.amax(1, keepdim=True)
    places = values / peak.where(peak > 0, 1) * (SOFT_BINS - 1)
    low = places.detach().floor().clamp(max=SOFT_BINS - 2)
    share = places - low
    counts = torch.zeros(len(maps), SOFT_BINS, dtype=maps.dtype, device=maps.device)
    counts = counts.scatter_add(1, low.long(), 1 - share).scatter_add(1, low.long() + 1, share)
    soft = torch.special.entr(counts.clamp(min=1e-6) / values.shape[1]).sum(1) / float(np.log(2))
    return _through(soft.double(), shannon_entropy(maps.detach(), bins=bins).to(maps.device))
