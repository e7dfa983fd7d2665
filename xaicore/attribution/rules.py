r"""The rules of layer-wise relevance propagation: how one layer hands its relevance down to its inputs.

A layer computes :math:`z_k = \sum_j a_j w_{jk} + b_k`; a rule turns the relevance :math:`R_k` of its
outputs into

.. math:: R_j = \sum_k \frac{q_{jk}}{Q_k} R_k,

with the share :math:`q_{jk}` and the denominator :math:`Q_k` of the table (:math:`^\pm`: positive and
negative part).

================  ===================================  ==================================================
rule              share                                denominator
================  ===================================  ==================================================
z                 :math:`a_j w_{jk}`                   :math:`z_k`
epsilon           :math:`a_j w_{jk}`                   :math:`z_k \pm \epsilon`, the sign of :math:`z_k`
w-square          :math:`w_{jk}^2`                     :math:`\sum_j w_{jk}^2`
flat              1                                    number of inputs that :math:`k` sees
alpha1-beta0      :math:`(a_j w_{jk})^+`               :math:`\sum_j (a_j w_{jk})^+ + b_k`
alpha2-beta1      twice the above, minus the same      :math:`\sum_j (a_j w_{jk})^- + b_k` for the
                  with :math:`(a_j w_{jk})^-`          second part
z-plus            as alpha1-beta0                      without the bias
bounded           :math:`a_j w_{jk} - l_j w_{jk}^+     :math:`\sum_j q_{jk}`
                  - h_j w_{jk}^-`
================  ===================================  ==================================================

The whole bias, whatever its sign, enters *both* denominators of alpha-beta: so does iNNvestigate 2.1.2
(Alber et al., JMLR 20, 2019), whose numbers these rules reproduce. A denominator that is exactly 0
becomes 1e-7. The tests compare the rules with zennit's (Anders et al., 2021) wherever its arithmetic is the
same.

Sources: Bach et al., PLoS ONE 10(7), 2015 (z, epsilon, alpha-beta); Montavon et al., Pattern Recognition
65, 2017 (w-square, z-plus, bounded); Lapuschkin et al., Nature Communications 10, 2019 (flat).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from xaicore.attribution.layers import reweighted

SMALLEST_DENOMINATOR = 1e-7

Rule = Callable[..., Tensor]
"""Takes a layer, its inputs and the relevance of its outputs; returns the relevance of the inputs."""


def quotient(relevance: Tensor, denominator: Tensor) -> Tensor:
    """Return ``relevance / denominator``, where a denominator that is exactly 0 counts as 1e-7."""
    result = relevance / denominator
    # The sum is finite only if no denominator is 0, and much cheaper than to look for one.
    if math.isfinite(result.sum()):
        return result
    return relevance / denominator.masked_fill(denominator == 0, SMALLEST_DENOMINATOR)


def _distribute(
    parts: Sequence[Tensor], layers: Sequence[nn.Module], relevance: Tensor, *, epsilon: float = 0.0
) -> Tensor:
    """Return the relevance of the inputs, each part of which has a layer of its own.

    The denominator is the sum of the layers' outputs, moved by ``epsilon`` away from 0; a share is what an entry
    of a part adds to it.
    """
    leaves = [part.detach().requires_grad_() for part in parts]
    with torch.enable_grad():
        outputs = [layer.forward(leaf) for layer, leaf in zip(layers, leaves, strict=True)]
    denominator = reduce(torch.add, outputs).detach()
    if epsilon:
        denominator = torch.where(denominator < 0, denominator - epsilon, denominator + epsilon)
    slopes = torch.autograd.grad(outputs, leaves, [quotient(relevance, denominator)] * len(outputs))
    return reduce(torch.add, (part * slope for part, slope in zip(parts, slopes, strict=True))).detach()


def _epsilon(layer: nn.Module, inputs: Tensor, relevance: Tensor, *, epsilon: float = 0.0) -> Tensor:
    return _distribute([inputs], [layer], relevance, epsilon=epsilon)


def _w_square(layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
    squared = reweighted(layer, cast(Tensor, layer.weight) ** 2, None)
    return _distribute([torch.ones_like(inputs)], [squared], relevance)


def _one_sign(
    layer: nn.Module, inputs: Tensor, relevance: Tensor, *, positive: bool = True, bias: bool = True
) -> Tensor:
    """Inputs without a negative entry (the output of a ReLU) meet the weights of one sign only: half the work."""
    weight = cast(Tensor, layer.weight)
    same, opposite = weight.clamp(min=0), weight.clamp(max=0)
    if not positive:
        same, opposite = opposite, same
    parts, layers = [inputs], [reweighted(layer, same, cast(Tensor | None, layer.bias) if bias else None)]
    if bool(inputs.amin() < 0):  # min would copy what is laid out channels last
        parts = [inputs.clamp(min=0), inputs.clamp(max=0)]
        layers.append(reweighted(layer, opposite, None))
    return _distribute(parts, layers, relevance)


def _alpha2_beta1(layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
    negative = _one_sign(layer, inputs, relevance, positive=False)
    return 2 * _one_sign(layer, inputs, relevance) - negative


def _flat(layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
    """All output channels of a convolution (of one group) see the same inputs: one kernel distributes their sum."""
    if isinstance(layer, nn.Linear):
        return (relevance.sum(-1, keepdim=True) / layer.in_features).expand_as(inputs)
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"the flat rule knows Conv2d and Linear layers, not {type(layer).__name__}")
    n, channels, height, width = inputs.shape
    per_group = channels // layer.groups
    outputs = relevance.shape[2:]
    summed = relevance.reshape(n, layer.groups, -1, *outputs).sum(2).reshape(-1, 1, *outputs)
    kernel = inputs.new_ones(1, 1, *layer.kernel_size)
    ones = inputs.new_ones(len(summed), 1, height, width).requires_grad_()
    with torch.enable_grad():
        seen = functional.conv2d(ones, kernel, None, layer.stride, layer.padding, layer.dilation)
    (spread,) = torch.autograd.grad(seen, ones, quotient(summed, seen.detach() * per_group))
    return spread.reshape(n, layer.groups, height, width).repeat_interleave(per_group, dim=1)


def _bounded(layer: nn.Module, inputs: Tensor, relevance: Tensor, *, low: Tensor, high: Tensor) -> Tensor:
    weight = cast(Tensor, layer.weight)
    empty = torch.zeros_like(inputs)  # with the memory layout of the inputs
    parts = [empty + high, empty + low, inputs]
    weights = [-weight.clamp(max=0), -weight.clamp(min=0), weight]
    return _distribute(parts, [reweighted(layer, each, None) for each in weights], relevance)


RULES: dict[str, Rule] = {
    "z": _epsilon,
    "epsilon": _epsilon,
    "w-square": _w_square,
    "flat": _flat,
    "alpha1-beta0": _one_sign,
    "alpha2-beta1": _alpha2_beta1,
    "z-plus": partial(_one_sign, bias=False),
    "bounded": _bounded,
}
"""Every rule by name.

"epsilon" takes its stabiliser ``epsilon`` besides, in units of the layer's output; "bounded" the smallest and the largest
value of each input of the layer, ``low`` and ``high``, broadcastable to it.
"""
