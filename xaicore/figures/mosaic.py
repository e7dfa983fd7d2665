"""Many small pictures in one panel: a grid of panels would take matplotlib ten times as long to lay out."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

FRAME = "#bbbbbb"
WRONG = "#D55E00"
GAP = 0.05


class Mosaic:
    """Cells of equal size in rows and columns of one panel, each with a picture and a thin frame.

    Args:
        axes: the panel; everything on it is replaced.
        rows: labels, one a row, written upwards beside it.
        columns: titles, one a column, above the first row.
        shape: height over width of a cell.
        gap: left free on each side of a picture, as a share of the cell's width.
        label_size: of the rows' labels, in points; None: as in the style.
    """

    def __init__(
        self,
        axes: Axes,
        rows: Sequence[str],
        columns: Sequence[str],
        *,
        shape: float = 1.0,
        gap: float = GAP,
        label_size: float | None = None,
    ) -> None:
        self.axes, self.shape, self.gap = axes, shape, gap
        axes.set(xlim=(0, len(columns)), ylim=(len(rows) * shape, 0), aspect="equal")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, pad=3)
        axes.xaxis.tick_top()
        axes.set_xticks([column + 0.5 for column in range(len(columns))], list(columns))
        axes.set_yticks([(row + 0.5) * shape for row in range(len(rows))], list(rows))
        for label in axes.get_yticklabels():
            label.set(rotation=90, verticalalignment="center", multialignment="center")
            if label_size is not None:
                label.set_fontsize(label_size)

    def put(self, row: int, column: int, array: NDArray[Any], *, wrong: bool = False, **options: Any) -> None:
        """Draw a picture into a cell, over what is there.

        Args:
            row: from 0.
            column: from 0.
            array: what ``imshow`` takes, with its options; ``interpolation`` is ``"nearest"`` unless given.
            wrong: whether it has a thick red frame.
        """
        left, right = column + self.gap, column + 1 - self.gap
        top, bottom = row * self.shape + self.gap, (row + 1) * self.shape - self.gap
        limits = self.axes.get_xlim(), self.axes.get_ylim()
        options = {"interpolation": "nearest", **options}
        self.axes.imshow(array, extent=(left, right, bottom, top), aspect="equal", **options)
        self.axes.set(xlim=limits[0], ylim=limits[1])
        colour, width = (WRONG, 2.5) if wrong else (FRAME, 0.8)
        corner, breadth, height = (left, top), right - left, bottom - top
        self.axes.add_patch(
            Rectangle(corner, breadth, height, fill=False, edgecolor=colour, linewidth=width, clip_on=False)
        )
