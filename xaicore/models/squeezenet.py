"""SqueezeNet 1.0 (Iandola et al. 2016): convolutions, ReLUs, max-pools and concatenations only.

torchvision's network with activations that do not work in place, under the same parameter names, so its ImageNet weights
fit. The logits are what a ReLU lets through, averaged over the image: none is negative.

Two published sets of ImageNet weights have these names and shapes and expect images normalised in different ways:
torchvision's, for 224 px, and those of the authors' Caffe model, compressed by Han et al. (2016), for 227 px, which takes
grey levels less their mean. Both files are known by their sha256; any other must say which it is for.
"""

from torch import nn
from torchvision.models import squeezenet

from xaicore.models.shape import Shape

MIN_SIZE = 21
CAFFE_MEAN, CAFFE_STD = (123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3
TORCHVISION_FILE, CAFFE_FILE = "b66bff10", "b60d73d32d7bf4d5"
"""What the sha256 of each file begins with."""


class SqueezeNet(squeezenet.SqueezeNet):
    """SqueezeNet 1.0 on normalised images of any size from 21 pixels."""

    def __init__(self, shape: Shape) -> None:
        super().__init__("1_0", shape.classes, shape.dropout)
        if shape.channels != 3:
            self.features[0] = nn.Conv2d(shape.channels, 96, kernel_size=7, stride=2)
            nn.init.kaiming_uniform_(self.features[0].weight)
            nn.init.zeros_(self.features[0].bias)
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
