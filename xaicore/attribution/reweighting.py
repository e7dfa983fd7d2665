"""Copies of layers with other weights: how rules clamp them and how batch normalisation is folded into them.

A copy shares everything with its layer but the weights, so that the model under explanation is never touched,
not even for a moment. In eval mode BN(Wx + b) = γ(Wx + b − μ)/√(σ² + ε) + β is a layer with
W' = γW/√(σ² + ε) and b' = γ(b − μ)/√(σ² + ε) + β.
"""

import copy
from typing import TypeVar, cast

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

Layer = TypeVar("Layer", bound=nn.Module)


def reweighted(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    """Return a copy of a convolution or linear layer with these weights, which need no gradient."""
    twin = copy.copy(layer)
    twin._parameters = {
        "weight": nn.Parameter(weight.detach(), requires_grad=False),
        "bias": None if bias is None else nn.Parameter(bias.detach(), requires_grad=False),
    }
    return twin


def with_batchnorm(layer: Layer, norm: nn.modules.batchnorm._BatchNorm) -> Layer:
    """Return a copy of a convolution or linear layer that computes ``norm(layer(...))`` in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    weight, bias = fuse(
        cast(Tensor, layer.weight),
        cast(Tensor | None, layer.bias),
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    return reweighted(layer, weight, bias)
