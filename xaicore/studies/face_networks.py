"""Faces prepared in two ways and a network trained on them, as chapter 2 introduces them and chapter 3 uses them again.

The images are taken as they are and cropped to the face. The network is trained whole on both and its head once more on
the cropped ones, or, where there are published weights, its head alone. Both chapters make the same calls of
:mod:`xaicore.studies.steps`, so what one of them has computed the other takes from the ``store``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xaicore import data, models
from xaicore.core.errors import UserError
from xaicore.studies import steps
from xaicore.studies.narrow_networks import narrowed

if TYPE_CHECKING:
    from xaicore.run.store import Store

PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Faces:
    """The images of one part of a set of faces.

    Attributes:
        images: what they came from, at their size.
        raw: (N, C, size, size) as they are.
        aligned: (N, C, size, size) cropped to the face.
        found: (N,) bool, whether a face was found.
        labels: (N,) int64.
    """

    images: data.ImageSet
    raw: Tensor
    aligned: Tensor
    found: Tensor
    labels: Tensor


def face_sets(
    store: Store,
    dataset: str,
    data_root: str | None,
    *,
    size: int,
    shares: list[float] | None = None,
    n_images: int | None = None,
    channels: int | None = None,
) -> dict[str, Faces]:
    """Return training, validation and test faces, prepared in both ways.

    Args:
        store: keeps the cropped faces.
        dataset: its name; ``data_root`` as in :func:`xaicore.data.load`.
        size: height and width of the images in pixels.
        shares: of training, validation and test images of a person; None: the set's own split.
        n_images: test images at most, evenly over the people; None: all.
        channels: of the images; None: as the set has.

    Raises:
        UserError: a folder or file does not fit.
    """

    def parts(side: int | None) -> list[data.ImageSet]:
        options: dict[str, Any] = {"size": side, "channels": channels}
        if shares is None:
            splits = ("train", "validation", "test")
            found = [data.load(dataset, data_root, split=split, **options) for split in splits]
        else:
            found = list(data.load(dataset, data_root, split="all", **options).partition(shares))
        return found if n_images is None else [*found[:2], found[2].subset(min(n_images, len(found[2])))]

    def prepared(stored: data.ImageSet, resized: data.ImageSet) -> Faces:
        stored.verify()
        kept = store.get_or_compute(
            "crop-faces",
            {"images": stored.fingerprint, "size": size},
            lambda: data.crop_faces(stored, size)._asdict(),
            code=data.crop_faces,
        )
        return Faces(resized, resized.stack()[0], kept["images"], kept["found"], resized.labels)

    return dict(zip(PARTS, map(prepared, parts(None), parts(size)), strict=True))


def face_backbone(
    store: Store,
    name: str,
    faces: dict[str, Faces],
    *,
    recipe: models.Recipe,
    weights: str | None = None,
    width: float = 1.0,
    title: str | None = None,
    device: torch.device | None = None,
    seed: int = 0,
) -> tuple[models.Classifier, models.TrainingResult | None]:
    """Return a network before its head is trained for one way of preparing the faces, and how it was trained.

    Args:
        store: keeps what is trained.
        name: of the architecture; progress lines have its ``title`` or else this.
        faces: from :func:`face_sets`.
        recipe: how the whole network is trained on both kinds of images, where no weights are given.
        weights: published weights or a file of them, taken as they are; None: none.
        width: channels of each layer relative to the architecture's own, where no weights are given.
        device: where it is; None: the CPU.

    Returns:
        The network, batch normalisation folded away in VGGs, and its training; None with given weights.

    Raises:
        UserError: name or weights do not fit.
    """
    train, validation = faces["training"], faces["validation"]
    options: dict[str, Any] = {
        "classes": train.images.classes,
        "channels": train.raw.shape[1],
        "input_size": train.raw.shape[-1],
    }
    if weights is None and models.REGISTRY[name].dropout is not None:
        options["dropout"] = 0.0
    scalable = weights is None and models.REGISTRY[name].scalable
    options["width"] = width if scalable else 1.0
    start = models.load(name, weights=weights, seed=seed, **options).to(device or torch.device("cpu"))
    if weights is not None:
        return start, None
    if not scalable:
        start = narrowed(start, width, seed=seed)
    both, held_out = (
        (torch.cat([part.raw, part.aligned]), torch.cat([part.labels] * 2)) for part in (train, validation)
    )
    start = models.start_as_identity(start)
    result = steps.trained(store, title or name, start, *both, validation=held_out, recipe=recipe)
    network = result.model.fold_batchnorm() if name.startswith("vgg") else result.model
    return network.to(memory_format=torch.channels_last), result  # type: ignore[call-overload]


def published_weights(name: str, data_root: str | None) -> str:
    """Return the ``weights`` of :func:`xaicore.models.load` with which a network is published: a file or ``"imagenet"``.

    Args:
        name: of the architecture.
        data_root: folder whose folder ``weights`` may hold a file ``<name>-….safetensors``; None: ``$XAICORE_DATA``.

    Raises:
        UserError: there are neither.
    """
    given = data_root or os.environ.get("XAICORE_DATA")
    files = sorted(Path(given, "weights").glob(f"{name}-*.safetensors")) if given else []
    if len(files) > 1:
        raise UserError(
            f"the folder weights holds several files of {name}: {', '.join(file.name for file in files)}"
        )
    if not files and models.REGISTRY[name].imagenet is None:
        raise UserError(
            f"there are no published weights of {name}: put a file {name}-….safetensors into a folder weights "
            "in data_root or $XAICORE_DATA, or leave it out of published"
        )
    return str(files[0]) if files else "imagenet"


def with_head(
    store: Store,
    name: str,
    backbone: models.Classifier,
    faces: dict[str, Faces],
    kind: str,
    *,
    recipe: models.Recipe,
) -> models.Classifier:
    """Return a network from :func:`face_backbone` with a head trained on one kind of ``faces``, ``raw`` or ``aligned``.

    Progress lines call it ``name``.
    """
    (images, labels), held_out = (
        (getattr(faces[part], kind), faces[part].labels) for part in ("training", "validation")
    )
    found = steps.trained(
        store, name, backbone, images, labels, validation=held_out, recipe=recipe, head=True
    ).model
    # What is frozen is equal: one copy of it in memory serves every head.
    head, frozen = f"network.{models.REGISTRY[backbone.name].head}", backbone.state_dict()
    for key, tensor in found.state_dict(keep_vars=True).items():
        if not key.startswith(head):
            tensor.data = frozen[key]
    return found
