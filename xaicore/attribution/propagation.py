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

Other activations than ReLU pass relevance on too, as in iNNvestigate's LRP presets and by the identity rule of AttnLRP:
the activation is part of the neuron, and its input, not its output, is what the shares are of. So the alpha-beta rules
tell apart what raised and what lowered that input; where a slope is negative, as many of a trained PReLU are, the
output moved the other way. Deep Taylor decomposition is derived for ReLUs (Montavon et al., 2017) and refuses them.
A product with a gate, the result of a sigmoid or hard sigmoid, gives all to what is gated and none to the gate (Arras et
al., EMNLP workshop 2017): squeeze-and-excitation, gated linear units. Normalisation over several values, softmax and
products of two branches follow :mod:`xaicore.attribution.attention`, in the presets that name them
(:mod:`xaicore.attribution.presets`). Tokens and positions that do not depend on the image keep what they get, as biases
do.

A tensor that is used more than once gets the sum of what its users hand down.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attribution.graph import INPUT, Graph, Step
from xaicore.attribution.layers import BEYOND_RELU, Function, laid_out
from xaicore.attribution.presets import PRESETS
from xaicore.attribution.rules import RULES, Rule, quotient
from xaicore.core.errors import UserError
from xaicore.core.outputs import naming_images


class Pass(NamedTuple):
    """A forward pass: what each step was given, and the logits (N, K)."""

    given: list[tuple[Tensor, ...]]
    logits: Tensor


class Propagation:
    """The rules of a preset on the steps of a network.

    Args:
        network: made of known layers, in eval mode.
        name: of the preset, which says what rule is for which layer.
        epsilon: stabiliser of the epsilon rule.
        bounds: smallest and largest value of each network input, (2, C, H, W); for the bounded rule.

    Raises:
        UserError: the network is not made of known layers, or of one that means nothing to the preset.
    """

    def __init__(self, network: nn.Module, name: str, epsilon: float, bounds: Tensor | None) -> None:
        self._graph, preset = Graph(network), PRESETS[name]
        for step in self._graph.steps:
            if step.kind in BEYOND_RELU and step.kind not in preset.beyond_relu:
                raise UserError(
                    f"preset {name!r} of lrp has no rule for {step.name!r}, {BEYOND_RELU[step.kind]}: "
                    "take attribution.lrp with preset 'epsilon' or 'z'"
                )
        limits = {} if bounds is None else self._graph.given_to_first(bounds)
        self._rules: dict[int, Rule] = {}
        for position, step in enumerate(self._graph.steps):
            rule = None if position in self._graph.normalisation else preset.rule(step.kind)
            if position in self._graph.first:
                rule = preset.first or rule
            if rule is not None:
                options: dict[str, Any] = {"epsilon": epsilon} if rule == "epsilon" else {}
                if rule == "bounded":
                    options["low"], options["high"] = limits[position].split(1)
                self._rules[position] = partial(RULES[rule], **options)

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
            if position not in collected:  # what only gates depend on
                continue
            step = self._graph.steps[position]
            shares = self._hand_down(position, step, forward.given[position], collected.pop(position))
            for source, share in zip(step.sources, shares, strict=True):
                if share is not None:
                    collected[source] = collected[source] + share if source in collected else share
        return collected[INPUT]

    def _hand_down(
        self, position: int, step: Step, given: tuple[Tensor, ...], relevance: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the relevance of each tensor that a step was given; None of a gate."""
        if position in self._rules:
            assert step.module is not None
            return (self._rules[position](step.module, given[0], relevance),)
        if step.kind in ("max-pool", "average-pool", "pad", "resize", "rearrangement"):
            assert step.module is not None
            return (_gradient(step.module, given[0], relevance),)
        if step.kind == "sum":
            share = quotient(relevance, given[0] + given[1])
            return given[0] * share, given[1] * share
        if step.kind == "concatenation":
            assert isinstance(step.module, Function)
            sizes = [part.shape[step.module.dim] for part in given]
            return relevance.split(sizes, step.module.dim)
        if step.kind == "product":
            assert step.module is not None
            return _halves(step.module, given, relevance)
        if step.kind in ("affine", "expansion", "gate"):
            return relevance.sum_to_size(given[0].shape), *[None] * (len(given) - 1)
        if step.kind == "fixed":
            return ()
        return (relevance.reshape(given[0].shape),)


def _halves(module: nn.Module, factors: tuple[Tensor, ...], relevance: Tensor) -> tuple[Tensor, ...]:
    """Return what two factors get of the relevance of their product: the z rule for each, of one half."""
    leaves = [factor.detach().requires_grad_() for factor in factors]
    with torch.enable_grad():
        result = module(*leaves)
        slopes = torch.autograd.grad(result, leaves, quotient(relevance / 2, result.detach()))
    return tuple(factor * slope for factor, slope in zip(factors, slopes, strict=True))


def _gradient(module: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        (result,) = torch.autograd.grad(module(leaf), leaf, relevance)
    return result
