"""The two classifiers that attacks are proven on: a network trained on MNIST digits and a published ImageNet network.

Both come with images that they classify correctly. Each is made once in a test run.
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
