"""What can be known to go wrong before any minute is spent: data, weights, room on the disk."""

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import xaicore.data
import xaicore.models
from xaicore.data import SETS, ImageSet
from xaicore.errors import UserError
from xaicore.files import write_atomically
from xaicore.fingerprint import digest
from xaicore.params import NotebookParameters

ROOM_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Other:
    """Names of the parameters for images beside the first set, and for the network that classifies them."""

    dataset: str
    model: str
    weights: str
    size: str

    def set_of(self, parameters: NotebookParameters) -> str | None:
        """Return the name of the set, None where a notebook has none."""
        return getattr(parameters, self.dataset, None)


OTHERS = (
    Other("photographs", "photograph_model", "photograph_weights", "photograph_size"),
    Other("second_dataset", "second_model", "second_weights", "second_size"),
)


def check_room(folder: Path) -> None:
    """Raise a :class:`~xaicore.errors.UserError` when the disk of ``folder`` is as good as full."""
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(nearest).free
    if free < ROOM_BYTES:
        raise UserError(
            f"only {free // 2**20} MiB are free on the disk of the runs; make room for {ROOM_BYTES // 2**20}"
        )


def check_model(parameters: NotebookParameters) -> None:
    """Raise a :class:`~xaicore.errors.UserError` when a network cannot be built or its weights do not fit.

    Published weights, which may have to be downloaded, are left to the notebook.
    """
    if parameters.weights != "imagenet":
        options: dict[str, Any] = {"classes": _class_count(parameters), "weights": parameters.weights}
        for name, argument in (("width", "width"), ("size", "input_size")):
            if hasattr(parameters, name):
                options[argument] = getattr(parameters, name)
        channels = getattr(parameters, "channels", None) or SETS[parameters.dataset].channels
        xaicore.models.load(parameters.model, channels=channels, **options)
    for other in OTHERS:
        weights = getattr(parameters, other.weights, "imagenet")
        if other.set_of(parameters) is not None and weights != "imagenet":
            images = xaicore.data.load(other.set_of(parameters) or "", root=parameters.other_root)
            xaicore.models.load(
                getattr(parameters, other.model),
                classes=images.classes,
                weights=weights,
                input_size=getattr(parameters, other.size),
            )


def check_data(parameters: NotebookParameters, memory: Path) -> str:
    """Open the image sets, decode every file of a set in a folder once, and return the fingerprint of all
    that the notebook reads.

    Args:
        parameters: of a notebook.
        memory: a folder to remember verified sets in; a set whose files have not changed is not decoded
            again.

    Raises:
        UserError: the folder is missing or laid out wrongly, a file is no image, a class is not there, or
            there are fewer images than asked for.
    """
    name, root = parameters.dataset, parameters.data_root
    shares = getattr(parameters, "shares", None)
    if shares is not None and parameters.trains:
        xaicore.data.load(name, root=root, split="all").partition(shares, seed=parameters.seed)
    else:
        # Chapters 2 and 3 take at most so many images, the others exactly.
        _load(parameters, "test", None if hasattr(parameters, "shares") else parameters.n_images)
    for split, count in (("train", "n_train"), ("validation", "n_validation")):
        if parameters.trains and hasattr(parameters, count):
            _load(parameters, split, getattr(parameters, count))
    first = _checked(name, root, memory)
    others = [other.set_of(parameters) for other in OTHERS]
    folders = [other for other in others if other is not None and SETS[other].read_root is not None]
    return (
        digest(first, [_checked(other, parameters.other_root, memory) for other in folders])
        if folders
        else first
    )


def _checked(name: str, root: str | None, memory: Path) -> str:
    """Return the fingerprint of a whole set; one in a folder is decoded unless it is remembered."""
    if SETS[name].read_root is None:
        return _of_package(name)
    whole = xaicore.data.load(name, root=root, split="all")
    remembered = memory / f"{_stamp(xaicore.data.find_root(name, root))}.json"
    try:
        return str(json.loads(remembered.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        whole.verify()
    write_atomically(
        remembered, json.dumps({"fingerprint": whole.fingerprint}), what="the check of the image set"
    )
    return whole.fingerprint


@cache
def _of_package(name: str) -> str:
    """Return the fingerprint of a set that comes inside a package, and so never changes."""
    return xaicore.data.load(name, split="all").fingerprint


def _load(parameters: NotebookParameters, split: str, n: int | None) -> ImageSet:
    return xaicore.data.load(
        parameters.dataset,
        root=parameters.data_root,
        split=split,
        n=n,
        seed=parameters.seed,
        classes=getattr(parameters, "classes", None),
    )


def _class_count(parameters: NotebookParameters) -> int:
    return len(_load(parameters, "test", None).classes)


def _stamp(folder: Path) -> str:
    """Return a digest of names, sizes and times of the files in ``folder``: equal until one is touched."""
    entries = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            facts = path.stat()
            entries.append([path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns])
    return digest(str(folder.resolve()), entries)
