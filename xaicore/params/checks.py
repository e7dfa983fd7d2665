"""Checks of single parameters that several chapters share, for pydantic's ``field_validator``."""

from collections.abc import Callable, Collection


def among(names: Collection[str]) -> Callable[[str | None], str | None]:
    """Return a check that a name, where one is given, is one of ``names``."""

    def check(name: str | None) -> str | None:
        if name is not None and name not in names:
            raise ValueError(f"there is no {name!r}; there are {', '.join(names)}")
        return name

    return check


def three_shares(shares: list[float] | None) -> list[float] | None:
    """Check the shares of training, validation and test images."""
    if shares is not None and (len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6):
        raise ValueError(f"{shares} must be three positive numbers with the sum 1")
    return shares


def each_once(names: Collection[str]) -> Callable[[list[str]], list[str]]:
    """Return a check that all names of a list are among ``names`` and none is there twice."""
    known = among(names)

    def check(given: list[str]) -> list[str]:
        for name in given:
            known(name)
        if len(set(given)) < len(given):
            raise ValueError(f"{given} must not name one twice")
        return given

    return check


def one_or_three(channels: int | None) -> int | None:
    """Check a number of colour channels; None where it is that of the images."""
    if channels not in (None, 1, 3):
        raise ValueError(f"{channels} is neither 1 nor 3")
    return channels


def even(size: int) -> int:
    """Check the side of images that MagNet's autoencoder halves."""
    if size % 2:
        raise ValueError(f"{size} is odd; MagNet halves the sides")
    return size
