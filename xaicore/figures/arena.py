"""Figures of many against many: a table of numbers on one diverging scale, and clusters of maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from xaicore.figures.style import RELEVANCE_MAP, STYLE, BookFigure, bare, new_figure


def arena_table(
    groups: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    label: str,
    middle: float = 0.5,
    reach: float = 0.5,
    ruled: Sequence[str] = (),
    framed: Sequence[tuple[str, str]] = (),
    digits: int = 2,
) -> BookFigure:
    """Draw numbers as a table in blue below ``middle``, white at it, red above; undefined cells are empty.

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
    rows = [(name, values) for group in groups.values() for name, values in group.items()]
    names, columns = [name for name, _ in rows], list(rows[0][1])
    if len(set(names)) < len(names):
        raise ValueError(f"groups must not hold a row twice: {names}")
    if any(list(values) != columns for _, values in rows):
        raise ValueError("groups must hold rows with the same columns")
    array = np.array([[values[column] for column in columns] for _, values in rows], dtype=float)
    with mpl.rc_context(STYLE):
        figure, ((axes,),) = new_figure(1, 1, 0.3 * len(names) + 1.35)
        low, high = middle - reach, middle + reach
        shown = axes.imshow(array, cmap=RELEVANCE_MAP, vmin=low, vmax=high, aspect="auto")
        for (row, column), number in np.ndenumerate(array):
            if np.isfinite(number):
                far = abs(number - middle) > 0.65 * reach
                text = f"{number:.{digits}f}"
                axes.text(
                    column, row, text, ha="center", va="center", fontsize=8, color="white" if far else "black"
                )
        end = 0
        for group in list(groups.values())[:-1]:
            end += len(group)
            axes.axhline(end - 0.5, color="black", linewidth=1.2)
        for name in ruled:
            if name in columns:
                axes.axvline(columns.index(name) - 0.5, color="black", linewidth=1.2)
        for row_name, column_name in framed:
            corner = (columns.index(column_name) - 0.46, names.index(row_name) - 0.44)
            axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor="black", linewidth=1.4))
        axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.grid(False)
        axes.tick_params(length=0)
        figure.colorbar(shown, ax=axes, pad=0.01).set_label(label)
        return figure


def cluster_panels(maps: Sequence[NDArray[Any]], titles: Sequence[str], *, columns: int = 5) -> BookFigure:
    """Draw the mean map of each cluster, each on a scale of its own, symmetric about zero.

    Args:
        maps: (h, w) each.
        titles: what is written above each.
        columns: pictures in a row.
    """
    count = -(-len(maps) // columns)
    with mpl.rc_context({**STYLE, "axes.titlesize": 8.5}):
        figure, grid = new_figure(count, columns, 1.95 * count)
        for axes, values, title in zip(grid.ravel(), maps, titles, strict=False):
            bound = float(np.abs(values).max()) or 1.0
            axes.imshow(values, cmap=RELEVANCE_MAP, vmin=-bound, vmax=bound, interpolation="nearest")
            bare(axes, title)
        for axes in grid.ravel()[len(maps) :]:
            axes.set_visible(False)
        return figure
