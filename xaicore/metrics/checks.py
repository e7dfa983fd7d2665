"""Checks at the door of the metrics, the one way in which a heatmap's channels become one map, and what NaN means.

Metrics are NaN for images where they are not defined, such as the cosine of a zero map: count, then leave out.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

MAPS = ("(N, C, H, W)", "(N, H, W)")


def floating(values: Any, name: str, shapes: Sequence[str] = MAPS) -> Tensor:
    """Return a floating-point tensor of one of the shapes, such as (N, H, W), without its graph.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: another number of dimensions, or nothing in one other than the first.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor {' or '.join(shapes)}")
    if values.ndim not in [shape.count(",") + 1 for shape in shapes] or 0 in values.shape[1:]:
        raise ValueError(f"{name} must have the shape {' or '.join(shapes)}, not {tuple(values.shape)}")
    return values.detach()


def finite(values: Any, name: str, shapes: Sequence[str] = MAPS) -> Tensor:
    """Return what :func:`floating` does; raise ValueError for NaN or infinite values too."""
    tensor = floating(values, name, shapes)
    _finite_extremes(tensor, name)
    return tensor


def batch(values: Any, name: str) -> Tensor:
    """Return what :func:`finite` does, in float64."""
    return finite(values, name).to(torch.float64)


def within(values: Tensor, name: str, high: float, slack: float = 0.0) -> None:
    """Raise ValueError unless all values are finite and lie in [0, high], give or take ``slack``."""
    least, most = _finite_extremes(values, name)
    if least < -slack or most > high + slack:
        raise ValueError(f"{name} must lie in [0, {high:g}], not between {least:g} and {most:g}")


def _finite_extremes(values: Tensor, name: str) -> tuple[float, float]:
    """Return the least and the greatest value, 0 and 0 of none; NaN or infinity, which would show there, is refused."""
    least, most = (extreme.item() for extreme in torch.aminmax(values)) if values.numel() else (0.0, 0.0)
    if not (math.isfinite(least) and math.isfinite(most)):
        raise ValueError(f"{name} must be finite: NaN or infinity found")
    return least, most


def single_maps(values: Any, name: str) -> Tensor:
    """Return maps (N, H, W) in float64; the channels of (N, C, H, W) are added up.

    Raises as :func:`batch` does.
    """
    maps = batch(values, name)
    return maps.sum(1) if maps.ndim == 4 else maps


def same_shape(a: Tensor, b: Tensor, names: str = "a and b") -> None:
    """Raise ValueError unless ``a`` and ``b`` have one shape."""
    if a.shape != b.shape:
        raise ValueError(f"{names} must have the same shape, not {tuple(a.shape)} and {tuple(b.shape)}")


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


def booleans(values: Any, name: str) -> Tensor:
    """Return masks (N, H, W) as they are; raise TypeError unless they are booleans, ValueError for another shape."""
    if not isinstance(values, Tensor) or values.dtype != torch.bool:
        raise TypeError(f"{name} must be a boolean tensor (N, H, W)")
    if values.ndim != 3 or 0 in values.shape[1:]:
        raise ValueError(f"{name} must have the shape (N, H, W), not {tuple(values.shape)}")
    return values


def defined(values: ArrayLike | Tensor) -> Tensor:
    """Return those of the values (N,) that are not NaN, in order: what an interval can be drawn over."""
    every = torch.as_tensor(values)
    return every[~every.isnan()]


def undefined_count(values: ArrayLike | Tensor) -> int:
    """Return how many of the values are NaN, to be reported beside what the others give."""
    return int(torch.as_tensor(values).isnan().sum())


def as_array(values: ArrayLike | Tensor) -> NDArray[Any]:
    """Return values or a tensor on any device as an array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def placed(values: ArrayLike | Tensor, among: ArrayLike | Tensor, n: int) -> NDArray[np.float64]:
    """Return values of some of ``n`` images at the places of these images, NaN elsewhere.

    Args:
        values: (K, ...), one entry an image.
        among: (M,) booleans, K of them true, M at most ``n``: which of the first M images have a value.
        n: number of all images.

    Returns:
        (n, ...).

    Raises:
        ValueError: not as many values as images that have one.
    """
    given, where = np.asarray(values, dtype=np.float64), np.flatnonzero(np.asarray(among, dtype=bool))
    if len(given) != len(where):
        raise ValueError(f"values must be as many as among has images, {len(where)}, not {len(given)}")
    whole = np.full((n, *given.shape[1:]), np.nan)
    whole[where] = given
    return whole
