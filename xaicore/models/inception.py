"""Inception v3 (Szegedy et al. 2016) with an activation module for every activation.

The auxiliary classifier is left out. torchvision's convolutions call a functional in-place ReLU, which no
hook can see; here each has its own ``relu``. The parameters keep torchvision's names, so its ImageNet weights
fit; their ``AuxLogits.*`` are left out.
"""

from typing import Any

from torch import Tensor, nn
from torchvision.models import inception as parts

NATIVE_SIZE = 75
"""Smallest side that the layers themselves can take."""
MIN_SIZE = 32


class BasicConv2d(nn.Module):
    """Convolution, batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **kwargs)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return relu(bn(conv(features)))."""
        out: Tensor = self.relu(self.bn(self.conv(features)))
        return out


class _A(parts.InceptionA):
    def __init__(self, in_channels: int, pool_features: int) -> None:
        super().__init__(in_channels, pool_features, conv_block=BasicConv2d)


class _B(parts.InceptionB):
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, conv_block=BasicConv2d)


class _C(parts.InceptionC):
    def __init__(self, in_channels: int, channels_7x7: int) -> None:
        super().__init__(in_channels, channels_7x7, conv_block=BasicConv2d)


class _D(parts.InceptionD):
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, conv_block=BasicConv2d)


class _E(parts.InceptionE):
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, conv_block=BasicConv2d)


class Inception3(parts.Inception3):
    """Inception v3; one that is built for images below 75 pixels first enlarges them, bilinearly, to 75."""

    enlarge: nn.Module | None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.enlarge = None

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = super().forward(images if self.enlarge is None else self.enlarge(images))
        return logits


def build(*, classes: int, channels: int, dropout: float, input_size: int) -> nn.Module:
    """Build Inception v3 on normalised images.

    Args:
        classes: number of classes.
        channels: image channels.
        dropout: dropout probability before the last layer.
        input_size: side of the images; below 75 pixels the network enlarges them to 75 itself, since its layers
            would leave nothing of them.
    """
    network = Inception3(
        num_classes=classes,
        aux_logits=False,
        transform_input=False,
        inception_blocks=[BasicConv2d, _A, _B, _C, _D, _E, parts.InceptionAux],
        init_weights=False,
        dropout=dropout,
    )
    if input_size < NATIVE_SIZE:
        network.enlarge = nn.Upsample(size=(NATIVE_SIZE, NATIVE_SIZE), mode="bilinear", align_corners=False)
    if channels != 3:
        network.Conv2d_1a_3x3 = BasicConv2d(channels, 32, kernel_size=3, stride=2)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    built: nn.Module = network
    return built
