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
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xaicore.core.errors import UserError, some_names
from xaicore.data.sampling import stratified
from xaicore.data.sources import FileSource, Source

SPLITS = ("train", "validation", "train+validation", "test", "all")
SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
)
CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
LAYOUT = "{train,test}/<class>/*.jpg or <class>/*.jpg"
Wanted = Members[str | int] | None
SPLIT_SEED = 0  # how a set is split is part of the set, not of a run: one constant for everyone


@dataclass(frozen=True)
class Collection:
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
        return Collection(self.source, self.labels[indices], self.classes, indices)


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Return a sort key under which ``s2`` comes before ``s10``."""
    pieces = re.findall(r"\d+|\D+", path.name)
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def given_folder(name: str, root: str | os.PathLike[str] | None = None) -> tuple[Path, str]:
    """Return the folder that a user gave for an image set, and how to name it in a message.

    Args:
        name: the set's name.
        root: the folder; ``$XAICORE_DATA`` when None.

    Raises:
        UserError: none is given, or there is no such folder.
    """
    shown = "$XAICORE_DATA" if root is None else str(root)
    given = os.environ.get("XAICORE_DATA", "") if root is None else os.fspath(root)
    if not given:
        raise UserError(
            f"{name} is read from a folder: give data_root, or set XAICORE_DATA to the folder that holds it"
        )
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {shown}; data_root must be the folder of {name} or its parent"
            if root is not None
            else f"XAICORE_DATA names a folder that is not there; it must be the one that holds {name}"
        )
    return folder, shown


def find_root(name: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Find the folder of an image set.

    Args:
        name: the set's name, say ``"faces"``.
        root: the set's own folder, or a folder that holds one whose name starts with ``name``, say
            ``faces-21``; ``$XAICORE_DATA`` when None.

    Returns:
        The set's own folder.

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
    children = [entry for entry in folder.iterdir() if entry.is_dir()]
    splits = {name for names in SPLIT_FOLDERS.values() for name in names}
    return any(
        child.name in splits or any(file.suffix.lower() in IMAGE_SUFFIXES for file in child.iterdir())
        for child in children
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
    chosen = _chosen(names, only)
    places = [folders[part] for part in parts] or [root]
    everything = _collection(
        [file for place in places for file in _scan(place, root, names, chosen)], root, names
    )
    return everything.cut(split, fractions, root.name) if fractions else everything


def read_imagenet(
    root: Path, split: str, synsets: dict[str, int], classes: tuple[str, ...], only: Wanted = None
) -> Collection:
    """Read one split of ImageNet: synset folders under ``val/``, ``train/`` or in the folder itself.

    The validation photographs of ImageNet, or a folder of synsets without split folders, are the test split.

    Args:
        root: the folder.
        split: ``"train"``, ``"test"`` or ``"all"`` (everything there is).
        synsets: class index of each synset.
        classes: the 1,000 class names.
        only: names or indices of the classes whose folders are looked into; None: all.

    Raises:
        UserError: a folder is not a synset, has no image, or there is no such split.
    """
    folders = _split_folders(root)
    wanted = {
        "train": [folders[part] for part in ("train",) if part in folders],
        "test": [folders[part] for part in ("test", "validation") if part in folders][:1]
        or ([] if folders else [root]),
        "all": list(folders.values()) or [root],
    }.get(split, [])
    if not wanted:
        raise UserError(
            f"{root.name} has no {split} split; expected {{train,val}}/<synset>/*.jpg or <synset>/*.jpg"
        )
    files: list[tuple[Path, int]] = []
    chosen = _chosen(classes, only)
    for folder in wanted:
        names = _class_names(folder, root)
        unknown = [name for name in names if name not in synsets]
        if unknown:
            raise UserError(
                f"{unknown[0]} in {root.name} is no ImageNet synset; expected folders such as n01440764"
            )
        labels = [synsets[name] for name in names]
        found = _scan(folder, root, names, {k for k, label in enumerate(labels) if label in chosen})
        files += [(file, labels[k]) for file, k in found]
    return _collection(files, root, classes)


def _split_folders(root: Path) -> dict[str, Path]:
    found = {}
    for split, names in SPLIT_FOLDERS.items():
        for name in names:
            if (root / name).is_dir():
                found[split] = root / name
                break
    return found


def _class_names(folder: Path, root: Path) -> tuple[str, ...]:
    folders = [
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry.name.lower() not in CLUTTER and entry.is_dir()
    ]
    if not folders:
        raise UserError(f"{_shown(folder, root)} has no class folders; expected {LAYOUT}")
    return tuple(entry.name for entry in sorted(folders, key=natural))


def _chosen(names: tuple[str, ...], only: Wanted) -> set[int]:
    """Return the positions of the classes asked for; what is no class is told where classes are selected."""
    if only is None:
        return set(range(len(names)))
    return {
        names.index(entry) if isinstance(entry, str) else entry
        for entry in only
        if entry in names or isinstance(entry, int)
    }


def _scan(folder: Path, root: Path, names: tuple[str, ...], chosen: set[int]) -> list[tuple[Path, int]]:
    """Return the files of the chosen classes, each with the position of its class among ``names``."""
    found = _class_names(folder, root)
    if found != names:
        odd = sorted(set(found) ^ set(names))[0]
        raise UserError(
            f"{root.name} has class folder {odd!r} in one split but not in the other; make the classes agree"
        )
    files: list[tuple[Path, int]] = []
    strangers: list[str] = []
    for label in sorted(chosen & set(range(len(found)))):
        members, others = _images(folder / found[label])
        if not members and not others:
            raise UserError(_without_images(folder / found[label], root))
        files.extend((file, label) for file in members)
        strangers.extend(_shown(other, root) for other in others)
    if strangers:
        raise UserError(
            f"{some_names(strangers)} {'are no image files' if len(strangers) > 1 else 'is no image file'} "
            "(.jpg, .png, …); remove what is no image from the class folders"
        )
    return files


def _images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files of a class folder, and the files that are none by their suffix."""
    files: list[Path] = []
    others: list[Path] = []
    for entry in os.scandir(folder):
        if entry.name.startswith(".") or entry.name.lower() in CLUTTER or entry.is_dir():
            continue
        path = Path(entry.path)
        (files if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path)
    return sorted(files, key=natural), sorted(others, key=natural)


def _without_images(folder: Path, root: Path) -> str:
    inner = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not inner:
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
