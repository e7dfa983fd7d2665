"""VGG16 and VGG19 (Simonyan and Zisserman 2015), at any width and for images of any size from 32 pixels.

The layers carry torchvision's names (``features.*``, ``classifier.*``), so its ImageNet weights fit. Two
heads:

- for 224x224 images, torchvision's: flatten 7x7, Linear 4096·width, ReLU, Dropout, Linear 4096·width, ReLU,
  Dropout, Linear K;
- for any other size s, a compact one for few classes: flatten (s/32)x(s/32), Linear 512·width, ReLU, Dropout,
  Linear K.

Neither pools adaptively: the flattened map is the last max-pool's output as it is, so every image pixel keeps
its own path.
"""

from torch import Tensor, nn

LAYOUTS = {
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)
FULL_SIZE = 224
MIN_SIZE = 32


class VGG(nn.Module):
    """A VGG network on normalised images.

    Args:
        layout: ``"vgg16"`` or ``"vgg19"``.
        classes: number of classes K.
        channels: image channels.
        input_size: side of the square images, at least 32.
        width: factor on all channel and hidden unit numbers.
        batch_norm: whether each convolution is followed by batch normalisation.
        dropout: dropout probability of the head.
    """

    def __init__(
        self,
        layout: str,
        *,
        classes: int,
        channels: int,
        input_size: int,
        width: float,
        batch_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        fan_in = channels
        for block, depth in enumerate(LAYOUTS[layout]):
            fan_out = scaled(CHANNELS[block], width)
            for _ in range(depth):
                layers.append(nn.Conv2d(fan_in, fan_out, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(fan_out))
                layers.append(nn.ReLU())
                fan_in = fan_out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        flat = fan_in * (input_size // 32) ** 2
        full = input_size == FULL_SIZE
        hidden = scaled(4096 if full else 512, width)
        head: list[nn.Module] = [nn.Linear(flat, hidden), nn.ReLU(), nn.Dropout(dropout)]
        if full:
            head += [nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.classifier = nn.Sequential(*head, nn.Linear(hidden, classes))
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.classifier(self.flatten(self.features(images)))
        return logits

    def chain(self) -> list[nn.Module]:
        """Return the layers in the order in which each works on the result of the one before."""
        return [*self.features, self.flatten, *self.classifier]


def scaled(number: int, width: float) -> int:
    """Return ``number`` of units scaled by ``width``, at least one."""
    return max(1, round(number * width))


def _initialise(network: nn.Module) -> None:
    """He initialisation (fan-in, which keeps activations level without batch normalisation)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
