"""What a network is built with, and how its convolutions begin."""

from dataclasses import dataclass
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Shape:
    """Numbers of classes and channels, side of the square images, factor on all widths, and what is left out.

    Attributes:
        classes: number of classes K.
        channels: image channels, 1 or 3.
        input_size: side of the images in pixels.
        width: factor on all channel and hidden unit numbers.
        batch_norm: whether each convolution is followed by batch normalisation.
        dropout: dropout probability of the head.
    """

    classes: int
    channels: int
    input_size: int
    width: float
    batch_norm: bool
    dropout: float


def he_initialised(network: Network) -> Network:
    """Draw the weights of all convolutions anew (He et al. 2015, fan-out) and return the network."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
