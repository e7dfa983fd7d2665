"""Xception (Chollet 2017) with an activation module for every activation and sums that do not work in place.

timm's blocks add in place, which spoils what a hook on the layer before has kept. The parameters keep timm's
names, so its ImageNet weights fit. timm's network starts its second and later blocks with a ReLU of their
own; only in-place flags change.
"""

import warnings
from typing import TYPE_CHECKING

from torch import Tensor, nn

from xaicore.models.shape import Add, Shape

if TYPE_CHECKING:
    from timm.models.xception import Block as TimmBlock

MIN_SIZE = 48
BLOCKS = [f"block{number}" for number in range(1, 13)]


class Block(nn.Module):
    """A chain of separable convolutions and a shortcut, from the layers of timm's block, and under their names."""

    def __init__(self, block: "TimmBlock") -> None:
        super().__init__()
        self.skip = block.skip
        if block.skip is not None:
            self.skipbn = block.skipbn
        self.rep = block.rep
        self.add = Add()

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's features."""
        shortcut = features if self.skip is None else self.skipbn(self.skip(features))
        out: Tensor = self.add(self.rep(features), shortcut)
        return out


def build(shape: Shape) -> nn.Module:
    """Build Xception on normalised images of any size from 48 pixels."""
    with warnings.catch_warnings():
        # timm's import takes seconds and warns in a notebook that has no progress widgets.
        warnings.simplefilter("ignore")
        from timm.models.xception import Xception

    network = Xception(num_classes=shape.classes, in_chans=shape.channels)
    for name in BLOCKS:
        setattr(network, name, Block(getattr(network, name)))
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network


def imagenet_weights() -> dict[str, Tensor]:
    """Return timm's ImageNet weights (``legacy_xception.tf_in1k``), downloaded by timm or from its cache."""
    import timm

    return dict(timm.create_model("legacy_xception.tf_in1k", pretrained=True).state_dict())
