"""Units of recorded numbers, each with its range and its look, and how a number is written as text.

A record refuses a value outside the range of its unit, and every page that shows the value writes it by this table.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Unit:
    """A unit: what stands behind the number, and the least and the greatest number that can be one.

    Attributes:
        shown: behind the number; empty for a plain number.
        low: the least value.
        high: the greatest value.
        parts: how many of this unit make one of the unit ``shown``, in which pages give the value.
        of_one: how many of this unit make one, the whole of which a share is a part: 100 for percentages.
    """

    shown: str = ""
    low: float = -math.inf
    high: float = math.inf
    parts: int = 1
    of_one: int = 1


UNITS: dict[str | None, Unit] = {
    None: Unit(),
    "share": Unit(low=0, high=1),
    "correlation": Unit(low=-1, high=1),
    "distance": Unit(low=0),
    "rank": Unit(low=1),
    "%": Unit("%", 0, 100, of_one=100),
    "relative %": Unit("%", 0, of_one=100),
    "‱": Unit("%", 0, 10_000, parts=100, of_one=10_000),
    "points": Unit("points", -100, 100, of_one=100),
    "percentile": Unit("percentile", 0, 100),
    "images": Unit("images", 0),
    "classes": Unit("classes", 0),
    "layers": Unit("layers", 0),
    "pixels": Unit("pixels", 0),
    "bits": Unit("bits", 0),
    "s": Unit("s", 0),
    "dB": Unit("dB"),
    "logits": Unit("logits"),
}
"""Name of a unit → its look and range. ``%`` is a part of a whole, ``relative %`` a size held against another, such as an
error, which has no greatest value; ``points`` are differences of percentages, a ``percentile`` is a rank among 100."""

ROUNDING = 1e-9
"""How far beyond its range, relative to the bound, rounding may take a value."""


def known_unit(name: str | None) -> str | None:
    """Return the name of a unit; raise ValueError where :data:`UNITS` has none of that name."""
    if name not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(filter(None, UNITS))}, or None, got {name!r}")
    return name


def check_range(what: str, value: float, unit: str | None) -> None:
    """Raise ValueError, which calls the value ``what``, where a finite value is outside its unit's range."""
    spec = UNITS[known_unit(unit)]
    for bound, beyond in ((spec.low, spec.low - value), (spec.high, value - spec.high)):
        if beyond > ROUNDING * max(1.0, abs(bound)):
            side = "at least" if bound == spec.low else "at most"
            raise ValueError(f"{what} is {number(value, 8)} {unit}, which must be {side} {number(bound)}")


def quantity(value: float, unit: str | None, digits: int = 4) -> str:
    """Return a number with its unit, for a sentence."""
    spec = UNITS[known_unit(unit)]
    return f"{number(value / spec.parts, digits)} {spec.shown}".rstrip()


def number(value: float, digits: int = 4) -> str:
    """Return a number for a sentence, with a true minus sign.

    Whole numbers stand in full; others have so many significant digits, and a power of ten below 0.0001 and from a
    million (or from what the digits reach) on.
    """
    if float(value).is_integer() and abs(value) < 1e15:
        text = str(int(value))
    elif 1e-4 <= abs(value) < max(1e6, 10.0**digits):
        text = np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-")
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", "−")


def table_number(value: float) -> str:
    """Return a number for a column of a table, finite or not: two decimals, below 1 three, below 0.01 two significant
    digits, from a million on three; undefined ones are a dash.
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    if abs(value) >= 1 or value == 0:
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) >= 0.01 else number(value, 2)
