"""Figures of numbers in rows and columns whose cells are coloured by them; undefined numbers leave theirs empty."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from xaicore.figures.style import RELEVANCE_MAP, STYLE, BookFigure, new_panel

Numbers = Mapping[str, Mapping[str, float]]


@mpl.rc_context(STYLE)
def heat_table(
    values: Numbers, *, label: str, low: float, high: float, colours: str = "viridis", digits: int = 2
) -> BookFigure:
    """Draw numbers, row to column to number, as a table; every row has the same columns.

    Args:
        values: the numbers, written with ``digits`` decimals.
        label: quantity and unit, for the colour bar.
        low: number at the dark end of ``colours``, a colour map of matplotlib; ``high`` that at the light end.
    """
    figure, axes = new_panel(0.34 * len(values) + 1.3)
    columns = _cells(axes, values, label, low, high, colours, digits)
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right"} if len(columns) > 4 else {}
    axes.set_xticks(range(len(columns)), columns, **slanted)
    return figure


@mpl.rc_context(STYLE)
def arena_table(
    groups: Mapping[str, Numbers],
    *,
    label: str,
    middle: float = 0.5,
    reach: float = 0.5,
    ruled: Sequence[str] = (),
    framed: Sequence[tuple[str, str]] = (),
    digits: int = 2,
) -> BookFigure:
    """Draw numbers as a table in blue below ``middle``, white at it, red above.

    Args:
        groups: title of a group of rows to row to column to number; every row has the same columns, and no two rows
            have the same name.
        label: quantity and unit, for the colour bar.
        middle: number that has no colour, such as chance.
        reach: how far from it the colours end.
        ruled: columns with a line to their left, where another kind of column begins.
        framed: (row, column) of cells with a frame, such as what was seen in training.
        digits: decimals in the cells.

    Raises:
        ValueError: two rows have the same name, or rows do not have the same columns.
    """
    rows = [row for group in groups.values() for row in group.items()]
    values, names = dict(rows), [name for name, _ in rows]
    if len(values) < len(rows):
        raise ValueError(f"groups must not hold a row twice: {names}")
    if any(list(row) != list(rows[0][1]) for row in values.values()):
        raise ValueError("groups must hold rows with the same columns")
    figure, axes = new_panel(0.3 * len(rows) + 1.35)
    columns = _cells(axes, values, label, middle - reach, middle + reach, RELEVANCE_MAP, digits)
    for end in np.cumsum([len(group) for group in groups.values()])[:-1]:
        axes.axhline(end - 0.5, color="black", linewidth=1.2)
    for name in ruled:
        if name in columns:
            axes.axvline(columns.index(name) - 0.5, color="black", linewidth=1.2)
    for row, column in framed:
        corner = (columns.index(column) - 0.46, names.index(row) - 0.44)
        axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor="black", linewidth=1.4))
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    return figure


def _cells(
    axes: Axes, values: Numbers, label: str, low: float, high: float, colours: str, digits: int
) -> list[str]:
    """Draw cells, rows' names and colour bar; return the names of the columns."""
    columns = list(next(iter(values.values())))
    array = np.array([[row[column] for column in columns] for row in values.values()], dtype=float)
    shown = axes.imshow(array, cmap=colours, vmin=low, vmax=high, aspect="auto")
    for (row, column), number in np.ndenumerate(array):
        if np.isfinite(number):
            dark = np.dot(shown.cmap(shown.norm(number))[:3], (0.299, 0.587, 0.114)) < 0.5
            text, colour = f"{number:.{digits}f}", "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(values)), list(values))
    axes.grid(False)
    axes.figure.colorbar(shown, ax=axes, pad=0.01).set_label(label)
    return columns
