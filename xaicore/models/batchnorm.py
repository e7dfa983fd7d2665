"""Folding batch normalisation into the convolutions and linear layers before it.

In eval mode, BN(W∗x + b) = γ(W∗x + b − μ)/√(σ² + ε) + β is again a convolution, with W' = γW/√(σ² + ε) and
b' = γ(b − μ)/√(σ² + ε) + β. Attributions that are defined for convolutions and ReLUs (LRP, DeepLIFT) then
apply as they are.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights


def fold(network: nn.Module) -> nn.Module:
    """Fold every ``BatchNorm2d`` of ``network`` into the ``Conv2d`` registered before it, in place; return ``network``.

    Each convolution must be followed, in the order of registration, by the normalisation that is applied to
    its output; all architectures of this package are built so. In a ``Sequential`` the normalisation
    disappears and the layers are renumbered, elsewhere an ``Identity`` takes its place.

    Raises:
        ValueError: a normalisation has no convolution of the same width before it.
    """
    previous: nn.Conv2d | None = None
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            previous = module
        elif isinstance(module, nn.BatchNorm2d):
            if previous is None or previous.out_channels != module.num_features:
                raise ValueError(f"network: batch normalisation {name} does not follow a convolution")
            weight, bias = folded_weights(previous, module, torch.float64)
            previous.weight, previous.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
            previous = None
    _remove(network)
    return network


def folded_weights(
    layer: nn.Conv2d | nn.Linear, norm: nn.modules.batchnorm._BatchNorm, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the layer that computes ``norm(layer(x))`` in eval mode, by the running statistics.

    They are computed in ``dtype``; None: in the layer's own.
    """
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    weight, bias, mean, variance, scale, shift = (
        None if value is None else value.detach().to(dtype or value.dtype)
        for value in (layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return fuse(weight, bias, mean, variance, norm.eps, scale, shift)  # type: ignore[arg-type]


def _remove(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                module._modules[name] = nn.Identity()
                if isinstance(module, nn.Sequential):
                    del module._modules[name]
        if isinstance(module, nn.Sequential) and all(name.isdecimal() for name in module._modules):
            module._modules = {str(place): child for place, child in enumerate(module.children())}


def has_batchnorm(network: nn.Module) -> bool:
    """Whether any layer of ``network`` is a batch normalisation."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
