"""The constant c that Carlini-Wagner L0 and L-infinity raise until the goal is reached (2017, Sec. VI-B and VI-C)."""

from typing import Any

from xaicore.core import checks
from xaicore.core.errors import UserError

LEAST_FACTOR = 1.01
"""What c grows by at least, so that it reaches its end."""

PROGRESS = 0.01
"""Share by which the objective has to fall within ``patience`` steps, or c is raised."""


def schedule(initial_const: Any, largest_const: Any, const_factor: Any) -> tuple[float, float, float]:
    """Return the first c, the largest and the factor if c can grow from one to the other.

    Raises:
        UserError: one is no number greater than 0, the largest is below the first, or c would hardly grow.
    """
    first = checks.positive("initial_const", initial_const)
    largest = checks.positive("largest_const", largest_const)
    factor = checks.positive("const_factor", const_factor)
    if largest < first:
        raise UserError(f"largest_const must be at least initial_const, {first:g}, not {largest_const!r}")
    if factor < LEAST_FACTOR:
        raise UserError(f"const_factor must be a number of at least {LEAST_FACTOR}, not {const_factor!r}")
    return first, largest, factor
