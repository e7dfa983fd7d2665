"""How a heatmap's channels become one map, how values become a sample, and what NaN means.

Metrics are NaN for images where they are not defined, such as the cosine of a zero map: count, then leave out.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xaicore.core import checks
from xaicore.core.errors import UserError


def single_maps(name: str, values: Any) -> Tensor:
    """Return finite maps (N, H, W) in float64; the channels of (N, C, H, W) are added up.

    Raises as :func:`xaicore.core.checks.finite` does.
    """
    maps = checks.finite(name, values, checks.MAPS).double()
    return maps.sum(1) if maps.ndim == 4 else maps


def sample(name: str, values: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return a finite, non-empty sample (n,) in float64.

    Raises:
        TypeError: the values are not numbers.
        UserError: not one-dimensional, empty, or NaN or infinite values.
    """
    array = as_array(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers, not {array.dtype}")
    if array.ndim != 1 or not array.size:
        raise UserError(f"{name} must be one-dimensional and not empty, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise UserError(f"{name} must be finite: NaN or infinity found")
    return array.astype(np.float64)


def defined(values: ArrayLike | Tensor) -> Tensor:
    """Return those of the values (N,) that are not NaN, in order: what an interval can be drawn over."""
    every = torch.as_tensor(values)
    return every[~every.isnan()]


def undefined_count(values: ArrayLike | Tensor) -> int:
    """Return how many of the values are NaN, to be reported beside what the others give."""
    return int(torch.as_tensor(values).isnan().sum())


def as_array(values: ArrayLike | Tensor) -> NDArray[Any]:
    """Return values or a tensor on any device as an array."""
    if isinstance(values, Tensor):
        given = values.detach().cpu()
        return (given.float() if given.dtype == torch.bfloat16 else given).numpy()  # NumPy has no bfloat16
    return np.asarray(values)


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
