"""The classifiers that attacks are proven on: a network trained on MNIST digits, a published one of ImageNet, small ones.

The first two come with images that they classify correctly. Each is made once in a test run.
"""

from functools import cache

import torch
from torch import Tensor, nn

from xaicore import data, models
from xaicore.models import Classifier


@cache
def _digits() -> tuple[Classifier, Tensor, Tensor]:
    train = data.load("mnist-5k", split="train", n=2000)
    model = models.load("small_cnn", classes=train.classes, channels=1, input_size=28)
    recipe = models.Recipe(epochs=3, precision="float32")
    model = models.train(model, *train.stack(), recipe=recipe).model
    images, labels = data.load("mnist-5k", split="test").stack()
    right = models.predict(model, images).argmax(dim=1) == labels
    return model, images[right], labels[right]


@cache
def _photographs() -> tuple[Classifier, Tensor, Tensor]:
    photographs = data.load("imagenet-20", size=224)
    model = models.load("efficientnet_lite0", weights="imagenet", classes=photographs.classes)
    images, labels = photographs.stack()
    right = models.predict(model, images, batch_size=4).argmax(dim=1) == labels
    return model, images[right], labels[right]


def digits(count: int) -> tuple[Classifier, Tensor, Tensor]:
    """Return the digit network and ``count`` test digits of all classes, (count, 1, 28, 28), it gets right."""
    model, images, labels = _digits()
    chosen = (labels.argsort(stable=True).view(-1)[:: max(1, len(labels) // count)])[:count]
    return model, images[chosen], labels[chosen]


def photographs(count: int) -> tuple[Classifier, Tensor, Tensor]:
    """Return EfficientNet-Lite0 and ``count`` photographs (count, 3, 224, 224) that it gets right (17 of 20)."""
    model, images, labels = _photographs()
    return model, images[:count], labels[:count]


def two_convolutions(channels: int, classes: int, seed: int) -> nn.Sequential:
    """Return an untrained network for images of 12 x 12 pixels; the global generator stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 16, classes),
        ).eval()


def net(channels: int = 1, classes: int = 3, seed: int = 0, gain: float = 1.0) -> nn.Sequential:
    """Return an untrained network for images of 8 x 8 pixels; ``gain`` multiplies its logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 4, classes),
        )
    with torch.no_grad():
        model[-1].weight.mul_(gain)
        model[-1].bias.mul_(gain)
    return model.eval()


def draw(count: int, channels: int = 1, side: int = 8, seed: int = 1) -> Tensor:
    """Return random images (count, channels, side, side) in [0, 1]."""
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def right(model: nn.Module, images: Tensor) -> Tensor:
    """Return the classes (N,) that the model gives the images, the labels that make it right on all of them."""
    with torch.no_grad():
        return model(images).argmax(dim=1)
