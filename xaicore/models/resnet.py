"""ResNet-18, -50 and -101 (He et al. 2016) with an activation module for every activation.

torchvision's blocks call one in-place ReLU two or three times and add in place; hooks, DeepLIFT and guided
backpropagation are silently wrong on those. These blocks compute the same from the same parameters, under the
same names, with ``relu``, ``relu2`` (and ``relu3``) and a summation module ``add``. The stride is on the 3x3
convolution, as in torchvision.
"""

from torch import Tensor, nn

from xaicore.models.residual import Add


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, to planes·expansion channels."""

    expansion = 1

    def __init__(self, fan_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _downsample(fan_in, planes * self.expansion, stride)
        self.add = Add()
        self.relu2 = nn.ReLU()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch normalisation that ends the branch."""
        return self.bn2

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's features."""
        branch = self.relu(self.bn1(self.conv1(features)))
        branch = self.bn2(self.conv2(branch))
        shortcut = features if self.downsample is None else self.downsample(features)
        out: Tensor = self.relu2(self.add(branch, shortcut))
        return out


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut, to planes·expansion channels."""

    expansion = 4

    def __init__(self, fan_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = _downsample(fan_in, planes * self.expansion, stride)
        self.add = Add()
        self.relu3 = nn.ReLU()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch normalisation that ends the branch."""
        return self.bn3

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's features."""
        branch = self.relu(self.bn1(self.conv1(features)))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        shortcut = features if self.downsample is None else self.downsample(features)
        out: Tensor = self.relu3(self.add(branch, shortcut))
        return out


def _downsample(fan_in: int, fan_out: int, stride: int) -> nn.Module | None:
    if stride == 1 and fan_in == fan_out:
        return None
    return nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride=stride, bias=False), nn.BatchNorm2d(fan_out))


class ResNet(nn.Module):
    """A ResNet on normalised images of any size from 32 pixels.

    Args:
        layout: ``"resnet18"``, ``"resnet50"`` or ``"resnet101"``.
        classes: number of classes.
        channels: image channels.
    """

    def __init__(self, layout: str, *, classes: int, channels: int) -> None:
        super().__init__()
        block, depths = LAYOUTS[layout]
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        fan_in, stages = 64, []
        for stage, depth in enumerate(depths):
            planes = 64 * 2**stage
            blocks: list[nn.Module] = []
            for position in range(depth):
                blocks.append(block(fan_in, planes, 2 if stage > 0 and position == 0 else 1))
                fan_in = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(fan_in, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        logits: Tensor = self.fc(self.flatten(self.avgpool(features)))
        return logits


LAYOUTS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
