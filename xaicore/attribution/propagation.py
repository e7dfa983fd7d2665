r"""Handing relevance down through a network, step by step, by the rules of a preset.

Layers with weights follow the rule that the preset names for them (:mod:`xaicore.attribution.rules`). ReLU, ReLU6 and
dropout pass relevance on, reshaping rearranges it, padding crops it, max-pooling gives it to the maximum, average
pooling divides it among its inputs, resizing by its weights, a concatenation splits it. A sum divides it in
proportion to its summands, :math:`R_a = R\,a/(a + b)`, as the z rule does, for every preset. (So do iNNvestigate
2.1.2's LRP presets; its deep Taylor decomposition hands the whole relevance to *each* summand, which doubles it at
every block of a residual network.)

A function :math:`y = wx + b` of each value by itself that stands between input and first layer with weights is the
network's normalisation: relevance passes through it, so that the normalised input is explained, as for a classifier.
Elsewhere (a batch normalisation before its ReLU and convolution, as in a DenseNet) it follows the z rule,
:math:`R_x = R\,wx/(wx + b)`, in presets whose rules look at activations, as in iNNvestigate's LRP
(``BatchNormalizationReverseLayer``). Deep Taylor decomposition passes relevance on, as iNNvestigate's does by the
w-square rule; so do the presets w-square and flat, by their own rules for an output that sees one input.

LeakyReLU and PReLU pass relevance on as ReLU does (Bach et al., 2015, Eqs. 52 and 56: the activation is part of the
neuron, and its input, not its output, is what the shares are of). So the alpha-beta rules tell apart what raised and
what lowered that input; where the slope is negative, as many of a trained PReLU are, the output moved the other way.
Deep Taylor decomposition is derived for ReLUs (Montavon et al., 2017) and refuses both, as iNNvestigate does.

A tensor that is used more than once gets the sum of what its users hand down.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attribution.graph import INPUT, Graph, Step
from xaicore.attribution.inputs import naming_images
from xaicore.attribution.layers import Function, laid_out
from xaicore.attribution.presets import Preset
from xaicore.attribution.rules import RULES, Rule, quotient
from xaicore.core.errors import UserError


class Pass(NamedTuple):
    """A forward pass: what each step was given, and the logits (N, K)."""

    given: list[tuple[Tensor, ...]]
    logits: Tensor


class Propagation:
    """The rules of a preset on the steps of a network.

    Args:
        network: made of known layers, in eval mode.
        preset: which rule for which layer.
        epsilon: stabiliser of the epsilon rule.
        bounds: smallest and largest value of each network input, (2, C, H, W); for the bounded rule.

    Raises:
        UserError: the network is not made of known layers, or the preset is none for one of them.
    """

    def __init__(self, network: nn.Module, preset: Preset, epsilon: float, bounds: Tensor | None) -> None:
        self._graph = Graph(network)
        limits = {} if bounds is None else self._graph.given_to_first(bounds)
        self._rules: dict[int, Rule] = {}
        for position, step in enumerate(self._graph.steps):
            if preset.positive_output and step.kind == "leaky-activation":
                raise UserError(
                    f"deep Taylor decomposition is a method for ReLUs, not for the activation {step.name!r} "
                    f"({type(step.module).__name__}): take another preset of lrp"
                )
            name = None if position in self._graph.normalisation else preset.rule(step.kind)
            if position in self._graph.first:
                name = preset.first or name
            if name is not None:
                options: dict[str, Any] = {"epsilon": epsilon} if name == "epsilon" else {}
                if name == "bounded":
                    options["low"], options["high"] = limits[position].split(1)
                self._rules[position] = partial(RULES[name], **options)

    def forward(self, inputs: Tensor) -> Pass:
        """Run the network on its ``inputs`` (N, C, H, W).

        Raises:
            ValueError: the shape does not fit.
            UserError: the network cannot be computed layer by layer.
        """
        with naming_images(inputs.shape):
            return Pass(*self._graph.forward(laid_out(inputs)))

    def backward(self, forward: Pass, relevance: Tensor) -> Tensor:
        """Return the relevance (N, C, H, W) of the inputs, given that of the logits (N, K)."""
        collected = {len(self._graph.steps) - 1: relevance}
        for position in reversed(range(len(self._graph.steps))):
            step = self._graph.steps[position]
            shares = self._hand_down(position, step, forward.given[position], collected.pop(position))
            for source, share in zip(step.sources, shares, strict=True):
                collected[source] = collected[source] + share if source in collected else share
        return collected[INPUT]

    def _hand_down(
        self, position: int, step: Step, given: tuple[Tensor, ...], relevance: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the relevance of each tensor that a step was given."""
        if position in self._rules:
            assert step.module is not None
            return (self._rules[position](step.module, given[0], relevance),)
        if step.kind in ("max-pool", "average-pool", "pad", "resize"):
            assert step.module is not None
            return (_gradient(step.module, given[0], relevance),)
        if step.kind == "sum":
            share = quotient(relevance, given[0] + given[1])
            return given[0] * share, given[1] * share
        if step.kind == "concatenation":
            assert isinstance(step.module, Function)
            sizes = [part.shape[step.module.dim] for part in given]
            return relevance.split(sizes, step.module.dim)
        if step.kind == "affine":
            return (relevance.sum_to_size(given[0].shape),)
        return (relevance.reshape(given[0].shape),)


def _gradient(module: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        (result,) = torch.autograd.grad(module(leaf), leaf, relevance)
    return result
