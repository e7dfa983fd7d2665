"""Inception v3 (Szegedy et al. 2016) with an activation module for every activation.

The auxiliary classifier is left out. torchvision's convolutions call a functional in-place ReLU, which no
hook can see; here each has its own ``relu``. The parameters keep torchvision's names, so its ImageNet weights
fit; their ``AuxLogits.*`` are left out.
"""

from functools import partialmethod
from typing import Any

from torch import Tensor, nn
from torchvision.models import inception as parts

from xaicore.models.shape import Shape, he_initialised

NATIVE_SIZE = 75
"""Smallest side that the layers themselves can take."""
MIN_SIZE = 32


class BasicConv2d(parts.BasicConv2d):
    """Convolution, batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__(in_channels, out_channels, **kwargs)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return relu(bn(conv(features)))."""
        out: Tensor = self.relu(self.bn(self.conv(features)))
        return out


def _block(letter: str) -> type[nn.Module]:
    block = getattr(parts, f"Inception{letter}")
    return type(f"_{letter}", (block,), {"__init__": partialmethod(block.__init__, conv_block=BasicConv2d)})


_A, _B, _C, _D, _E = BLOCKS = [_block(letter) for letter in "ABCDE"]


class Inception3(parts.Inception3):
    """Inception v3; one that is built for images below 75 pixels first enlarges them, bilinearly, to 75."""

    enlarge: nn.Module | None

    def __init__(self, shape: Shape) -> None:
        super().__init__(
            num_classes=shape.classes,
            aux_logits=False,
            transform_input=False,
            inception_blocks=[BasicConv2d, *BLOCKS, parts.InceptionAux],
            init_weights=False,
            dropout=shape.dropout,
        )
        self.enlarge = None
        if shape.input_size < NATIVE_SIZE:
            size = (NATIVE_SIZE, NATIVE_SIZE)
            self.enlarge = nn.Upsample(size=size, mode="bilinear", align_corners=False)
        if shape.channels != 3:
            self.Conv2d_1a_3x3 = BasicConv2d(shape.channels, 32, kernel_size=3, stride=2)
        he_initialised(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = super().forward(images if self.enlarge is None else self.enlarge(images))
        return logits
