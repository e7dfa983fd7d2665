"""The networks of chapter 3 and the images whose layers are watched: faces, photographs, or any folder of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from xaicore import data, models
from xaicore.core.batches import even_batch
from xaicore.core.errors import UserError
from xaicore.studies import steps
from xaicore.studies.face_networks import face_backbone, face_sets, with_head
from xaicore.studies.subjects import Subject, start_network

if TYPE_CHECKING:
    from xaicore.run.params.chapter3 import P3Parameters
    from xaicore.run.records import Run
    from xaicore.run.store import Store


def first_subject(params: P3Parameters, store: Store, run: Run) -> Subject:
    """Return the network of the parameters and the test images that it gets right.

    Faces: the network of chapter 2, trained on the spot, for the cropped images. ImageNet photographs: the network with
    the given weights. Any other set: a file of weights as it is; ``imagenet``: the head is trained; none: the whole
    network is trained on the set's own training images. The ``store`` keeps what is trained; the record of ``run`` names
    the data and the weights.

    Raises:
        UserError: something does not fit, or the network gets no image right.
    """
    recipe = models.face_recipe(
        params.model,
        epochs=params.epochs,
        batch_size=params.batch_size,
        learning_rate=params.learning_rate,
        augment=params.augment,
        seed=params.seed,
    )
    head_recipe = models.Recipe(
        epochs=params.head_epochs, batch_size=32, learning_rate=params.head_learning_rate, seed=params.seed
    )
    if params.with_faces:
        faces = face_sets(
            store,
            params.dataset,
            params.data_root,
            size=params.size,
            shares=params.shares,
            n_images=params.n_images,
            channels=3 if params.weights is not None else None,
        )
        title = "VGG16" if params.model == "vgg16" else params.model
        given: dict[str, Any] = {
            "weights": params.weights,
            "device": params.torch_device,
            "seed": params.seed,
        }
        backbone, _ = face_backbone(store, params.model, faces, recipe=recipe, title=title, **given)
        model = with_head(store, title, backbone, faces, "aligned", recipe=head_recipe)
        for part in faces.values():
            run.data(part.images)
        test = faces["test"]
        return _right(run, "first", model, test.aligned, test.labels, test.images)
    readings = params.readings if params.second_dataset is None else params.readings[:-1]
    images, *others = (each for reading in readings for each in reading.load(size=params.size))
    run.data(images)
    model = start_network(params, images, params.size)
    if params.trains:
        train, validation = others
        run.data(train)
        head = params.weights == "imagenet"
        fit: dict[str, Any] = {"recipe": head_recipe if head else recipe, "head": head}
        model = steps.trained(
            store, params.model, model, *train.stack(), validation=validation.stack(), **fit
        ).model
        if params.weights is None and params.model.startswith("vgg"):
            model = model.fold_batchnorm()
    return _right(run, "first", model, *images.stack(), images)


def second_subject(params: P3Parameters, run: Run) -> Subject | None:
    """Return the second network and the images of its own set that it gets right; None where none is asked for."""
    if params.second_dataset is None:
        return None
    (images,) = params.readings[-1].load(size=params.second_size)
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
