"""Floating-point operations and weights of networks, counted without a run.

The operations of one image's way through a network are counted by torch while it goes; a multiplication and an addition
are two. Passes are counted in forward passes; a gradient is a forward pass and a backward pass that costs two.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from xaicore import models

GRADIENT = 3
RELEVANCE = 8
"""A rule with two parts (α and β, or the bounds) runs each layer about twice forward and twice backward."""
CONTRAST = 2 * RELEVANCE


@dataclass(frozen=True)
class Network:
    """A network on images of one size."""

    name: str
    size: int
    channels: int = 3
    classes: int = 1000
    width: float = 1.0


@dataclass(frozen=True)
class Work:
    """Forward passes of single images through a network, all together."""

    network: Network
    passes: float


@cache
def operations_of(network: Network) -> float:
    """Return the floating-point operations of one forward pass of one image."""
    counter = FlopCounterMode(display=False)
    model = _build(network)
    with torch.no_grad(), counter:
        model(torch.zeros(1, network.channels, network.size, network.size))
    return float(counter.get_total_flops())


@cache
def parameters_of(network: Network) -> int:
    """Return the number of weights."""
    return sum(parameter.numel() for parameter in _build(network).parameters())


def _build(network: Network) -> models.Classifier:
    return models.load(
        network.name,
        classes=network.classes,
        channels=network.channels,
        input_size=network.size,
        width=network.width,
    )
