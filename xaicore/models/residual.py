"""What residual networks need: a sum that is a module, which attributions can treat as a layer, and a start from
which they learn fast."""

import copy
from typing import TypeVar

from torch import Tensor, nn
from torchvision.models import resnet

Model = TypeVar("Model", bound=nn.Module)


class Add(nn.Module):
    """The sum of two branches, a new tensor."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return ``first + second``, of equal shapes."""
        return first + second


def start_as_identity(model: Model) -> Model:
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
