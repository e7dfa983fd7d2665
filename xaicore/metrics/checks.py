"""Checks at the door of the metrics, and the one way in which a heatmap's channels become one map."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def batch(values: Any, name: str) -> Tensor:
    """Return a finite floating-point tensor (N, C, H, W) or (N, H, W) in float64.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: another shape, no pixel, or NaN or infinite values.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor (N, C, H, W) or (N, H, W)")
    if values.ndim not in (3, 4) or 0 in values.shape[1:]:
        raise ValueError(f"{name} must have the shape (N, C, H, W) or (N, H, W), not {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} must be finite: NaN or infinity found")
    return values.detach().to(torch.float64)


def single_maps(values: Any, name: str) -> Tensor:
    """Return maps (N, H, W) in float64; the channels of (N, C, H, W) are added up.

    Raises as :func:`batch` does.
    """
    maps = batch(values, name)
    return maps.sum(1) if maps.ndim == 4 else maps


def same_shape(a: Tensor, b: Tensor) -> None:
    """Raise ValueError unless ``a`` and ``b`` have one shape."""
    if a.shape != b.shape:
        raise ValueError(f"a and b must have the same shape, not {tuple(a.shape)} and {tuple(b.shape)}")


def sample(values: ArrayLike | Tensor, name: str) -> NDArray[np.float64]:
    """Return a finite, non-empty sample (n,) in float64.

    Raises:
        TypeError: the values are not numbers.
        ValueError: not one-dimensional, empty, or NaN or infinite values.
    """
    array = as_array(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers, not {array.dtype}")
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must be one-dimensional and not empty, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite: NaN or infinity found")
    return array.astype(np.float64)


def as_array(values: ArrayLike | Tensor) -> NDArray[Any]:
    """Return values or a tensor on any device as an array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
