"""MNIST as it was published: four files in the IDX format, 60,000 training and 10,000 test digits (LeCun et al. 1998).

They lie where torchvision puts them, ``MNIST/raw/`` below the folder given, or in any folder whose name begins with
``mnist``, or in the folder itself; packed with gzip or not. An IDX file is a magic number (0, 0, the type of the values,
the number of dimensions), the length of each dimension as a big-endian 32-bit number, and the values.
"""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from xaicore.core.errors import UserError
from xaicore.data.folders import Collection, Root, given_folder
from xaicore.data.sources import MemorySource

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
LAYOUT = "MNIST/raw/train-images-idx3-ubyte and the three files beside it, packed (.gz) or not"
MOST_BYTES = 2**30
"""Far above the 47 MB of MNIST: what claims to be larger is not unpacked."""


def find_mnist(name: str, root: Root = None) -> Path:
    """Return the folder that holds the four files: ``root`` (None: ``$XAICORE_DATA``) or one or two levels below it.

    Raises:
        UserError: no root is given, there is no such folder, or none of the files is in it.
    """
    folder, shown = given_folder(name, root)
    inside = sorted(child for child in folder.iterdir() if child.name.lower().startswith(name))
    for place in (path for parent in (folder, *inside) for path in (parent, parent / "raw")):
        if any(_file(place, part) for parts in FILES.values() for part in parts):
            return place
    raise UserError(f"{shown} holds no {name}; expected {LAYOUT}")


def read_mnist_files(folder: Path, split: str) -> Collection:
    """Read one split: the test files, or of the training files nine tenths (train) and one tenth (validation).

    Raises:
        UserError: a file is missing, damaged or of another kind, or images and labels do not belong together.
    """
    parts = {"test": ["test"], "all": ["train", "test"]}.get(split, ["train"])
    images, labels = zip(*(_part(folder, part) for part in parts), strict=True)
    everything = Collection(
        MemorySource(np.concatenate(images)),
        torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        tuple(map(str, range(10))),
    )
    return everything.cut(split, (0.9, 0.1), folder.name) if split in ("train", "validation") else everything


def _part(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    paths = []
    for name in FILES[part]:
        path = _file(folder, name)
        if path is None:
            raise UserError(f"{folder.name} has no {name}; expected {LAYOUT}")
        paths.append(path)
    images, labels = (_read(path, dimensions) for path, dimensions in zip(paths, (3, 1), strict=True))
    if len(images) != len(labels):
        raise UserError(
            f"{paths[0].name} has {len(images)} images and {paths[1].name} {len(labels)} labels; fetch both again"
        )
    if not len(labels) or labels.max() > 9:
        raise UserError(f"{paths[1].name} does not hold the labels 0 to 9 of digits")
    return images, labels


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the values of an IDX file of unsigned bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            if file.read(4) != bytes([0, 0, 8, dimensions]):  # 8 is the type of unsigned bytes
                raise UserError(
                    f"{path.name} is no IDX file of bytes with {dimensions} dimensions; fetch it again"
                )
            lengths = [int.from_bytes(file.read(4)) for _ in range(dimensions)]
            size = prod(lengths)
            content = file.read(size + 1) if size <= MOST_BYTES else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path.name} is damaged or cannot be read ({type(error).__name__}); fetch it again"
        ) from None
    if len(content) != size:
        raise UserError(f"{path.name} does not hold the {size} bytes that it announces; fetch it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(lengths)
