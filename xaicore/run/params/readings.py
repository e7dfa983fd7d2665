"""What a notebook looks at, as its schema says: what is checked before a run and told after it is what it then loads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import xaicore.data
from xaicore.data import ImageSet


@dataclass(frozen=True)
class Reading:
    """Images that a notebook loads, with the arguments of :func:`xaicore.data.load`.

    Attributes:
        dataset: name of the set.
        root: folder of the set or above it.
        split: which part of it.
        n: number of images; None: all.
        at_most: whether fewer images than ``n`` will do.
        classes: names of the classes; None: all.
        shares: of training, validation and test images into which the notebook cuts the part anew, ``n`` being the
            number of test images; None: it does not.
    """

    dataset: str
    root: str | None
    split: str
    n: int | None = None
    at_most: bool = False
    classes: tuple[str, ...] | None = None
    shares: tuple[float, ...] | None = None

    def load(self, **options: Any) -> list[ImageSet]:
        """Return the images, nothing decoded: one set, or three where they are cut by shares.

        The ``options`` are further ones of :func:`xaicore.data.load`, such as ``size``.

        Raises:
            UserError: there is no such set, class or part of it, or it has too few images.
        """
        given = {"split": self.split, "classes": self.classes, **options}
        images = xaicore.data.load(self.dataset, self.root, **given)
        parts = [images] if self.shares is None else list(images.partition(self.shares))
        if self.n is not None and not (self.at_most and self.n >= len(parts[-1])):
            parts[-1] = parts[-1].subset(self.n)
        return parts


@dataclass(frozen=True)
class Subject:
    """Images that a notebook attacks or explains, and the network that classifies them.

    Attributes:
        dataset: name of the set.
        root: folder of the set or above it.
        n: number of images; None: all of those that are read.
        size: height and width of the images in pixels; None: as the network has it.
        model: name of the network; None: the parameters do not choose it.
        weights: ``imagenet``, a file, or None where it is trained in the notebook.
        options: further arguments of :func:`xaicore.models.load`, beside the colour channels, which are the set's.
        classes: names of the classes; None: all.
    """

    dataset: str
    root: str | None
    n: int | None
    size: int | None = None
    model: str | None = None
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
