"""Folding batch normalisation into the convolutions before it.

In eval mode, BN(W∗x + b) = γ(W∗x + b − μ)/√(σ² + ε) + β is again a convolution, with W' = γW/√(σ² + ε) and
b' = γ(b − μ)/√(σ² + ε) + β. Attributions that are defined for convolutions and ReLUs (LRP, DeepLIFT) then
apply as they are.
"""

import torch
from torch import nn

Convolution = nn.Conv2d
BatchNorm = nn.BatchNorm2d


def fold(network: nn.Module) -> nn.Module:
    """Fold every batch normalisation of ``network`` into the convolution registered before it, in place.

    Each convolution must be followed, in the order of registration, by the normalisation that is applied to
    its output; all architectures of this package are built so. In a ``Sequential`` the normalisation
    disappears and the layers are renumbered, elsewhere an ``Identity`` takes its place.

    Args:
        network: a network of ``Conv2d`` and ``BatchNorm2d`` layers.

    Returns:
        The same network, without batch normalisation.

    Raises:
        ValueError: a normalisation has no convolution of the same width before it.
    """
    previous: nn.Conv2d | None = None
    for name, module in network.named_modules():
        if isinstance(module, Convolution):
            previous = module
        elif isinstance(module, BatchNorm):
            if previous is None or previous.out_channels != module.num_features:
                raise ValueError(f"network: batch normalisation {name} does not follow a convolution")
            _fuse(previous, module)
            previous = None
    _remove(network)
    return network


def _fuse(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = 0.0 if convolution.bias is None else convolution.bias.detach().double()
    shifted = norm.bias.detach().double() + scale * (bias - norm.running_mean.double())
    weight = convolution.weight.detach().double() * scale.view(-1, 1, 1, 1)
    convolution.weight = nn.Parameter(weight.float())
    convolution.bias = nn.Parameter(shifted.float())


def _remove(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if not isinstance(child, BatchNorm):
                continue
            if isinstance(module, nn.Sequential):
                delattr(module, name)
            else:
                setattr(module, name, nn.Identity())
        if isinstance(module, nn.Sequential) and all(name.isdecimal() for name in module._modules):
            children = list(module.children())
            module._modules.clear()
            for position, child in enumerate(children):
                module.add_module(str(position), child)


def has_batchnorm(network: nn.Module) -> bool:
    """Whether any layer of ``network`` is a batch normalisation."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def largest_difference(first: nn.Module, second: nn.Module, images: torch.Tensor) -> float:
    """Return the largest difference of two networks' outputs, relative to the largest output or 1."""
    with torch.no_grad():
        one, other = first(images), second(images)
    return float((one - other).abs().max() / one.abs().max().clamp_min(1.0))
