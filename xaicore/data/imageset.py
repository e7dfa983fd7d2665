"""An image set: images in [0, 1] with labels and class names, decoded when asked for."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from xaicore.core.errors import UnreadableFiles, UserError
from xaicore.core.fingerprint import digest
from xaicore.data.sampling import balanced_order, stratified
from xaicore.data.sources import FileSource, Geometry, MemorySource, Source

Result = TypeVar("Result")
AT_ONCE = 16
"""Images that a thread takes at once: to hand over a digit takes longer than to decode it."""


class ImageSet(Dataset[tuple[Tensor, int]]):
    """A torch ``Dataset`` of (image, label): image float32 (C, H, W) in [0, 1], label an int.

    Made by :func:`xaicore.data.load` and :func:`from_tensors`; never changes once made.

    Attributes:
        name: the set's name, such as ``"mnist-5k"``.
        split: ``"train"``, ``"validation"``, ``"train+validation"``, ``"test"`` or ``"all"``.
        classes: class names; label k means ``classes[k]``.
        labels: (N,) int64.
    """

    def __init__(
        self,
        source: Source,
        labels: Tensor,
        classes: Sequence[str],
        *,
        name: str,
        split: str = "all",
        indices: Tensor | None = None,
        geometry: Geometry | None = None,
    ) -> None:
        self._source = source
        self._indices = torch.arange(len(source)) if indices is None else indices
        self._geometry = geometry or Geometry()
        self.labels = labels.to(torch.int64)
        self.classes = tuple(classes)
        self.name = name
        self.split = split
        if len(self.labels) != len(self._indices):
            raise ValueError(f"labels: {len(self.labels)} labels for {len(self._indices)} images")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"ImageSet({self.name!r}, split={self.split!r}, n={len(self)}, classes={len(self.classes)})"

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._decode(index).clone(), int(self.labels[index])

    def _decode(self, index: int) -> Tensor:
        return self._source.tensor(int(self._indices[index]), self._geometry)

    def _label(self, index: int) -> str:
        return self._source.label(int(self._indices[index]))

    def stack(self, indices: Tensor | Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Return the images at ``indices``, or all, (N, C, H, W) float32 in [0, 1], and their labels (N,) int64.

        Of booleans, one for each image of the set, those that are True are returned.

        Raises:
            TypeError: ``indices`` are no integers and no booleans.
            UnreadableFiles: naming all files that cannot be decoded.
            UserError: images differ in shape (load them with a ``size``).
        """
        wanted = torch.arange(len(self)) if indices is None else self._positions(indices)
        if len(wanted) == 0:
            raise ValueError("indices must name at least one image")
        try:
            first = self._decode(int(wanted[0]))
        except UnreadableFiles:
            self._take(wanted).verify()
            raise
        # Written by threads, whatever torch's grad mode here.
        pixels = np.empty((len(wanted), *first.shape), dtype=np.float32)

        def place(position: int) -> None:
            image = self._decode(int(wanted[position]))
            if image.shape != first.shape:
                sizes = ", ".join(
                    f"{self._label(int(wanted[at]))}: {'×'.join(map(str, each.shape[-2:]))}"
                    for at, each in ((0, first), (position, image))
                )
                raise UserError(f"images of {self.name} differ in shape ({sizes}); give a size")
            pixels[position] = image.numpy()

        _each(place, len(wanted))
        return torch.from_numpy(pixels), self.labels[wanted]

    def _positions(self, indices: Tensor | Sequence[int]) -> Tensor:
        found = torch.as_tensor(indices)
        if found.dtype == torch.bool:
            if found.shape != self.labels.shape:
                raise UserError(f"indices must be one boolean for each of {len(self)} images, or integers")
            return found.nonzero()[:, 0]
        if found.is_floating_point() and found.numel():
            raise TypeError(f"indices must be integers or booleans, not {found.dtype}")
        return found.to(torch.int64)

    def verify(self) -> None:
        """Decode every image once.

        Raises:
            UnreadableFiles: naming all files that cannot be decoded.
        """
        _each(self._decode, len(self))

    @property
    def files(self) -> list[Path]:
        """The files that the images lie in, one for each; empty for images that are in memory."""
        if not isinstance(self._source, FileSource):
            return []
        return [self._source.paths[index] for index in self._indices.tolist()]

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 (hex) of every image's content in order, labels, class names and geometry."""
        contents = _each(lambda index: self._source.digest(int(self._indices[index])), len(self))
        return digest("images", contents, self.labels, self.classes, self._geometry)

    def subset(self, n: int, seed: int = 0) -> "ImageSet":
        """Return ``n`` images spread evenly over the classes.

        The choice and the order depend on the seed alone; subsets of one seed are nested, the smaller one
        leads the larger.

        Raises:
            UserError: ``n`` is not between 1 and the number of images.
        """
        if not 1 <= n <= len(self):
            raise UserError(
                f"n must lie between 1 and {len(self)}, the images in {self.name} ({self.split}), got {n}"
            )
        return self._take(torch.tensor(balanced_order(self.labels, seed)[:n]))

    def partition(self, fractions: Sequence[float], seed: int = 0) -> tuple["ImageSet", ...]:
        """Cut the set into disjoint parts with the given fractions of every class, such as (0.8, 0.2).

        Raises:
            ValueError: the fractions do not fit.
            UserError: a class is too small to give an image to every part.
        """
        called = "class {!r} of {}".format
        parts = stratified(self.labels, fractions, seed, lambda k: called(self.classes[k], self.name))
        return tuple(self._take(torch.tensor(part, dtype=torch.int64)) for part in parts)

    def select(self, classes: Iterable[str | int]) -> "ImageSet":
        """Keep the images of some classes and relabel them 0..k-1 in the given order.

        Args:
            classes: names, or positions in :attr:`classes`.

        Raises:
            UserError: a class does not exist, is named twice, or has no image.
        """
        chosen = [self._class_index(entry) for entry in classes]
        if not chosen or len(set(chosen)) != len(chosen):
            raise UserError(
                f"classes must name one or more different classes, got {[self.classes[k] for k in chosen]}"
            )
        for entry in chosen:
            if not (self.labels == entry).any():
                raise UserError(f"class {self.classes[entry]!r} has no image in {self.name} ({self.split})")
        relabel = torch.full((len(self.classes),), -1, dtype=torch.int64)
        relabel[chosen] = torch.arange(len(chosen))
        kept = torch.nonzero(relabel[self.labels] >= 0).flatten()
        found = self._take(kept)
        found.labels, found.classes = relabel[found.labels], tuple(self.classes[k] for k in chosen)
        return found

    def _class_index(self, entry: str | int) -> int:
        if isinstance(entry, str) and entry in self.classes:
            return self.classes.index(entry)
        if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < len(self.classes):
            return entry
        some = ", ".join(self.classes[:12]) + (", …" if len(self.classes) > 12 else "")
        raise UserError(f"{self.name} has no class {entry!r}; its classes are {some}")

    def _take(self, positions: Tensor) -> "ImageSet":
        indices, geometry = self._indices[positions], self._geometry
        given: dict[str, Any] = {
            "name": self.name,
            "split": self.split,
            "indices": indices,
            "geometry": geometry,
        }
        return ImageSet(self._source, self.labels[positions], self.classes, **given)


def from_tensors(images: Tensor, labels: Tensor, classes: Sequence[str], name: str) -> ImageSet:
    """Wrap images (N, C, H, W) float32 in [0, 1] that are already in memory, copied; records call the set ``name``.

    The labels (N,) are integers, each an index into ``classes``, the class names.

    Raises:
        ValueError: shapes or ranges do not fit.
        TypeError: ``images`` is not a float tensor.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError("images must be a float tensor")
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must have shape (N, C, H, W) with N > 0, got {tuple(images.shape)}")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images must lie in [0, 1]")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels must be {len(images)} integers, got {tuple(labels.shape)} of {labels.dtype}"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= len(classes):
        raise ValueError(f"labels must lie between 0 and {len(classes) - 1}")
    held = images.detach().to("cpu", torch.float32, copy=True)
    return ImageSet(MemorySource(held), labels.detach().to("cpu", torch.int64, copy=True), classes, name=name)


def _each(function: Callable[[int], Result], count: int) -> list[Result]:
    """Call a function for every image with a pool of threads; files that cannot be decoded are told together."""
    reasons: dict[str, str] = {}

    def attempt(start: int) -> list[Result]:
        found = []
        for index in range(start, min(start + AT_ONCE, count)):
            try:
                found.append(function(index))
            except UnreadableFiles as error:
                reasons.update(error.reasons)
        return found

    pool = ThreadPoolExecutor()
    try:
        found = [each for part in pool.map(attempt, range(0, count, AT_ONCE)) for each in part]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if reasons:
        raise UnreadableFiles(dict(sorted(reasons.items())))
    return found
