"""The two subjects that the notebooks on the instruments share: a network trained on the spot, and a published one.

What is shown of an attack, an explanation or a metric is shown on the same images of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from xaicore import data, models
from xaicore.core.errors import UserError
from xaicore.studies import steps

if TYPE_CHECKING:
    from xaicore.run.params import InstrumentParameters, NotebookParameters, P5Parameters
    from xaicore.run.params.arena import SharedParameters
    from xaicore.run.records import Run
    from xaicore.run.store import Store


@dataclass(frozen=True)
class Subject:
    """A network and images that it classifies correctly.

    Attributes:
        model: the network.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64, their classes.
        names: of the classes.
        accuracy: of the network on the whole test set, in [0, 1].
        n_test: size of that set.
        index: (N,) int64, which images of that set they are.
    """

    model: models.Classifier
    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    accuracy: float
    n_test: int
    index: Tensor


def subjects(params: InstrumentParameters, store: Store, run: Run) -> dict[str, Subject]:
    """Return the subjects ``digits`` (or whatever ``params.dataset`` holds) and ``photographs``.

    The ``store`` keeps the trained network; the record of ``run`` names the data and the weights.

    Raises:
        UserError: a network gets no image right.
    """
    train, test = (
        data.load(params.dataset, params.data_root, split=split, n=n, size=params.size)
        for split, n in (("train", params.n_train), ("test", None))
    )
    untrained = start_network(params, train, params.size)
    recipe = models.Recipe(epochs=params.epochs, seed=params.seed)
    validation = data.load(params.dataset, params.data_root, split="validation", size=params.size).stack()
    fitted = steps.trained(store, "digit", untrained, *train.stack(), validation=validation, recipe=recipe)
    network = fitted.model
    photographs = data.load(params.photographs, params.other_root, split="test", size=params.photograph_size)
    published = models.load("efficientnet_lite0", weights="imagenet", classes=photographs.classes)
    published = published.to(params.torch_device)
    for images in (train, test, photographs):
        run.data(images)
    run.model("digits", network)
    run.model("photographs", published)
    return {
        "digits": _subject(network, test, params.n_images),
        "photographs": _subject(published, photographs, params.n_photographs),
    }


class Trained(NamedTuple):
    """A network and the three sets that it was trained, chosen and tested on.

    Attributes:
        untrained: the network before training.
        network: trained.
        train, validation, test: images (N, C, H, W) and labels (N,).
        right: (N,) bool, which test images the network classifies correctly.
        taken: (n,) numbers of test images, among these, in an order that is the same for every seed.
    """

    untrained: models.Classifier
    network: models.Classifier
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    right: Tensor
    taken: Tensor


def trained_on_sets(
    params: SharedParameters | P5Parameters,
    store: Store,
    run: Run,
    recipe: models.Recipe,
    *,
    dropout: float | None = None,
) -> Trained:
    """Return the network of ``params``, trained or from the ``store``; the record of ``run`` names data and weights.

    Raises:
        UserError: the network gets fewer than four test images right.
    """
    counts = {"train": params.n_train, "validation": None, "test": None}
    sets = [
        data.load(
            params.dataset, params.data_root, split=split, n=n, size=params.size, channels=params.channels
        )
        for split, n in counts.items()
    ]
    for images in sets:
        run.data(images)
    train, validation, test = (images.stack() for images in sets)
    untrained = models.load(
        params.model,
        classes=sets[0].classes,
        weights=params.weights,
        channels=train[0].shape[1],
        input_size=params.size,
        width=params.width,
        dropout=dropout,
        seed=params.seed,
    ).to(params.torch_device)
    network = steps.trained(store, "digit", untrained, *train, validation=validation, recipe=recipe).model
    run.model("digits", network)
    right = models.predict(network, test[0]).argmax(1) == test[1]
    order = shuffled(len(right))
    taken = order[right[order]][: params.n_images]
    if len(taken) < 4:
        raise UserError(f"{params.model} classifies only {len(taken)} test images correctly: train it longer")
    return Trained(untrained, network, train, validation, test, right, taken)


def shuffled(n: int, key: int = 0) -> Tensor:
    """Return an order (n,) of images, the same in every run: the seed of the parameters chooses none.

    Args:
        n: number of images.
        key: another one gives another order.
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(key))


def start_network(params: NotebookParameters, images: data.ImageSet, size: int) -> models.Classifier:
    """Return the network that the parameters name, for images of ``size`` pixels a side, before any training here."""
    return models.load(
        params.model,
        classes=images.classes,
        weights=params.weights,
        channels=images.stack([0])[0].shape[1],
        input_size=size,
        seed=params.seed,
    ).to(params.torch_device)


def evenly(given: Any, most: int) -> Any:
    """Return at most so many of an array or tensor (N, ...), evenly spaced: the first ones of a set are of one class."""
    places = torch.linspace(0, len(given) - 1, min(most, len(given))).round().long()
    return given[places if isinstance(given, Tensor) else places.numpy()]


def _subject(model: models.Classifier, images: data.ImageSet, n: int | None) -> Subject:
    """Take up to ``n`` correctly classified images, of all classes alike."""
    pictures, labels = images.stack()
    right = (models.predict(model, pictures).argmax(dim=1) == labels).nonzero().squeeze(1)
    if not len(right):
        raise UserError(f"{model.name} classifies no test image of {images.name} correctly: train it longer")
    accuracy = len(right) / len(labels)
    right = right[labels[right].argsort(stable=True)]
    chosen = evenly(right, n or len(right))
    return Subject(
        model, pictures[chosen], labels[chosen], tuple(images.classes), accuracy, len(labels), chosen
    )
