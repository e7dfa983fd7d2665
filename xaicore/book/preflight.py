"""What can be known to go wrong before any minute is spent: data, weights, room on the disk."""

import json
import shutil
from collections.abc import Mapping
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
from xaicore.params import NotebookParameters, P1Parameters

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


def check_folders(chosen: Mapping[str, NotebookParameters]) -> None:
    """Look for the folders of all image sets at once, so that nobody mends one and then hears of the next.

    Args:
        chosen: notebook → its parameters.

    Raises:
        UserError: several sets are not there. Where it is one, the notebook that needs it says so itself.
    """
    lacking: dict[str, list[str]] = {}
    reasons = []
    for notebook, parameters in chosen.items():
        sets = [(parameters.dataset, parameters.data_root)]
        sets += [(other.set_of(parameters) or "", parameters.other_root) for other in OTHERS]
        for name, root in dict.fromkeys(sets):
            if not name or SETS[name].read_root is None:
                continue
            try:
                xaicore.data.find_root(name, root)
            except UserError as error:
                lacking.setdefault(name, []).append(notebook)
                reasons.append(str(error))
    if len(lacking) < 2:
        return
    places = "; ".join(f"{name} (for {', '.join(notebooks)})" for name, notebooks in lacking.items())
    without = [name for name in chosen if not any(name in notebooks for notebooks in lacking.values())]
    rest = f"; without them: --only {','.join(without)}" if without else ""
    raise UserError(f"image sets are missing: {places}; {reasons[0]}{rest}")


def check_model(parameters: NotebookParameters) -> None:
    """Raise a :class:`~xaicore.errors.UserError` when a network cannot be built or its weights do not fit.

    Published weights, which may have to be downloaded, are left to the notebook.
    """
    if parameters.weights != "imagenet":
        options: dict[str, Any] = {"classes": len(_classes(parameters)), "weights": parameters.weights}
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
        test = _load(parameters, "test", None if hasattr(parameters, "shares") else parameters.n_images)
        if isinstance(parameters, P1Parameters):
            parameters.check_test_images(test.name, len(test))
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


def _classes(parameters: NotebookParameters) -> tuple[str, ...]:
    images = _load(parameters, "test", None)
    if len(images.classes) < 2:
        raise UserError(
            f"{images.name} has a single class, {images.classes[0]!r}, but a network needs at least two: add a folder"
        )
    return images.classes


def _stamp(folder: Path) -> str:
    """Return a digest of names, sizes and times of the files in ``folder``: equal until one is touched."""
    entries = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            facts = path.stat()
            entries.append([path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns])
    return digest(str(folder.resolve()), entries)
