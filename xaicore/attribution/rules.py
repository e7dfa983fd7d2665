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
becomes 1e-7. The rules are zennit's (Anders et al., 2021) wherever zennit's arithmetic is the same; the
rest is written on its hook classes.

Sources: Bach et al., PLoS ONE 10(7), 2015 (z, epsilon, alpha-beta); Montavon et al., Pattern Recognition
65, 2017 (w-square, z-plus, bounded); Lapuschkin et al., Nature Communications 10, 2019 (flat).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from zennit.core import Hook
from zennit.rules import Epsilon, WSquare, ZBox

from xaicore.attribution.reweighting import reweighted

SMALLEST_DENOMINATOR = 1e-7


@dataclass(frozen=True)
class RuleOptions:
    """What a rule may need to know beside its layer.

    Attributes:
        epsilon: the stabiliser of the epsilon rule, in units of the layer's output; 0 gives the z rule.
        low: smallest value of each input of the first layer, broadcastable to it; only for the bounded
            rule.
        high: largest value of each input of the first layer.
    """

    epsilon: float = 0.1
    low: Tensor | None = None
    high: Tensor | None = None


def redistribute(rule: Hook, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
    """Return the relevance of ``inputs`` given the ``relevance`` of the outputs of ``layer``."""
    rule.forward(layer, (inputs,), None)
    try:
        (result,) = rule.backward(layer, (inputs,), (relevance,))
    finally:
        rule.remove()
    return cast(Tensor, result).detach()


def quotient(relevance: Tensor, denominator: Tensor) -> Tensor:
    """Return ``relevance / denominator``, where a denominator that is exactly 0 counts as 1e-7."""
    result = relevance / denominator
    # The sum is finite only if no denominator is 0, and much cheaper than to look for one.
    return result if math.isfinite(result.sum()) else relevance / _nonzero(denominator)


def _nonzero(denominator: Tensor) -> Tensor:
    return denominator.masked_fill(denominator == 0, SMALLEST_DENOMINATOR)


class _InputRule(Hook):  # type: ignore[misc]
    """A rule that needs to know what its layer was given."""

    def forward(self, module: nn.Module, input: tuple[Tensor, ...], output: Tensor | None) -> None:
        self.stored_tensors["input"] = input

    def backward(
        self, module: nn.Module, grad_input: tuple[Tensor, ...], grad_output: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        return (self.shares(module, self.stored_tensors["input"][0], grad_output[0]),)

    def shares(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return the relevance of ``inputs`` given that of the outputs of ``layer``."""
        raise NotImplementedError


class _OneSign(_InputRule):
    """One part of the alpha-beta rule: shares are the products of activation and weight of one sign.

    Inputs without a negative entry (the output of a ReLU) meet the weights of that sign only, which
    halves the work.
    """

    def __init__(self, *, positive: bool = True, bias: bool = True) -> None:
        super().__init__()
        self._positive, self._bias = positive, bias

    def shares(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        weight = cast(Tensor, layer.weight)
        bias = cast(Tensor | None, layer.bias) if self._bias else None
        same, opposite = weight.clamp(min=0), weight.clamp(max=0)
        if not self._positive:
            same, opposite = opposite, same
        parts, layers = [inputs], [reweighted(layer, same, bias)]
        if bool(inputs.amin() < 0):  # min would copy what is laid out channels last
            parts = [inputs.clamp(min=0), inputs.clamp(max=0)]
            layers.append(reweighted(layer, opposite, None))
        leaves = [part.detach().requires_grad_() for part in parts]
        with torch.enable_grad():
            outputs = [each.forward(leaf) for each, leaf in zip(layers, leaves, strict=True)]
        share = quotient(relevance, reduce(torch.add, outputs).detach())
        slopes = torch.autograd.grad(outputs, leaves, [share] * len(outputs))
        return reduce(torch.add, (part * slope for part, slope in zip(parts, slopes, strict=True)))


class _Alpha2Beta1(_InputRule):
    """Twice the positive part minus the negative part."""

    def __init__(self) -> None:
        super().__init__()
        self._positive, self._negative = _OneSign(), _OneSign(positive=False)

    def shares(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        positive = redistribute(self._positive, layer, inputs, relevance)
        return 2 * positive - redistribute(self._negative, layer, inputs, relevance)


class _Flat(_InputRule):
    """The flat rule: every input that an output sees gets the same share.

    All output channels of a convolution (of one group) see the same inputs, so their relevance is summed
    first and one kernel of ones distributes the sum: the cost does not grow with the number of channels.
    """

    def shares(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
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


def _bounded(options: RuleOptions) -> Hook:
    if options.low is None or options.high is None:
        raise ValueError("the bounded rule needs low and high, the range of the input")
    return ZBox(options.low, options.high, stabilizer=_nonzero, zero_params=["bias"])


RULES: dict[str, Callable[[RuleOptions], Hook]] = {
    "z": lambda options: Epsilon(epsilon=_nonzero),
    "epsilon": lambda options: Epsilon(epsilon=options.epsilon or _nonzero),
    "w-square": lambda options: WSquare(stabilizer=_nonzero, zero_params=["bias"]),
    "flat": lambda options: _Flat(),
    "alpha1-beta0": lambda options: _OneSign(),
    "alpha2-beta1": lambda options: _Alpha2Beta1(),
    "z-plus": lambda options: _OneSign(bias=False),
    "bounded": _bounded,
}
"""Every rule by name; each entry makes a fresh rule for one layer."""
