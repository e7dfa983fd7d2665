"""Many small pictures in one panel: a grid of panels would take matplotlib ten times as long to lay out."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from xaicore.figures.style import FRAME, PALETTE

GAP = 0.05
"""Left free on each side of a picture, as a share of the cell's width."""


class Mosaic:
    """Square cells in rows and columns of one panel, each with a picture and a thin frame.

    Args:
        axes: the panel; everything on it is replaced.
        rows: labels, one a row, written upwards beside it.
        columns: titles, one a column, above the first row.
        label_size: of the rows' labels, in points.
    """

    def __init__(self, axes: Axes, rows: Sequence[str], columns: Sequence[str], label_size: float) -> None:
        self.axes = axes
        axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0), aspect="equal")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, pad=3)
        axes.xaxis.tick_top()
        axes.set_xticks([column + 0.5 for column in range(len(columns))], list(columns))
        upwards: Any = {"rotation": 90, "va": "center", "multialignment": "center", "fontsize": label_size}
        axes.set_yticks([row + 0.5 for row in range(len(rows))], list(rows), **upwards)

    def put(self, row: int, column: int, array: NDArray[Any], *, wrong: bool = False, **options: Any) -> None:
        """Draw a picture into a cell, over what is there.

        Args:
            row: from 0.
            column: from 0.
            array: what ``imshow`` takes, with its options; ``interpolation`` is ``"nearest"`` unless given.
            wrong: whether it has a thick red frame.
        """
        limits = self.axes.get_xlim(), self.axes.get_ylim()
        extent = (column + GAP, column + 1 - GAP, row + 1 - GAP, row + GAP)
        self.axes.imshow(array, extent=extent, aspect="equal", **{"interpolation": "nearest", **options})
        self.axes.set(xlim=limits[0], ylim=limits[1])
        colour, width = (PALETTE[1], 2.5) if wrong else (FRAME, 0.8)
        frame: Any = {"fill": False, "edgecolor": colour, "linewidth": width, "clip_on": False}
        self.axes.add_patch(Rectangle((column + GAP, row + GAP), 1 - 2 * GAP, 1 - 2 * GAP, **frame))
