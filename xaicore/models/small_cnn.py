"""A small convolutional network for digits of about 28–32 pixels: quick to train, a plain chain of layers.

Two blocks of two 3x3 convolutions (32·width, then 64·width channels), each with ReLU, each block with a 2x2
max-pool, then Linear 128·width, ReLU, Linear K. The layers are named as in VGG (``features.*``,
``classifier.*``).
"""

from torch import Tensor, nn

from xaicore.models.vgg import scaled

MIN_SIZE = 4


class SmallCNN(nn.Module):
    """A small CNN on normalised images.

    Args:
        classes: number of classes K.
        channels: image channels.
        input_size: side of the square images, at least 4.
        width: factor on all channel and hidden unit numbers.
        batch_norm: whether each convolution is followed by batch normalisation.
        dropout: dropout probability before the last layer.
    """

    def __init__(
        self, *, classes: int, channels: int, input_size: int, width: float, batch_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        fan_in = channels
        for fan_out in (scaled(32, width), scaled(64, width)):
            for _ in range(2):
                layers.append(nn.Conv2d(fan_in, fan_out, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(fan_out))
                layers.append(nn.ReLU())
                fan_in = fan_out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        hidden = scaled(128, width)
        self.classifier = nn.Sequential(
            nn.Linear(fan_in * (input_size // 4) ** 2, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.classifier(self.flatten(self.features(images)))
        return logits

    def chain(self) -> list[nn.Module]:
        """Return the layers in the order in which each works on the result of the one before."""
        return [*self.features, self.flatten, *self.classifier]
