"""What networks have in common: what one is built with, how it begins to learn, and a sum that is a module, which
attributions can treat as a layer."""

import copy
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn
from torchvision.models import resnet

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Shape:
    """What a network is built with.

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


class Add(nn.Module):
    """The sum of two branches, a new tensor."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return ``first + second``, of equal shapes."""
        return first + second


def start_as_identity(model: Network) -> Network:
    """Return a copy of ``model`` in which every residual block of a ResNet passes on its shortcut alone.

    The scale of the last batch normalisation in each branch is set to zero (Goyal et al. 2017, Sec. 5.1), so that a deep
    network starts as a shallow one and learns in far fewer steps. A model without such blocks is copied as it is.
    """
    model = copy.deepcopy(model)
    for block in model.modules():
        if isinstance(block, (resnet.BasicBlock, resnet.Bottleneck)):
            last = block.bn3 if isinstance(block, resnet.Bottleneck) else block.bn2
            if isinstance(last, nn.BatchNorm2d):
                nn.init.zeros_(last.weight)
    return model
