"""The classifiers that attacks are timed on, each with images that it gets right.

A subject can be written down as the arguments of ``models.load`` and a file of weights, so that a worker in
another environment rebuilds exactly the same model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from xaicore import data, models
from xaicore.models import Classifier


@dataclass(frozen=True)
class Subject:
    """A model and images (N, C, H, W) with labels (N,), all classified correctly."""

    name: str
    model: Classifier
    images: Tensor
    labels: Tensor
    architecture: dict[str, Any]
    about: str

    def frail(self) -> "Subject":
        """Return the same model with its images sorted, those nearest to another class in logits first."""
        first, second = models.predict(self.model, self.images).topk(2, dim=1).values.unbind(dim=1)
        order = (first - second).argsort()
        return replace(self, images=self.images[order], labels=self.labels[order])

    def save(self, path: Path) -> None:
        """Write the weights to ``path``, for ``models.load(**architecture, weights=path)``."""
        models.save(self.model, path)


@cache
def digits() -> Subject:
    """Return a small network trained for three epochs on 2,000 MNIST digits, and its test digits, class by turns."""
    train = data.load("mnist-5k", split="train", n=2000)
    architecture: dict[str, Any] = {"name": "small_cnn", "channels": 1, "input_size": 28}
    architecture["classes"] = list(train.classes)
    recipe = models.Recipe(epochs=3)
    model = models.train(models.load(**architecture), *train.stack(), recipe=recipe).model
    images, labels = data.load("mnist-5k", split="test").stack()
    right = (models.predict(model, images).argmax(dim=1) == labels).nonzero().squeeze(1)
    of_class = [right[labels[right] == c].tolist() for c in range(10)]
    turns = [place for row in zip(*of_class, strict=False) for place in row]
    about = "small_cnn trained on MNIST digits, 1 x 28 x 28, 10 classes"
    return Subject("digits", model, images[turns], labels[turns], architecture, about)


@cache
def photographs() -> Subject:
    """Return EfficientNet-Lite0 with its published weights and the ImageNet photographs it gets right."""
    photographs = data.load("imagenet-20", size=224)
    architecture: dict[str, Any] = {"name": "efficientnet_lite0", "classes": list(photographs.classes)}
    model = models.load(**architecture, weights="imagenet")
    images, labels = photographs.stack()
    right = models.predict(model, images, batch_size=4).argmax(dim=1) == labels
    about = "EfficientNet-Lite0 on ImageNet photographs, 3 x 224 x 224, 1000 classes"
    return Subject("photographs", model, images[right], labels[right], architecture, about)


SUBJECTS: dict[str, Callable[[], Subject]] = {"digits": digits, "photographs": photographs}
