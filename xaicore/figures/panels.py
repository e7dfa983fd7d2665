"""Pictures in rows and columns with titles, and curves in panels side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from xaicore.figures.mosaic import Mosaic
from xaicore.figures.style import (
    MARKERS,
    PALETTE,
    STYLE,
    WIDTH,
    BookFigure,
    Images,
    new_figure,
    new_panel,
    picture,
)

Curves = Mapping[str, tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]]


def picture_table(rows: Sequence[tuple[str, Sequence[Images | None]]], titles: Sequence[str]) -> BookFigure:
    """Draw images and masks in rows and columns.

    Args:
        rows: (label, one image (C, H, W) in [0, 1] or mask (H, W) for each title, None to leave a cell empty).
        titles: of the columns.
    """
    columns = len(titles)
    with mpl.rc_context({**STYLE, "xtick.labelsize": 9 if columns < 6 else 8}):
        figure, axes = new_panel(len(rows) * (WIDTH / (columns + 0.3) + 0.03) + 0.45)
        mosaic = Mosaic(axes, [label for label, _ in rows], titles, label_size=9)
        for row, (_, images) in enumerate(rows):
            for column, image in enumerate(images):
                if image is not None:
                    mosaic.put(row, column, picture(image), cmap="gray", vmin=0, vmax=1)
        return figure


def curve_panels(
    panels: Mapping[str, tuple[str, Curves]],
    *,
    xlabel: str,
    columns: int = 2,
    low: float | None = None,
    high: float | None = None,
) -> BookFigure:
    """Draw curves with bands in panels; one label has one colour and marker throughout.

    Args:
        panels: title to (quantity and unit of y, label to (x (m,), y (m,), band (m, 2) of lower and upper bounds or
            None)).
        xlabel: quantity and unit of x, the same in all panels; whole numbers are marked only as such.
        columns: panels in a row.
        low: lower end of every y axis; None: as the curves need.
        high: upper end.

    Raises:
        ValueError: more different labels than colours.
    """
    labels = list(dict.fromkeys(label for _, series in panels.values() for label in series))
    if len(labels) > len(PALETTE):
        raise ValueError(f"panels must have at most {len(PALETTE)} labels together, not {len(labels)}")
    count = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(count, columns, 2.5 * count + 0.5, sharex=True)
        for axes, (title, (ylabel, series)) in zip(grid.ravel(), panels.items(), strict=False):
            for label, (x, y, band) in series.items():
                style = {"color": PALETTE[labels.index(label)], "marker": MARKERS[labels.index(label)]}
                axes.plot(x, y, markersize=5, label=label, **style)
                if band is not None:
                    axes.fill_between(
                        x, band[:, 0], band[:, 1], color=style["color"], alpha=0.15, linewidth=0
                    )
            axes.set(title=title, ylabel=ylabel, ylim=(low, high))
            whole = all(float(value).is_integer() for x, _, _ in series.values() for value in x)
            axes.xaxis.set_major_locator(MaxNLocator(integer=whole))
        for axes in grid[-1]:
            axes.set_xlabel(xlabel)
        for axes in grid.ravel()[len(panels) :]:
            axes.set_visible(False)
        handles: dict[str, Any] = {}
        for axes in grid.ravel():
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles))
        )
        return figure
