"""Checks of single parameters that several schemas share, as annotations."""

import difflib
import inspect
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from xaicore.attribution import METHODS

SIZED_ATTACKS = ("fgsm", "bim", "mim", "pgd", "cw_l2")
"""Attacks whose size is ε, and CW, which looks for the smallest."""

DETERMINISTIC = tuple(
    name for name, method in METHODS.items() if "seed" not in inspect.signature(method).parameters
)
"""Explanations that draw nothing at random."""


@dataclass(frozen=True)
class OneOf:
    """A check that a name, where one is given, is among those known, or all of a list and none of them twice.

    Attributes:
        names: those known, in the order in which they are told.
    """

    names: tuple[str, ...]

    def __call__(self, given: str | list[str] | None) -> str | list[str] | None:
        """Return what is given; a ``ValueError`` says which names there are, or which list names one twice."""
        for name in [given] if isinstance(given, str) else given or ():
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"there is no {name!r}; {hint}there are {', '.join(self.names)}")
        if isinstance(given, list) and len(set(given)) < len(given):
            raise ValueError(f"{given} must not name one twice")
        return given


def among(names: Iterable[str]) -> AfterValidator:
    """Return what annotates a parameter that is one of ``names``, or lists some of them, none twice."""
    return AfterValidator(OneOf(tuple(names)))


def choices(metadata: Collection[object]) -> tuple[str, ...]:
    """Return the names that a parameter with these annotations may have, empty where any will do."""
    for item in metadata:
        if isinstance(item, AfterValidator) and isinstance(item.func, OneOf):
            return item.func.names
    return ()


def _three(shares: list[float] | None) -> list[float] | None:
    if shares is not None and (len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6):
        raise ValueError(f"{shares} must be three positive numbers with the sum 1")
    return shares


Shares = Annotated[list[float] | None, AfterValidator(_three)]
"""Of training, validation and test images; None where a set's own split is taken."""


def rising(most: float, parts: int | None = None, *, zero: bool = False) -> AfterValidator:
    """Return what annotates a list of sizes that rise, each above 0.

    Args:
        most: the largest that one may be.
        parts: how fine the ids of a record tell sizes apart, in parts of one, so that they rise by one part at least;
            None: any rise will do.
        zero: whether the first may be 0.
    """
    step = f" by at least {1 / parts:g}" if parts else ""
    start = "from 0 or more" if zero else "above 0"

    def check(sizes: list[float]) -> list[float]:
        told = [round(parts * size) for size in sizes] if parts else sizes
        above = [size for place, size in enumerate(told) if place or not zero or sizes[0]]
        if not all(0 <= size <= most for size in sizes) or 0 in above or told != sorted(set(told)):
            raise ValueError(f"{sizes} must rise{step}, {start} and at most to {most:g}")
        return sizes

    return AfterValidator(check)


def _one_or_three(channels: int | None) -> int | None:
    if channels not in (None, 1, 3):
        raise ValueError(f"{channels} is neither 1 nor 3")
    return channels


Channels = Annotated[int | None, AfterValidator(_one_or_three)]
"""Colour channels; None where they are those of the images."""


def _even(size: int) -> int:
    if size % 2:
        raise ValueError(f"{size} is odd; MagNet halves the sides")
    return size


EvenSide = Annotated[int, AfterValidator(_even)]
"""Side of images that MagNet's autoencoder halves."""
