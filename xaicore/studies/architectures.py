"""Tiny untrained networks of today's architectures, torchvision's own classes: what explanations are tried on."""

from collections.abc import Callable

import torch
from torch import nn
from torchvision.models import ConvNeXt, EfficientNet, MobileNetV3, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig

CLASSES = 3


def _transformer() -> nn.Module:
    return VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=CLASSES)


def _convnext() -> nn.Module:
    blocks = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)]
    return ConvNeXt(blocks, stochastic_depth_prob=0.1, layer_scale=0.5, num_classes=CLASSES)


def _efficientnet() -> nn.Module:
    blocks = [MBConvConfig(1, 3, 1, 32, 16, 1, 1, 1), MBConvConfig(4, 3, 2, 16, 24, 2, 1, 1)]
    return EfficientNet(blocks, 0.2, num_classes=CLASSES)


def _mobilenet() -> nn.Module:
    blocks = [
        InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1),
        InvertedResidualConfig(16, 3, 32, 16, True, "HS", 1, 1, 1),
    ]
    return MobileNetV3(blocks, 32, num_classes=CLASSES)


def _swin() -> nn.Module:
    return SwinTransformer([2, 2], 16, [1, 2], [2, 2], [4, 4], num_classes=CLASSES)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "ViT (torchvision)": _transformer,
    "ConvNeXt (torchvision)": _convnext,
    "EfficientNet (torchvision)": _efficientnet,
    "MobileNetV3 (torchvision)": _mobilenet,
    "Swin (torchvision)": _swin,
}
"""Name to a function that makes the network as torchvision does, for images (N, 3, 32, 32) and 3 classes."""


def in_use(network: nn.Module, *, biased: bool = True) -> nn.Module:
    """Draw anew what starts at zero or one, so that every part of ``network`` matters, and return it in eval mode.

    Args:
        network: is changed.
        biased: whether biases, class tokens and positions are drawn, or set to zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, module.in_features**-0.5)
        if isinstance(module, nn.BatchNorm2d):
            assert isinstance(module.running_var, torch.Tensor)
            module.running_var.uniform_(0.01, 0.1)
    for name, parameter in network.named_parameters():
        if name.endswith(("bias", "class_token", "pos_embedding")):
            nn.init.normal_(parameter, 0, 0.1 if biased else 0)
    return network.eval()
