"""Copies of layers with other weights: how rules clamp them and how batch normalisation is folded into them.

A copy shares everything with its layer but the weights, so that the model under explanation is never touched,
not even for a moment.
"""

import copy
from typing import TypeVar

from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def reweighted(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    """Return a copy of a convolution or linear layer with these weights, which need no gradient."""
    twin = copy.copy(layer)
    twin._parameters = {
        "weight": nn.Parameter(weight.detach(), requires_grad=False),
        "bias": None if bias is None else nn.Parameter(bias.detach(), requires_grad=False),
    }
    return twin
