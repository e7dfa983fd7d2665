"""Palette, fonts, and the panels that figures are made of."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
RELEVANCE_MAP = "RdBu_r"
SHOWN = 0.995
"""Share of a map's pixels within the scale of an explanation."""
WIDTH = 7.4
DPI = 144

STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}

Images = torch.Tensor | NDArray[Any]


class BookFigure(Figure):
    """A matplotlib figure that a notebook shows once, as one PNG that is the same for the same content."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()


def new_figure(rows: int, columns: int, height: float, **options: Any) -> tuple[BookFigure, NDArray[Any]]:
    """Return a figure of the page's width and its panels (rows, columns)."""
    figure = BookFigure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def new_panel(height: float) -> tuple[BookFigure, Axes]:
    """Return a figure of the page's width with one panel."""
    figure, grid = new_figure(1, 1, height)
    return figure, grid[0, 0]


def picture(image: Images) -> NDArray[Any]:
    """Turn one (C, H, W) or (H, W) image into what ``imshow`` takes."""
    array = np.asarray(image.detach().cpu() if isinstance(image, torch.Tensor) else image)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    return array


def relevance(heatmap: Images) -> NDArray[Any]:
    """Sum the relevance of one (C, H, W) or (H, W) map over its channels."""
    array = np.asarray(heatmap.detach().cpu() if isinstance(heatmap, torch.Tensor) else heatmap)
    return array.sum(axis=0) if array.ndim == 3 else array


def show_image(axes: Axes, image: Images, title: str = "") -> None:
    """Draw an image in [0, 1], a single channel in grey."""
    axes.imshow(picture(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    bare(axes, title)


def show_relevance(axes: Axes, heatmap: Images, title: str = "", limit: float | None = None) -> None:
    """Draw the sum over channels of a heatmap, symmetric about zero up to ``limit`` or its largest value."""
    array = relevance(heatmap)
    bound = limit if limit is not None else float(np.abs(array).max()) or 1.0
    axes.imshow(array, cmap=RELEVANCE_MAP, vmin=-bound, vmax=bound, interpolation="nearest")
    bare(axes, title)


def bare(axes: Axes, title: str) -> None:
    """Leave a panel its title and a thin frame."""
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#bbbbbb")


def relevance_bar(figure: Figure, axes: Sequence[Axes], label: str = "relevance / largest") -> None:
    """Add the colour bar of heatmaps to the right of ``axes``."""
    colours = mpl.cm.ScalarMappable(norm=mpl.colors.Normalize(-1, 1), cmap=RELEVANCE_MAP)
    bar = figure.colorbar(colours, ax=list(axes), location="right", shrink=0.7, pad=0.01, ticks=[-1, 0, 1])
    bar.set_label(label)


def arrow(axes: Axes, row: float, column: float, size: int) -> None:
    """Point at a pixel of an image of ``size`` rows."""
    reach = size * 0.22
    left = -1 if column > size / 2 else 1
    axes.annotate(
        "",
        xy=(column, row),
        xytext=(column + left * reach, row + (reach if row < size / 2 else -reach)),
        arrowprops={"arrowstyle": "-|>", "color": PALETTE[4], "linewidth": 2, "mutation_scale": 14},
    )
