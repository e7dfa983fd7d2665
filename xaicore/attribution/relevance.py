"""Layer-wise relevance propagation: from the logit of one neuron back to the pixels, layer by layer.

Every layer hands the relevance of its outputs down to its inputs by the rule that the preset names for it
(:mod:`xaicore.attribution.presets`, :mod:`xaicore.attribution.rules`). ReLU, dropout and reshaping pass
relevance on, max-pooling gives it to the maximum, average pooling divides it among its inputs. Relevance
starts as the logit of the chosen neuron, all other neurons get none. Bach et al., PLoS ONE 10(7), 2015;
with the choices of iNNvestigate 2.1.2 (Alber et al., JMLR 20, 2019).
"""

import math

import torch
from torch import Tensor, nn

from xaicore.attribution.chain import WITH_WEIGHTS, Chain
from xaicore.attribution.inputs import (
    check_batch_size,
    check_images,
    check_targets,
    chosen_logits,
    naming_images,
    network_input,
    network_of,
    undisturbed,
)
from xaicore.attribution.presets import PRESETS, Preset
from xaicore.attribution.rules import RULES, RuleOptions, redistribute
from xaicore.errors import UserError

DEFAULT_EPSILON = 0.1


def lrp(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    preset: str = "preset-a-flat",
    *,
    epsilon: float | None = None,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    batch_size: int = 32,
) -> Tensor:
    """Return relevance heatmaps by layer-wise relevance propagation (LRP).

    Args:
        model: a :class:`~xaicore.models.Classifier`, whose network is explained on its normalised input,
            or any module that is a chain of Conv2d, Linear, ReLU, pooling, flatten and dropout layers and
            takes ``images`` as they are. It is run in eval mode and left as it was.
        images: (N, C, H, W), finite, of the floating type of the model; in [0, 1] for a classifier.
        targets: the neurons to explain: one index for all, (N,) indices, or None for the arg max of the
            logits.
        preset: a name in :data:`~xaicore.attribution.presets.PRESETS`.
        epsilon: stabiliser of the epsilon rule, at least 0, in units of a layer's output; for presets
            that use that rule. Default 0.1 (which is iNNvestigate's for its presets A and B; its plain
            epsilon analyser has 1e-7).
        low: for ``deep-taylor-bounded``, the smallest value an image can have: a number or a tensor
            broadcastable to (C, H, W). Default 0 for a classifier; required for another module.
        high: likewise the largest value. Default 1 for a classifier.
        batch_size: how many images are propagated at once; memory grows with it and not with N. The
            images beside it change an image's heatmap by rounding at most.

    Returns:
        (N, C, H, W) relevance of every value of the network's input, on the device of ``images`` and of
        their type.

    Raises:
        ValueError: an argument is out of range, does not fit the model, or does not belong to the preset.
        UserError: an unknown preset, a target the model does not have, or a network that is not a chain
            of known layers (BatchNorm, residual sums, functional calls); the message names what does not
            fit.
        TypeError: ``images`` or ``targets`` is no tensor of the right kind.
    """
    if preset not in PRESETS:
        raise UserError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    chosen_preset = PRESETS[preset]
    check_images(images, model)
    indices = check_targets(targets, len(images))
    check_batch_size(batch_size)
    epsilon = _checked_epsilon(epsilon, preset)
    with undisturbed(model) as device:
        heatmaps = torch.empty_like(images, requires_grad=False)
        bounds = _checked_bounds(low, high, preset, model, images, device)
        chain = Chain(network_of(model))
        for start in range(0, len(images), batch_size):
            batch = images.detach()[start : start + batch_size].to(device).clone()
            batch_targets = None if indices is None else indices[start : start + batch_size]
            relevance = _propagate(
                chain, chosen_preset, network_input(model, batch), batch_targets, epsilon, bounds
            )
            heatmaps[start : start + batch_size] = relevance.to(images.device)
    return heatmaps


def _propagate(
    chain: Chain,
    preset: Preset,
    inputs: Tensor,
    targets: Tensor | None,
    epsilon: float,
    bounds: tuple[Tensor, Tensor] | None,
) -> Tensor:
    with naming_images(inputs.shape):
        given, logits = chain.forward(inputs)
    chosen, values = chosen_logits(logits, targets)
    if preset.positive_output:
        values = values.clamp(min=0)
    relevance = torch.zeros_like(logits).scatter_(1, chosen[:, None], values[:, None])
    first = next(position for position, layer in enumerate(chain.layers) if layer.kind in WITH_WEIGHTS)
    for position in reversed(range(len(chain.layers))):
        layer, layer_inputs = chain.layers[position], given.pop()
        if layer.kind in WITH_WEIGHTS:
            name = preset.conv if layer.kind == "conv" else preset.dense
            options = RuleOptions(epsilon)
            if position == first and preset.first is not None:
                name = preset.first
                if bounds is not None:
                    low, high = (bound.reshape(1, *layer_inputs.shape[1:]) for bound in bounds)
                    options = RuleOptions(epsilon, low, high)
            assert layer.module is not None
            relevance = redistribute(RULES[name](options), layer.module, layer_inputs, relevance)
        elif layer.kind == "average-pool" and preset.average_pool == "z":
            assert layer.module is not None
            relevance = redistribute(RULES["z"](RuleOptions()), layer.module, layer_inputs, relevance)
        elif layer.kind in ("max-pool", "average-pool"):
            assert layer.module is not None
            relevance = _gradient(layer.module, layer_inputs, relevance)
        elif layer.kind == "reshape":
            relevance = relevance.reshape(layer_inputs.shape)
    return relevance


def _gradient(module: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        (result,) = torch.autograd.grad(module(leaf), leaf, relevance)
    return result


def _checked_epsilon(epsilon: float | None, preset: str) -> float:
    if epsilon is None:
        return DEFAULT_EPSILON
    if not PRESETS[preset].uses("epsilon"):
        raise ValueError(f"epsilon does not belong to preset {preset!r}, which has no epsilon rule")
    if not math.isfinite(epsilon) or epsilon < 0:
        raise ValueError(f"epsilon must be a finite number of at least 0, not {epsilon}")
    return float(epsilon)


def _checked_bounds(
    low: float | Tensor | None,
    high: float | Tensor | None,
    preset: str,
    model: nn.Module,
    images: Tensor,
    device: torch.device,
) -> tuple[Tensor, Tensor] | None:
    """Return the range of the network's input, two (C, H, W) tensors; None where the preset needs none."""
    if not PRESETS[preset].uses("bounded"):
        if low is not None or high is not None:
            raise ValueError(f"low and high do not belong to preset {preset!r}, which has no bounded rule")
        return None
    if network_of(model) is not model:
        low, high = 0.0 if low is None else low, 1.0 if high is None else high
    if low is None or high is None:
        raise ValueError(f"preset {preset!r} needs low and high, the range of the values of images")
    try:
        smallest, largest = (
            torch.as_tensor(bound, dtype=images.dtype, device=images.device).expand(images.shape[1:])
            for bound in (low, high)
        )
    except RuntimeError as error:
        raise ValueError(
            f"low and high must be numbers or broadcastable to {tuple(images.shape[1:])}"
        ) from error
    if not bool((smallest < largest).all()):
        raise ValueError("low must be below high")
    if not bool(((images >= smallest) & (images <= largest)).all()):
        raise ValueError("images must lie between low and high")
    lower, upper = network_input(model, torch.stack([smallest, largest]).to(device))
    return lower, upper
