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
