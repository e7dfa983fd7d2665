"""The networks of chapter 3 and the images whose layers are watched: faces, photographs, or any folder of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from xaicore import data, models
from xaicore.core.batches import even_batch
from xaicore.core.errors import UserError
from xaicore.studies import steps
from xaicore.studies.face_networks import face_backbone, face_sets, with_head
from xaicore.studies.subjects import Subject

if TYPE_CHECKING:
    from xaicore.run.params.chapter3 import P3Parameters
    from xaicore.run.records import Run
    from xaicore.run.store import Store


def first_subject(params: P3Parameters, store: Store, run: Run) -> Subject:
    """Return the network of the parameters and the test images that it gets right.

    Faces: the network of chapter 2, trained on the spot, for the cropped images. ImageNet photographs: the network with
    the given weights. Any other set: a file of weights as it is; ``imagenet``: the head is trained; none: the whole
    network is trained on the set's own training images.

    Args:
        params: which set, network and weights.
        store: keeps what is trained.
        run: its record names the data and the weights.

    Raises:
        UserError: something does not fit, or the network gets no image right.
    """
    if params.with_faces:
        channels = 3 if params.weights is not None else None
        faces = face_sets(
            store,
            params.dataset,
            params.data_root,
            size=params.size,
            shares=params.shares,
            n_images=params.n_images,
            channels=channels,
        )
        title = "VGG16" if params.model == "vgg16" else params.model
        backbone, _ = face_backbone(
            store,
            params.model,
            faces,
            recipe=models.face_recipe(params.model, **_training(params)),
            weights=params.weights,
            title=title,
            device=params.torch_device,
            seed=params.seed,
        )
        model = with_head(store, title, backbone, faces, "aligned", recipe=_head_recipe(params))
        test = faces["test"]
        for part in faces.values():
            run.data(part.images)
        return _right(run, "first", model, test.aligned, test.labels, test.images)
    test_images = _load(params, "test", params.n_images)
    run.data(test_images)
    model = _network(params, store, run, test_images).to(params.torch_device)
    return _right(run, "first", model, *test_images.stack(), test_images)


def second_subject(params: P3Parameters, run: Run) -> Subject | None:
    """Return the second network and the images of its own set that it gets right; None where none is asked for."""
    if params.second_dataset is None:
        return None
    images = data.load(
        params.second_dataset,
        params.other_root,
        split="test",
        n=params.n_second if params.second_dataset != "imagenet-20" or params.n_second < 20 else None,
        size=params.second_size,
    )
    model = models.load(
        params.second_model,
        weights=params.second_weights,
        classes=images.classes,
        channels=3,
        input_size=params.second_size,
    ).to(params.torch_device)
    run.data(images)
    return _right(run, "second", model, *images.stack(), images)


def eight_bit(images: Tensor) -> Tensor:
    """Return images in [0, 1] rounded to whole grey levels of 1/255, as pictures are stored."""
    return (images * 255).round() / 255


def _network(params: P3Parameters, store: Store, run: Run, images: data.ImageSet) -> models.Classifier:
    options: dict[str, Any] = {
        "classes": images.classes,
        "channels": images.stack([0])[0].shape[1],
        "input_size": params.size,
        "seed": params.seed,
    }
    if not params.trains:
        return models.load(params.model, weights=params.weights, **options)
    train, validation = (
        _load(params, split, n) for split, n in (("train", params.n_train), ("validation", None))
    )
    run.data(train)
    start = models.load(params.model, weights=params.weights, **options).to(params.torch_device)
    if params.weights == "imagenet":
        fit, recipe = steps.head_trained, _head_recipe(params)
    else:
        fit, recipe = steps.trained, models.face_recipe(params.model, **_training(params))
    found = fit(
        store, params.model, start, *train.stack(), validation=validation.stack(), recipe=recipe
    ).model
    return found.fold_batchnorm() if params.weights is None and params.model.startswith("vgg") else found


def _load(params: P3Parameters, split: str, n: int | None) -> data.ImageSet:
    images = data.load(params.dataset, params.data_root, split=split, size=params.size)
    return images if n is None or n >= len(images) else images.subset(n)


def _training(params: P3Parameters) -> dict[str, Any]:
    return {
        "epochs": params.epochs,
        "batch_size": params.batch_size,
        "learning_rate": params.learning_rate,
        "augment": params.augment,
        "seed": params.seed,
    }


def _head_recipe(params: P3Parameters) -> models.Recipe:
    return models.Recipe(
        epochs=params.head_epochs, batch_size=32, learning_rate=params.head_learning_rate, seed=params.seed
    )


def _right(
    run: Run, label: str, model: models.Classifier, pictures: Tensor, labels: Tensor, images: data.ImageSet
) -> Subject:
    """Take the images that ``model`` classifies correctly, as 8-bit pictures."""
    stored = eight_bit(pictures)
    predictions = models.predict(model, stored, even_batch(stored, 256, model.device)).argmax(1)
    right = (predictions == labels).nonzero().squeeze(1)
    if not len(right):
        raise UserError(f"{model.name} classifies no image of {images.name} correctly: train it longer")
    run.model(label, model)
    accuracy = len(right) / len(labels)
    return Subject(model, stored[right], labels[right], tuple(images.classes), accuracy, len(labels), right)
