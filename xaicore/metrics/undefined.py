"""Metrics are NaN for images where they are not defined, such as the cosine of a zero map: count, then leave out."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor


def defined(values: ArrayLike | Tensor) -> Tensor:
    """Return those of the values (N,) that are not NaN, in order: what an interval can be drawn over."""
    every = torch.as_tensor(values)
    return every[~every.isnan()]


def undefined_count(values: ArrayLike | Tensor) -> int:
    """Return how many of the values are NaN, to be reported beside what the others give."""
    return int(torch.as_tensor(values).isnan().sum())
