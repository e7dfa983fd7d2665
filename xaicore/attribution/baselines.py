"""Baselines: what an image is compared with when its pixels share out a difference of logits."""

import torch
from torch import Tensor

from xaicore.core.errors import UserError


def check_baselines(baselines: float | Tensor | None, images: Tensor) -> Tensor:
    """Return ``baselines`` as (M, C, H, W) of the type and on the device of ``images``; None is black, 0.

    Raises:
        TypeError: no number and no floating-point tensor.
        ValueError: not finite, empty, or not broadcastable to images of this size.
    """
    if baselines is None:
        baselines = 0.0
    number = isinstance(baselines, (int, float)) and not isinstance(baselines, bool)
    if not number and not (isinstance(baselines, Tensor) and baselines.is_floating_point()):
        raise TypeError("baselines must be None, a number or a floating-point tensor")
    tensor = torch.as_tensor(baselines).detach().to(images).clone()
    if not bool(torch.isfinite(tensor).all()):
        raise UserError("baselines must be finite: NaN or infinity found")
    count = len(tensor) if tensor.ndim == 4 else 1
    try:
        expanded = tensor.expand(count, *images.shape[1:])
    except RuntimeError as error:
        raise UserError(
            f"baselines of shape {tuple(tensor.shape)} do not fit images of shape {tuple(images.shape)}"
        ) from error
    if not count:
        raise UserError("baselines must hold at least one image")
    return expanded


def check_one_or_each(baselines: Tensor, n: int) -> None:
    """Raise ValueError unless there is one baseline (M, C, H, W) for all images or one for each of ``n``."""
    if len(baselines) not in (1, n):
        raise UserError(f"baselines must be one for all images or one for each of {n}, not {len(baselines)}")
