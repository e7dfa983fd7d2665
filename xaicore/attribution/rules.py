r"""The rules of layer-wise relevance propagation: how one layer hands its relevance down to its inputs.

A layer computes :math:`z_k = \sum_j a_j w_{jk} + b_k`; a rule turns the relevance :math:`R_k` of its outputs into

.. math:: R_j = \sum_k \frac{q_{jk}}{Q_k} R_k,

with the share :math:`q_{jk}` and the denominator :math:`Q_k` of the table (:math:`^\pm`: positive and negative part).

================  =======================================  ====================================================
rule              share                                    denominator
================  =======================================  ====================================================
z                 :math:`a_j w_{jk}`                       :math:`z_k`
epsilon           :math:`a_j w_{jk}`                       :math:`z_k \pm \epsilon`, the sign of :math:`z_k`
w-square          :math:`w_{jk}^2`                         :math:`\sum_j w_{jk}^2`
flat              1                                        number of inputs that :math:`k` sees
alpha1-beta0      :math:`(a_j w_{jk})^+`                   :math:`\sum_j (a_j w_{jk})^+ + b_k`
alpha2-beta1      twice the above, minus the same with     :math:`\sum_j (a_j w_{jk})^- + b_k` for the second
                  :math:`(a_j w_{jk})^-`                   part
z-plus            as alpha1-beta0                          without the bias
bounded           :math:`a_j w_{jk} - l_j w_{jk}^+ -       :math:`\sum_j q_{jk}`
                  h_j w_{jk}^-`
================  =======================================  ====================================================

The whole bias, whatever its sign, enters *both* denominators of alpha-beta: so does iNNvestigate 2.1.2 (Alber et al.,
JMLR 20, 2019), whose numbers these rules reproduce. A denominator that is exactly 0 becomes 1e-7. The rules are
zennit's (Anders et al., 2021) wherever zennit's arithmetic is the same; the rest is written on its hook classes.

Sources: Bach et al., PLoS ONE 10(7), 2015 (z, epsilon, alpha-beta); Montavon et al., Pattern Recognition 65, 2017
(w-square, z-plus, bounded); Lapuschkin et al., Nature Communications 10, 2019 (flat).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from zennit.core import BasicHook, Hook, ParamMod
from zennit.rules import Epsilon, WSquare, ZBox

SMALLEST_DENOMINATOR = 1e-7


@dataclass(frozen=True)
class RuleOptions:
    """What a rule may need to know beside its layer.

    Attributes:
        epsilon: the stabiliser of the epsilon rule, in units of the layer's output.
        low: smallest value of each input of the first layer, broadcastable to it; only for the bounded rule.
        high: largest value of each input of the first layer.
    """

    epsilon: float = 0.1
    low: Tensor | None = None
    high: Tensor | None = None


def redistribute(rule: Hook, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
    """Return the relevance of ``inputs`` (their shape) given the ``relevance`` of the outputs of ``layer``."""
    rule.forward(layer, (inputs,), None)
    try:
        (result,) = rule.backward(layer, (inputs,), (relevance,))
    finally:
        rule.remove()
    return result.detach()


def _nonzero(denominator: Tensor) -> Tensor:
    return denominator.masked_fill(denominator == 0, SMALLEST_DENOMINATOR)


def _keep_positive(parameter: Tensor, name: str) -> Tensor:
    return parameter.clamp(min=0) if name == "weight" else parameter


def _keep_negative(parameter: Tensor, name: str) -> Tensor:
    return parameter.clamp(max=0) if name == "weight" else parameter


class _Positive(BasicHook):  # type: ignore[misc]
    """The positive part of the alpha-beta rule: shares are the positive products of an activation and a weight.

    Inputs without a negative entry (the output of a ReLU) only meet positive weights, which halves the work.
    """

    attracting: ParamMod = ParamMod(_keep_positive)
    opposing: ParamMod = ParamMod(_keep_negative, zero_params=["bias"])
    attracting_no_bias: ParamMod = ParamMod(_keep_positive, zero_params=["bias"])

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        first = self.attracting if bias else self.attracting_no_bias
        self._non_negative = _split_hook([_identity], [first])
        self._general = _split_hook([_positive_part, _negative_part], [first, self.opposing])

    def backward(
        self, module: nn.Module, grad_input: tuple[Tensor, ...], grad_output: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        inputs = self.stored_tensors["input"][0]
        hook = self._general if bool((inputs < 0).any()) else self._non_negative
        return (redistribute(hook, module, inputs, grad_output[0]),)


class _Negative(_Positive):
    """The negative part of the alpha-beta rule: the same with the negative products."""

    attracting = ParamMod(_keep_negative)
    opposing = ParamMod(_keep_positive, zero_params=["bias"])
    attracting_no_bias = ParamMod(_keep_negative, zero_params=["bias"])


def _identity(values: Tensor) -> Tensor:
    return values


def _positive_part(values: Tensor) -> Tensor:
    return values.clamp(min=0)


def _negative_part(values: Tensor) -> Tensor:
    return values.clamp(max=0)


def _split_hook(parts: list[Callable[[Tensor], Tensor]], parameters: list[ParamMod]) -> BasicHook:
    """Return the rule that pairs each part of the input with its own parameters, over one common denominator."""
    return BasicHook(
        input_modifiers=parts,
        param_modifiers=parameters,
        output_modifiers=[_identity] * len(parts),
        gradient_mapper=lambda relevance, outputs: [relevance / _nonzero(sum(outputs))] * len(outputs),
        reducer=lambda inputs, gradients: sum(a * g for a, g in zip(inputs, gradients, strict=True)),
    )


class _AlphaBeta(Hook):  # type: ignore[misc]
    """``alpha`` times the positive part minus ``beta`` times the negative part."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self._alpha, self._beta = alpha, beta
        self._positive, self._negative = _Positive(), _Negative()

    def forward(self, module: nn.Module, input: tuple[Tensor, ...], output: Tensor | None) -> None:
        self.stored_tensors["input"] = input

    def backward(
        self, module: nn.Module, grad_input: tuple[Tensor, ...], grad_output: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        inputs, relevance = self.stored_tensors["input"][0], grad_output[0]
        positive = redistribute(self._positive, module, inputs, relevance)
        negative = redistribute(self._negative, module, inputs, relevance)
        return (self._alpha * positive - self._beta * negative,)


class _Flat(Hook):  # type: ignore[misc]
    """The flat rule: every input that an output sees gets the same share.

    All output channels of a convolution (of one group) see the same inputs, so their relevance is summed first and
    one kernel of ones distributes the sum: the cost does not depend on the number of channels.
    """

    def forward(self, module: nn.Module, input: tuple[Tensor, ...], output: Tensor | None) -> None:
        self.stored_tensors["input"] = input

    def backward(
        self, module: nn.Module, grad_input: tuple[Tensor, ...], grad_output: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        inputs, relevance = self.stored_tensors["input"][0], grad_output[0]
        if isinstance(module, nn.Linear):
            return ((relevance.sum(-1, keepdim=True) / module.in_features).expand_as(inputs).contiguous(),)
        if not isinstance(module, nn.Conv2d):
            raise TypeError(f"the flat rule knows Conv2d and Linear layers, not {type(module).__name__}")
        n, channels, height, width = inputs.shape
        group_size = channels // module.groups
        summed = relevance.reshape(n, module.groups, -1, *relevance.shape[2:]).sum(2)
        summed = summed.reshape(n * module.groups, 1, *relevance.shape[2:])
        kernel = inputs.new_ones(1, 1, *module.kernel_size)
        one_map = inputs.new_ones(1, 1, height, width).requires_grad_()
        with torch.enable_grad():
            seen = functional.conv2d(one_map, kernel, None, module.stride, module.padding, module.dilation)
            maps = one_map.expand(n * module.groups, 1, height, width)
            spread = functional.conv2d(maps, kernel, None, module.stride, module.padding, module.dilation)
        (shares,) = torch.autograd.grad(spread, maps, summed / _nonzero(seen.detach() * group_size))
        return (shares.reshape(n, module.groups, height, width).repeat_interleave(group_size, dim=1),)


def _bounded(options: RuleOptions) -> Hook:
    if options.low is None or options.high is None:
        raise ValueError("the bounded rule needs low and high, the range of the input")
    return ZBox(options.low, options.high, stabilizer=_nonzero, zero_params=["bias"])


RULES: dict[str, Callable[[RuleOptions], Hook]] = {
    "z": lambda options: Epsilon(epsilon=_nonzero),
    "epsilon": lambda options: Epsilon(epsilon=options.epsilon),
    "w-square": lambda options: WSquare(stabilizer=_nonzero, zero_params=["bias"]),
    "flat": lambda options: _Flat(),
    "alpha1-beta0": lambda options: _Positive(),
    "alpha2-beta1": lambda options: _AlphaBeta(2.0, 1.0),
    "z-plus": lambda options: _Positive(bias=False),
    "bounded": _bounded,
}
"""Every rule by name; each entry makes a fresh rule for one layer."""
