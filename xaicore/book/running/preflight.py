"""What can be known to go wrong before any minute is spent: data, weights, room on the disk."""

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import xaicore.data
import xaicore.models
from xaicore.core.errors import UnreadableFiles, UserError
from xaicore.core.files import nearest, write_atomically
from xaicore.core.fingerprint import digest
from xaicore.data import SETS, ImageSet
from xaicore.run.params import NotebookParameters
from xaicore.run.params.readings import Reading

ROOM_BYTES = 200 * 2**20


def check_room(folder: Path) -> None:
    """Raise a :class:`~xaicore.core.errors.UserError` when the disk of ``folder`` is as good as full."""
    free = shutil.disk_usage(nearest(folder)).free
    if free < ROOM_BYTES:
        raise UserError(
            f"only {free // 2**20} MiB are free on the disk of the runs; make room for {ROOM_BYTES // 2**20}"
        )


def check_folders(chosen: Mapping[str, NotebookParameters]) -> None:
    """Look for the folders of all image sets at once, so that nobody mends one and then hears of the next.

    Raises:
        UserError: several sets are not there. Where it is one, the notebook that needs it says so itself.
    """
    lacking: dict[str, list[str]] = {}
    reasons = []
    for notebook, parameters in chosen.items():
        for name, root in {(reading.dataset, reading.root): None for reading in parameters.readings}:
            try:
                if SETS[name].read_root is not None:
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
    """Raise a :class:`~xaicore.core.errors.UserError` when a network cannot be built or its weights do not fit.

    Published weights, which may have to be downloaded, are left to the notebook.
    """
    for subject in parameters.subjects:
        if subject.model is None or subject.weights == "imagenet":
            continue
        images = xaicore.data.load(subject.dataset, subject.root, classes=subject.classes)
        if len(images.classes) < 2:
            raise UserError(
                f"{images.name} has a single class, {images.classes[0]!r}, but a network needs at least two: add a folder"
            )
        options = {"channels": SETS[subject.dataset].channels, "input_size": subject.size, **subject.options}
        xaicore.models.load(subject.model, len(images.classes), subject.weights, **options)


def check_data(parameters: NotebookParameters, memory: Path) -> str:
    """Open the image sets, decode every file that the notebook will read once, and return a fingerprint of all of it.

    Args:
        parameters: of a notebook.
        memory: a folder to remember verified images in; those whose files have not changed are not decoded again.

    Raises:
        UnreadableFiles: naming all files that are no images.
        UserError: the folder is missing or laid out wrongly, a class is not there, or there are fewer images than
            asked for.
    """
    parts = [
        (reading, images, position)
        for reading in parameters.readings
        for position, images in enumerate(reading.load())
    ]
    for reading, images, _ in parts:
        if reading.split == "test":
            parameters.check_test_images(images.name, len(images))
    fingerprints: list[str] = []
    reasons: dict[str, str] = {}
    for part in parts:
        try:
            fingerprints.append(_checked(*part, memory))
        except UnreadableFiles as error:
            reasons |= error.reasons
    if reasons:
        raise UnreadableFiles(reasons)
    return digest(fingerprints)


def _checked(reading: Reading, images: ImageSet, position: int, memory: Path) -> str:
    """Return the fingerprint of images; those in a folder are decoded unless they are remembered."""
    if SETS[reading.dataset].read_root is None:
        return _of_package(reading.dataset)
    folder = xaicore.data.find_root(reading.dataset, reading.root)
    states = [_state(file) for file in images.files or sorted(folder.iterdir())]
    selection = digest(reading, position, str(folder.resolve()), states)
    remembered = memory / f"{selection}.json"
    try:
        return str(json.loads(remembered.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        images.verify()
    content = json.dumps({"fingerprint": images.fingerprint})
    write_atomically(remembered, content, what="the check of the image set")
    return images.fingerprint


@cache
def _of_package(name: str) -> str:
    """Return the fingerprint of a set that comes inside a package, and so never changes."""
    return xaicore.data.load(name, split="all").fingerprint


def _state(file: Path) -> tuple[str, int, int]:
    """Return name, size and time of a file: equal until it is touched."""
    try:
        facts = file.stat()
    except OSError:
        return str(file), -1, -1  # gone since its folder was read: told when it is opened
    return str(file), facts.st_size, facts.st_mtime_ns
