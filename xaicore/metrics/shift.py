"""How far the Grad-CAM maps of each layer move between two versions of the same images.

The analysis of Chakraborty et al. 2022 (Sec. 4.4) for any model, any two versions of an image and any layers. Maps live
for one batch only, so memory does not grow with the number of images; what is kept is one number for each image and
layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xaicore.attribution import grad_cam
from xaicore.core.errors import UserError
from xaicore.metrics import nissim
from xaicore.metrics.map_comparison import Measure, compare_maps


class LayerShift(NamedTuple):
    """The shift of every map.

    Attributes:
        layers: L names, in order of execution.
        dissimilarity: (N, V, L) float64, NISSIM between the map before and that of each version; NaN where either is
            zero everywhere, since there is no explanation then that could have moved.
        targets: (N,) int64, the classes explained before.
        targets_after: (N, V) int64, likewise after. Where none were given these are the predicted ones.
    """

    layers: tuple[str, ...]
    dissimilarity: Tensor
    targets: Tensor
    targets_after: Tensor


def layer_shift(
    model: nn.Module,
    before: Tensor,
    after: Tensor,
    *,
    layers: str | Sequence[str] = "all",
    targets: Tensor | None = None,
    targets_after: Tensor | None = None,
    batch_size: int = 32,
) -> LayerShift:
    """Return the dissimilarity of the Grad-CAM maps of images and of other versions of them, layer by layer.

    Args:
        model: see :func:`xaicore.attribution.grad_cam`.
        before: (N, C, H, W) in [0, 1].
        after: (N, V, C, H, W), V versions of each image, say attacked with growing strength.
        layers: as for :func:`~xaicore.attribution.grad_cam`.
        targets: (N,) classes to explain before; None: the predicted ones.
        targets_after: (N, V) likewise after; None: the predicted ones.
        batch_size: images at once.

    Raises:
        ValueError: shapes do not fit, or as for :func:`~xaicore.attribution.grad_cam`.
        UserError: a layer does not fit.
    """
    if after.ndim != 5 or after.shape[:1] + after.shape[2:] != before.shape or not after.shape[1]:
        raise UserError(
            "after must hold versions (N, V, C, H, W) of before (N, C, H, W), not "
            f"{tuple(after.shape)} of {tuple(before.shape)}"
        )
    if targets_after is not None and targets_after.shape != after.shape[:2]:
        raise UserError(
            f"targets_after must be {tuple(after.shape[:2])}, one per version, not {tuple(targets_after.shape)}"
        )
    size = (int(before.shape[-2]), int(before.shape[-1]))
    names: tuple[str, ...] = ()
    rows, classes = [], []
    for start in range(0, len(before), batch_size):
        part = slice(start, start + batch_size)
        reference = grad_cam(model, before[part], None if targets is None else targets[part], layers)
        names = tuple(reference)
        chosen = [None if targets_after is None else targets_after[part, v] for v in range(after.shape[1])]
        maps = (grad_cam(model, after[part, v], targets_v, layers) for v, targets_v in enumerate(chosen))
        found = compare_maps([reference], maps, [Measure(lambda maps: comparable(maps, size), _nissim)])
        rows.append(found.values[:, :, :, 0, 0])
        classes.append(torch.cat([reference.targets[:, None], found.targets], 1))
    explained = torch.cat(classes)
    return LayerShift(names, torch.cat(rows), explained[:, 0], explained[:, 1:])


def comparable(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (N, h, w) enlarged to ``size`` (bilinear) and divided by their own maximum: (N, H, W) in [0, 1].

    A map that is zero everywhere stays so.
    """
    large = functional.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]
    peak = large.amax((1, 2), keepdim=True)
    return torch.where(peak > 0, large / peak, large).clamp(0, 1)


def deepest_layer(model: nn.Module, images: Tensor, cells: int) -> str:
    """Return the last convolution whose map has at least ``cells`` cells in height and width.

    On images of the size it was made for, a network's last map has 7 or more cells a side; on small ones it shrinks to
    2 x 2 or a single cell, in which no region can move. ``cells=1`` is the last convolution.

    Args:
        model: see :func:`xaicore.attribution.grad_cam`.
        images: (N, C, H, W), N of at least 1; only the first is used.
        cells: at least 1.

    Raises:
        UserError: no layer has so many cells.
    """
    fitting = [name for name, maps in grad_cam(model, images[:1]).items() if min(maps.shape[1:]) >= cells]
    if not fitting:
        raise UserError(f"no layer's map has {cells} x {cells} cells; give a smaller number or larger images")
    return fitting[-1]


def _nissim(before: Tensor, after: Tensor) -> Tensor:
    values = nissim(before, after)
    known = before.flatten(1).any(1) & after.flatten(1).any(1)
    return torch.where(known.to(values.device), values, torch.nan)
