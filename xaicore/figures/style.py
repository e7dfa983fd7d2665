"""Palette, fonts, and the panels that figures are made of."""

import io
from collections.abc import Iterable, Sequence
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
FRAME = "#bbbbbb"
DASHED: Any = {"color": "#555555", "linestyle": "--", "linewidth": 1}
"""A line to compare with, such as that of chance."""
WIDTH = 7.4

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
        self.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
        return buffer.getvalue()


def new_figure(rows: int, columns: int, height: float, **options: Any) -> tuple[BookFigure, NDArray[Any]]:
    """Return a figure of the page's width and its panels (rows, columns)."""
    figure = BookFigure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def new_panel(height: float) -> tuple[BookFigure, Axes]:
    """Return a figure of the page's width with one panel."""
    figure, grid = new_figure(1, 1, height)
    return figure, grid[0, 0]


def new_panels(
    count: int, columns: int, height: float, rest: float = 0.0, **options: Any
) -> tuple[BookFigure, list[Axes]]:
    """Return a figure of the page's width and ``count`` panels in reading order.

    A row of them is ``height`` inches high, ``rest`` is added once.
    """
    rows = -(-count // columns)
    figure, grid = new_figure(rows, columns, height * rows + rest, **options)
    for axes in grid.ravel()[count:]:
        axes.set_visible(False)
    return figure, grid.ravel()[:count].tolist()


def line(
    axes: Axes, x: Any, y: Any, band: NDArray[Any] | None, *, color: str, shade: float = 0.15, **options: Any
) -> None:
    """Draw a line, and a band (m, 2) of lower and upper bounds around it where there is one."""
    axes.plot(x, y, color=color, **options)
    if band is not None:
        step: Any = "post" if "drawstyle" in options else None
        axes.fill_between(x, band[:, 0], band[:, 1], color=color, alpha=shade, linewidth=0, step=step)


def at_most_colours(name: str, labels: Iterable[str]) -> list[str]:
    """Return the different labels in order of appearance, each to have a colour and a marker of its own.

    Raises:
        ValueError: more of them than colours.
    """
    found = list(dict.fromkeys(labels))
    if len(found) > len(PALETTE):
        raise ValueError(f"{name} must have at most {len(PALETTE)} labels together, not {len(found)}")
    return found


def known(values: Any) -> NDArray[Any]:
    """Return those of values (n,) that are defined and finite."""
    array = np.asarray(values, dtype=float)
    return array[np.isfinite(array)]


def array_of(values: Images) -> NDArray[Any]:
    """Return an image or a map as an array."""
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)


def picture(image: Images) -> NDArray[Any]:
    """Turn one (C, H, W) or (H, W) image into what ``imshow`` takes."""
    array = array_of(image)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    return array


def relevance(heatmap: Images) -> NDArray[Any]:
    """Sum the relevance of one (C, H, W) or (H, W) map over its channels."""
    array = array_of(heatmap)
    return array.sum(axis=0) if array.ndim == 3 else array


def scale_of(*heatmaps: Images) -> float:
    """Return where the scale of maps of one size ends: at the absolute value that one pixel in 200 exceeds.

    It ends at the largest where that is zero, and at 1 for maps of zeros.
    """
    size = np.abs(np.stack([relevance(heatmap) for heatmap in heatmaps]))
    return float(np.quantile(size, 0.995)) or float(size.max()) or 1.0


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
    axes.spines[:].set(visible=True, color=FRAME)


def relevance_bar(figure: Figure, axes: Sequence[Axes], label: str = "relevance / largest") -> None:
    """Add the colour bar of heatmaps to the right of ``axes``."""
    colours = mpl.cm.ScalarMappable(norm=mpl.colors.Normalize(-1, 1), cmap=RELEVANCE_MAP)
    bar = figure.colorbar(colours, ax=list(axes), location="right", shrink=0.7, pad=0.01, ticks=[-1, 0, 1])
    bar.set_label(label)
