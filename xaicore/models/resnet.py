"""ResNet-18, -50 and -101 (He et al. 2016) with an activation module for every activation.

torchvision's blocks call one in-place ReLU two or three times and add in place; hooks, DeepLIFT and guided
backpropagation are silently wrong on those. These blocks compute the same from the same parameters, under the
same names, with ``relu``, ``relu2`` (and ``relu3``) and a summation module ``add``. The stride is on the 3x3
convolution, as in torchvision.
"""

from torch import Tensor, nn
from torchvision.models import resnet

from xaicore.models.shape import Add, Shape, he_initialised


class BasicBlock(resnet.BasicBlock):
    """Two 3x3 convolutions and a shortcut, to planes·expansion channels."""

    def __init__(self, fan_in: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__(fan_in, planes, stride, downsample)
        self.relu, self.add, self.relu2 = nn.ReLU(), Add(), nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's features."""
        branch = self.relu(self.bn1(self.conv1(features)))
        branch = self.bn2(self.conv2(branch))
        shortcut = features if self.downsample is None else self.downsample(features)
        out: Tensor = self.relu2(self.add(branch, shortcut))
        return out


class Bottleneck(resnet.Bottleneck):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut, to planes·expansion channels."""

    def __init__(self, fan_in: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__(fan_in, planes, stride, downsample)
        self.relu, self.relu2, self.add, self.relu3 = nn.ReLU(), nn.ReLU(), Add(), nn.ReLU()
        for name in ("relu", "conv2", "bn2", "relu2", "conv3", "bn3", "downsample", "add", "relu3"):
            if name in self._modules:  # in the order of execution
                self._modules[name] = self._modules.pop(name)

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's features."""
        branch = self.relu(self.bn1(self.conv1(features)))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        shortcut = features if self.downsample is None else self.downsample(features)
        out: Tensor = self.relu3(self.add(branch, shortcut))
        return out


LAYOUTS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """A ResNet of :data:`LAYOUTS` on normalised images of any size from 32 pixels."""

    def __init__(self, layout: str, shape: Shape) -> None:
        super().__init__()
        block, depths = LAYOUTS[layout]
        self.conv1 = nn.Conv2d(shape.channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        fan_in = 64
        for stage, depth in enumerate(depths):
            planes, blocks = 64 * 2**stage, nn.Sequential()
            for position in range(depth):
                stride, fan_out = 2 if stage > 0 and position == 0 else 1, planes * block.expansion
                shortcut = None
                if stride > 1 or fan_in != fan_out:
                    convolution = nn.Conv2d(fan_in, fan_out, 1, stride=stride, bias=False)
                    shortcut = nn.Sequential(convolution, nn.BatchNorm2d(fan_out))
                blocks.append(block(fan_in, planes, stride, shortcut))
                fan_in = fan_out
            self.add_module(f"layer{stage + 1}", blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(fan_in, shape.classes)
        he_initialised(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))  # type: ignore[operator]
        logits: Tensor = self.fc(self.flatten(self.avgpool(features)))
        return logits
