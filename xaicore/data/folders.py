"""Image sets in a folder of the reader's own: where it is, how it is laid out, what is train and test.

Layouts, with any class names and any file names:

- ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``, optionally ``val/<class>/*.jpg``;
- ``<class>/*.jpg`` alone: each class is split 80/10/10 into train, validation and test.

Without a validation folder, a tenth of each class of the train folder becomes the validation split. A split
never depends on the seed of a run. For ImageNet the class folders are synsets, any subset of the 1,000, and
the labels are the true class indices.
"""

import os
import re
from collections.abc import Collection as Members
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from xaicore.core.errors import UserError, some_names
from xaicore.data.sampling import stratified
from xaicore.data.sources import FileSource, Source

SPLITS = ("train", "validation", "train+validation", "test", "all")
SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".gif", ".tif", ".tiff", ".webp")
CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")
LAYOUT = "{train,test}/<class>/*.jpg or <class>/*.jpg"
Wanted = Members[str | int] | None
Root = str | os.PathLike[str] | None
SPLIT_SEED = 0  # how a set is split is part of the set, not of a run: one constant for everyone


class Collection(NamedTuple):
    """Labelled images before any selection: what a reader of a set gives back."""

    source: Source
    labels: Tensor
    classes: tuple[str, ...]
    indices: Tensor | None = None

    def cut(self, split: str, fractions: Sequence[float], name: str) -> "Collection":
        """Return a split of the collection, called ``name``, by (train, validation, test) fractions of each class."""
        if split == "all":
            return self
        train, validation, *rest = stratified(
            self.labels, fractions, SPLIT_SEED, lambda k: f"class {self.classes[k]!r} of {name}"
        )
        parts = {"train": train, "validation": validation, "train+validation": sorted(train + validation)}
        if rest:
            parts["test"] = rest[0]
        indices = torch.tensor(parts[split], dtype=torch.int64)
        return self._replace(labels=self.labels[indices], indices=indices)


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Return a sort key under which ``s2`` comes before ``s10``."""
    pieces = re.findall(r"\d+|\D+", path.name)
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def given_folder(name: str, root: Root = None) -> tuple[Path, str]:
    """Return the folder ``root``, or ``$XAICORE_DATA``, that a user gave for a set, and how to name it in a message.

    Raises:
        UserError: none is given, or there is no such folder.
    """
    given = os.environ.get("XAICORE_DATA", "") if root is None else os.fspath(root)
    if not given:
        raise UserError(
            f"{name} is read from a folder: give data_root, or set XAICORE_DATA to the folder that holds it"
        )
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {root}; data_root must be the folder of {name} or its parent"
            if root is not None
            else f"XAICORE_DATA names a folder that is not there; it must be the one that holds {name}"
        )
    return folder, "$XAICORE_DATA" if root is None else str(root)


def find_root(name: str, root: Root = None) -> Path:
    """Find the folder of an image set, as :func:`xaicore.data.find_root` does.

    Raises:
        UserError: no root is given, there is no such folder, or several folders could be meant.
    """
    folder, shown = given_folder(name, root)
    if folder.resolve().name.startswith(name) and _own_folder(folder):
        return folder
    inside = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name.startswith(name))
    exact = [entry for entry in inside if entry.name == name]
    if len(exact or inside) == 1:
        return (exact or inside)[0]
    if inside:
        names = ", ".join(entry.name for entry in inside)
        raise UserError(
            f"{shown} holds several folders for {name} ({names}); give the one you mean as data_root"
        )
    if _own_folder(folder):
        return folder
    raise UserError(
        f"{shown} holds no folder whose name starts with {name}, and is itself not laid out as {LAYOUT}"
    )


def _own_folder(folder: Path) -> bool:
    """Whether the folder itself looks like an image set: split folders, or a class folder with an image."""
    return bool(_split_folders(folder)) or any(
        file.suffix.lower() in IMAGE_SUFFIXES
        for child in folder.iterdir()
        if child.is_dir()
        for file in child.iterdir()
    )


def read_folder(root: Path, split: str, only: Wanted = None) -> Collection:
    """Read one split of a folder of classes (layouts above).

    Args:
        root: the folder.
        split: one of :data:`SPLITS`.
        only: names or positions of the classes whose folders are looked into; None: all. Labels and class names stay
            those of the whole folder.

    Raises:
        UserError: the layout is wrong, a class has no image, or there is no such split.
    """
    folders = _split_folders(root)
    parts: list[str] = []
    fractions: tuple[float, ...] = ()
    if not folders:
        fractions = (0.8, 0.1, 0.1)
    elif split == "all":
        parts = list(folders)
    elif split == "test" or "validation" in folders:
        parts = split.split("+")
    else:
        parts, fractions = ["train"], (0.9, 0.1)
    for part in parts:
        if part not in folders:
            there = ", ".join(folder.name for folder in folders.values())
            raise UserError(
                f"{root.name} has no folder for the {part} split, only {there}; expected {LAYOUT}"
            )
    names = _class_names(next(iter(folders.values()), root), root)
    files: list[tuple[Path, int]] = []
    for place in [folders[part] for part in parts] or [root]:
        if odd := sorted(set(_class_names(place, root)) ^ set(names)):
            raise UserError(
                f"{root.name} has class folder {odd[0]!r} in one split but not in the other; make the classes agree"
            )
        files += _scan(place, root, dict(zip(names, range(len(names)), strict=True)), names, only)
    everything = _collection(files, root, names)
    return everything.cut(split, fractions, root.name) if fractions else everything


def read_imagenet(
    root: Path, split: str, synsets: dict[str, int], classes: tuple[str, ...], only: Wanted = None
) -> Collection:
    """Read one split of ImageNet: synset folders under ``val/``, ``train/`` or in the folder itself.

    The validation photographs of ImageNet, or a folder of synsets without split folders, are the test split; there are
    ``"train"``, ``"test"`` and ``"all"``. In ``synsets`` is the class index of each, in ``classes`` the 1,000 names;
    ``only`` is as in :func:`read_folder`.

    Raises:
        UserError: a folder is not a synset, has no image, or there is no such split.
    """
    folders = _split_folders(root)
    wanted = {
        "train": [folders[part] for part in ("train",) if part in folders],
        "test": [folders[part] for part in ("test", "validation") if part in folders][:1],
        "all": list(folders.values()),
    }.get(split, [])
    if not folders and split in ("test", "all"):
        wanted = [root]
    if not wanted:
        raise UserError(
            f"{root.name} has no {split} split; expected {{train,val}}/<synset>/*.jpg or <synset>/*.jpg"
        )
    files: list[tuple[Path, int]] = []
    for folder in wanted:
        for name in _class_names(folder, root):
            if name not in synsets:
                raise UserError(
                    f"{name} in {root.name} is no ImageNet synset; expected folders such as n01440764"
                )
        files += _scan(folder, root, synsets, classes, only)
    return _collection(files, root, classes)


def _split_folders(root: Path) -> dict[str, Path]:
    found = {
        split: [root / name for name in names if (root / name).is_dir()]
        for split, names in SPLIT_FOLDERS.items()
    }
    return {split: folders[0] for split, folders in found.items() if folders}


def _entries(folder: Path, *, folders: bool) -> list[Path]:
    """Return the folders or the files in a folder in their natural order, without clutter."""
    found = (entry for entry in os.scandir(folder) if entry.is_dir() == folders)
    return sorted(
        (Path(e.path) for e in found if not e.name.startswith(".") and e.name.lower() not in CLUTTER),
        key=natural,
    )


def _class_names(folder: Path, root: Path) -> tuple[str, ...]:
    names = tuple(entry.name for entry in _entries(folder, folders=True))
    if not names:
        raise UserError(f"{_shown(folder, root)} has no class folders; expected {LAYOUT}")
    return names


def _scan(
    folder: Path, root: Path, labels: dict[str, int], classes: tuple[str, ...], only: Wanted
) -> list[tuple[Path, int]]:
    """Return the files of the class folders asked for, each with its label."""
    files: list[tuple[Path, int]] = []
    strangers: list[str] = []
    for name in _class_names(folder, root):
        label = labels[name]
        if only is not None and label not in only and classes[label] not in only:
            continue  # what is no class is told where classes are selected
        found = _entries(folder / name, folders=False)
        if not found:
            raise UserError(_without_images(folder / name, root))
        files += [(file, label) for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
        strangers += [_shown(file, root) for file in found if file.suffix.lower() not in IMAGE_SUFFIXES]
    if strangers:
        raise UserError(
            f"{some_names(strangers)} {'are no image files' if len(strangers) > 1 else 'is no image file'} "
            "(.jpg, .png, …); remove what is no image from the class folders"
        )
    return files


def _without_images(folder: Path, root: Path) -> str:
    if not (inner := sorted(entry.name for entry in folder.iterdir() if entry.is_dir())):
        return f"class folder {_shown(folder, root)} has no image; add images or remove the folder"
    return (
        f"class folder {_shown(folder, root)} has no image of its own, only folders ({inner[0]}, …); "
        f"move what is in it up, or give it as data_root: expected {LAYOUT}"
    )


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root.parent).as_posix()


def _collection(files: list[tuple[Path, int]], root: Path, classes: tuple[str, ...]) -> Collection:
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return Collection(FileSource([file for file, _ in files], root.parent), labels, classes)
