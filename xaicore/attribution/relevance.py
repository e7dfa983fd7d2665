"""Layer-wise relevance propagation: from the logit of one neuron back to the pixels, layer by layer.

Every layer hands the relevance of its outputs down to its inputs by the rule that the preset names for it
(:mod:`xaicore.attribution.presets`, :mod:`xaicore.attribution.propagation`). Relevance starts as the logit of
the chosen neuron, all other neurons get none. Bach et al., PLoS ONE 10(7), 2015; with the choices of
iNNvestigate 2.1.2 (Alber et al., JMLR 20, 2019).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xaicore.attribution.batches import batches
from xaicore.attribution.inputs import check_call, chosen_logits, network_input, network_of
from xaicore.attribution.presets import PRESETS
from xaicore.attribution.propagation import Pass, Propagation
from xaicore.core import checks
from xaicore.core.undisturbed import undisturbed

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
        model, images, targets: as for :func:`~xaicore.attribution.gradient`, as are errors. The network is made of
            Conv2d, Linear, ReLU, ReLU6, pooling, zero padding, Upsample, flatten, dropout and BatchNorm layers (or the
            same as functions), sums, concatenations and arithmetic with constants, in some presets also of what
            networks of today have (see Notes); :mod:`xaicore.attribution.propagation` says
            how relevance passes through each. BatchNorm that directly follows a convolution or linear layer is folded
            into a copy of it. Of what normalises the images before the first layer with weights
            (``(x - mean) / std``, ``Normalize``, BatchNorm, a classifier within the module) the result is explained,
            as for a classifier.
        preset: a name in :data:`~xaicore.attribution.presets.PRESETS`.
        epsilon: stabiliser of the epsilon rule, at least 0, in units of a layer's output; for presets
            that use that rule. Default 0.1 (which is iNNvestigate's for its presets A and B; its plain
            epsilon analyser has 1e-7).
        low: for ``deep-taylor-bounded``, the smallest value an image can have: a number or a tensor
            broadcastable to (C, H, W). Default 0; the network's own normalisation applies to it too.
        high: likewise the largest value. Default 1.
        batch_size: how many images are propagated at once; memory grows with it and not with N. The
            images beside it change an image's heatmap by rounding at most.

    Returns:
        (N, C, H, W) relevance of every value of the network's input, on the device of ``images`` and of
        their type.

    Raises:
        ValueError: also where an argument does not belong to the preset.
        UserError: an unknown preset, a target the model does not have, or a network that is not made of
            known layers, or of some that mean nothing to the preset; the message names what does not fit.
            Also where the network with its BatchNorm folded does not give the network's logits, to 1e-4 of
            the largest.

    Notes:
        Other activations (GELU, SiLU, hardswish, LeakyReLU, PReLU, tanh, sigmoid) and products with a gate pass relevance
        on in all presets but deep Taylor decomposition, which is derived for ReLUs. LayerNorm, GroupNorm, softmax,
        products of two branches and attention (``nn.MultiheadAttention`` and ``scaled_dot_product_attention``, without
        masks) have rules in ``z`` and ``epsilon``, those of AttnLRP (Achtibat et al., ICML 2024, whose package lxt
        has an epsilon of 1e-6): :mod:`xaicore.attribution.attention`.

        Without biases the values of an image sum to the logit (``z``; the alpha-beta presets and, with
        ``epsilon=0``, the epsilon ones), to 1e-4 in float32. What is missing has been taken by biases,
        epsilon and the constant term of a softmax, or had nowhere to go: to inputs that are padding
        (explicit, or counted by an average pool), or from an output that no input has a share in: of
        alpha-beta where all products have one sign, of a sum or average pool where all values are 0.
    """
    checks.one_of("preset", preset, PRESETS)
    epsilon = _checked_epsilon(epsilon, preset)

    def explain(propagation: Propagation, forward: Pass, chosen: Tensor) -> Tensor:
        values = forward.logits.gather(1, chosen[:, None])
        if PRESETS[preset].positive_output:
            values = values.clamp(min=0)
        start = torch.zeros_like(forward.logits).scatter_(1, chosen[:, None], values)
        return propagation.backward(forward, start)

    return by_propagation(explain, model, images, targets, preset, epsilon, low, high, batch_size)


def by_propagation(
    explain: Callable[[Propagation, Pass, Tensor], Tensor],
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None,
    preset: str,
    epsilon: float,
    low: float | Tensor | None,
    high: float | Tensor | None,
    batch_size: int,
) -> Tensor:
    """Return what ``explain`` makes of propagation, forward pass and targets (n,) of each batch; see :func:`lrp`."""
    indices = check_call(model, images, targets, batch_size)
    with undisturbed(model) as device:
        heatmaps = torch.empty_like(images, requires_grad=False)
        bounds = _checked_bounds(low, high, preset, model, images, device)
        propagation = Propagation(network_of(model), preset, epsilon, bounds)
        for batch in batches(model, images, indices, batch_size):
            forward = propagation.forward(batch.inputs)
            chosen, _ = chosen_logits(forward.logits, batch.targets)
            heatmaps[batch.rows] = explain(propagation, forward, chosen).to(images.device)
    return heatmaps


def _checked_epsilon(epsilon: float | None, preset: str) -> float:
    if epsilon is None:
        return DEFAULT_EPSILON
    if not PRESETS[preset].uses("epsilon"):
        raise ValueError(f"epsilon does not belong to preset {preset!r}, which has no epsilon rule")
    return checks.not_negative("epsilon", epsilon)


def _checked_bounds(
    low: float | Tensor | None,
    high: float | Tensor | None,
    preset: str,
    model: nn.Module,
    images: Tensor,
    device: torch.device,
) -> Tensor | None:
    """Return low and high of the network's input, (2, C, H, W); None where the preset needs none."""
    if not PRESETS[preset].uses("bounded"):
        if low is not None or high is not None:
            raise ValueError(f"low and high do not belong to preset {preset!r}, which has no bounded rule")
        return None
    try:
        smallest, largest = (
            torch.as_tensor(bound, dtype=images.dtype, device=images.device).expand(images.shape[1:])
            for bound in (0.0 if low is None else low, 1.0 if high is None else high)
        )
    except RuntimeError as error:
        raise ValueError(
            f"low and high must be numbers or broadcastable to {tuple(images.shape[1:])}"
        ) from error
    if not bool((smallest < largest).all()):
        raise ValueError("low must be below high")
    if not bool(((images >= smallest) & (images <= largest)).all()):
        raise ValueError(
            "images must lie between low and high, which are 0 and 1 where not given: pass the range of their values"
        )
    return network_input(model, torch.stack([smallest, largest]).to(device))
