"""Plain chains of 3x3 convolutions: VGG16 and VGG19 (Simonyan and Zisserman 2015), and a small one for digits.

The layers carry torchvision's names (``features.*``, ``classifier.*``), so its ImageNet weights of VGG fit. VGG takes
images from 32 pixels and has one of two heads:

- for 224x224 images, torchvision's: flatten 7x7, Linear 4096·width, ReLU, Dropout, Linear 4096·width, ReLU,
  Dropout, Linear K;
- for any other size s, a compact one for few classes: flatten (s/32)x(s/32), Linear 512·width, ReLU, Dropout,
  Linear K.

:class:`SmallCNN` has two blocks of two convolutions and a hidden layer of 128·width. None pools adaptively: the flattened
map is the last max-pool's output as it is, so every image pixel keeps its own path.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from xaicore.models.shape import Shape

DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
FULL_SIZE = 224
MIN_SIZE, SMALL_CNN_MIN_SIZE = 32, 4


class Chain(nn.Module):
    """Blocks of 3x3 convolutions with ReLUs, each block with a 2x2 max-pool, then a head with one hidden layer or more.

    Of each block, the number of convolutions and their channels are given, then the units of the hidden layers, both at
    width 1.
    """

    def __init__(self, blocks: Sequence[tuple[int, int]], hidden: Sequence[int], shape: Shape) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        fan_in = shape.channels
        for depth, channels in blocks:
            fan_out = scaled(channels, shape.width)
            for _ in range(depth):
                layers.append(nn.Conv2d(fan_in, fan_out, 3, padding=1))
                if shape.batch_norm:
                    layers.append(nn.BatchNorm2d(fan_out))
                layers.append(nn.ReLU())
                fan_in = fan_out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        fan_in *= (shape.input_size // 2 ** len(blocks)) ** 2
        head: list[nn.Module] = []
        for fan_out in (scaled(units, shape.width) for units in hidden):
            head += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(shape.dropout)]
            fan_in = fan_out
        self.classifier = nn.Sequential(*head, nn.Linear(fan_in, shape.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.classifier(self.flatten(self.features(images)))
        return logits

    def chain(self) -> list[nn.Module]:
        """Return the layers in the order in which each works on the result of the one before."""
        return [*self.features, self.flatten, *self.classifier]


class VGG(Chain):
    """A VGG network, ``"vgg16"`` or ``"vgg19"``, on normalised images; starts by He initialisation (2015, fan-in)."""

    def __init__(self, layout: str, shape: Shape) -> None:
        blocks = list(zip(DEPTHS[layout], (64, 128, 256, 512, 512), strict=True))
        super().__init__(blocks, (4096, 4096) if shape.input_size == FULL_SIZE else (512,), shape)
        for module in self.modules():  # fan-in keeps activations level without batch normalisation
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class SmallCNN(Chain):
    """A small CNN on normalised images of digits, of about 28 to 32 pixels and at least 4; quick to train."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(((2, 32), (2, 64)), (128,), shape)


def scaled(number: int, width: float) -> int:
    """Return ``number`` of units scaled by ``width``, at least one."""
    return max(1, round(number * width))
