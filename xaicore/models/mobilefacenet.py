"""MobileFaceNet (Chen et al. 2018), a small network for faces: inverted residuals with PReLUs, 128 features, a head.

The parameters have the names of the public implementation Xiaoccer/MobileFaceNet_Pytorch, whose weights, trained to tell
the people of CASIA-WebFace apart, therefore fit; they have no head, which stays as initialised until
:func:`xaicore.models.train_head` trains it. Images are normalised by (x − 127.5/255)/(128/255).

The network works on faces of 112x96 pixels (height x width). Images of another size, such as square ones, are first
resized to it, bilinearly; those of this size stay as they are.
"""

from collections import OrderedDict

from torch import Tensor, nn

from xaicore.models.shape import Add, Shape, he_initialised

MEAN, STD = (127.5 / 255,) * 3, (128 / 255,) * 3
SIZE, FEATURES = (112, 96), 128
BLOCKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
"""Expansion, channels, number of blocks, stride of the first (Table 1 of the paper)."""


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, convolve depthwise, project; add the shortcut where the shape stays."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = fan_in * expansion
        self.conv = nn.Sequential(
            *(nn.Conv2d(fan_in, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.PReLU(wide)),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            *(nn.BatchNorm2d(wide), nn.PReLU(wide)),
            *(nn.Conv2d(wide, fan_out, 1, bias=False), nn.BatchNorm2d(fan_out)),
        )
        self.add = Add() if stride == 1 and fan_in == fan_out else None

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's features."""
        out: Tensor = self.conv(features)
        if self.add is not None:
            out = self.add(out, features)
        return out


class MobileFaceNet(nn.Module):
    """MobileFaceNet on normalised images."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.resize = nn.Upsample(SIZE, mode="bilinear", align_corners=False)
        self.conv1 = _layer(shape.channels, 64, 3, stride=2, padding=1)
        self.dw_conv1 = _layer(64, 64, 3, padding=1, groups=64)
        self.blocks, fan_in = nn.Sequential(), 64
        for expansion, channels, count, stride in BLOCKS:
            for position in range(count):
                self.blocks.append(InvertedResidual(fan_in, channels, 1 if position else stride, expansion))
                fan_in = channels
        self.conv2 = _layer(fan_in, 512, 1)
        self.linear7 = _layer(512, 512, (7, 6), groups=512, linear=True)
        self.linear1 = _layer(512, FEATURES, 1, linear=True)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(FEATURES, shape.classes)
        he_initialised(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        features = self.blocks(self.dw_conv1(self.conv1(self.resize(images))))
        features = self.linear1(self.linear7(self.conv2(features)))
        logits: Tensor = self.fc(self.flatten(features))
        return logits


def _layer(
    fan_in: int,
    fan_out: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    """Return a convolution, its normalisation and, unless it is ``linear``, its PReLU, under these names."""
    convolution = nn.Conv2d(fan_in, fan_out, kernel_size, stride, padding, groups=groups, bias=False)
    parts: list[tuple[str, nn.Module]] = [("conv", convolution), ("bn", nn.BatchNorm2d(fan_out))]
    return nn.Sequential(OrderedDict(parts if linear else [*parts, ("prelu", nn.PReLU(fan_out))]))
