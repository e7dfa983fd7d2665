"""Figures of detectors: groups of scores side by side, entropies before and after denoising, and ROC curves."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from xaicore.figures.style import (
    DASHED,
    MARKERS,
    PALETTE,
    STYLE,
    BookFigure,
    at_most_colours,
    known,
    new_panels,
)

Values = NDArray[Any]


@mpl.rc_context({**STYLE, "xtick.labelsize": 8.5})
def group_boxes(panels: Mapping[str, Mapping[str, Mapping[str, Values]]], *, ylabel: str) -> BookFigure:
    """Draw groups of values side by side: median, quartiles, 1.5 quartile ranges, and what lies beyond.

    Args:
        panels: title to place on the axis to group to (n,) values; undefined ones (NaN) are left out. A group has the
            same colour everywhere.
        ylabel: quantity with its unit.

    Raises:
        ValueError: more groups than colours.
    """
    groups = at_most_colours(
        "panels", (group for panel in panels.values() for place in panel.values() for group in place)
    )
    figure, grid = new_panels(len(panels), 1, 2.6, 0.5)
    look: dict[str, Any] = {"manage_ticks": False, "patch_artist": True}
    look["medianprops"] = {"color": "black", "linewidth": 1.6}
    look["flierprops"] = {"markersize": 2, "markeredgecolor": "#777777"}
    fills: dict[str, dict[str, Any]] = {
        group: {"facecolor": colour, "alpha": 0.75} for group, colour in zip(groups, PALETTE, strict=False)
    }
    for axes, (title, places) in zip(grid, panels.items(), strict=True):
        for centre, of_place in enumerate(places.values()):
            step = 0.8 / len(of_place)
            for number, (group, values) in enumerate(of_place.items()):
                position = centre + (number - (len(of_place) - 1) / 2) * step
                box = {**fills[group], "linewidth": 0.8}
                axes.boxplot(known(values), positions=[position], widths=0.8 * step, boxprops=box, **look)
        axes.set_xticks(range(len(places)), list(places))
        axes.set(title=title, ylabel=ylabel, xlim=(-0.6, len(places) - 0.4))
    patches = [mpl.patches.Patch(label=group, **fill) for group, fill in fills.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(groups), 4))
    return figure


@mpl.rc_context(STYLE)
def entropy_planes(
    panels: Mapping[str, Mapping[str, Values]],
    *,
    xlabel: str = "entropy of the map (bits)",
    ylabel: str = "after denoising (bits)",
) -> BookFigure:
    """Draw two quantities of one unit against each other, with the line on which they are equal.

    Args:
        panels: title to group to (n, 2) points, such as entropies of the map and of the denoised image's map: above the
            line the entropy rises.
        xlabel: the first quantity and its unit.
        ylabel: the second.
    """
    every = np.concatenate([points for panel in panels.values() for points in panel.values()])
    margin = 0.03 * float(np.ptp(every)) + 1e-9
    limits = float(every.min()) - margin, float(every.max()) + margin
    figure, grid = _squares(panels, 2.55, 0.4, limits, limits)
    for axes, groups in zip(grid, panels.values(), strict=True):
        for (label, points), colour, marker in zip(groups.items(), PALETTE, MARKERS, strict=False):
            look: dict[str, Any] = {"s": 14, "color": colour, "marker": marker, "alpha": 0.6, "linewidths": 0}
            axes.scatter(*points.T, label=label, **look)
    return _named(figure, grid[0], xlabel, ylabel)


@mpl.rc_context(STYLE)
def roc_panels(
    panels: Mapping[str, Mapping[str, tuple[Values, Values]]], *, mark: float | None = None
) -> BookFigure:
    """Draw ROC curves, one label in one colour throughout, with the diagonal of chance.

    Args:
        panels: title to label to (false-positive rates (T,), true-positive rates (T,)), shares in [0, 1].
        mark: a false-positive rate to mark.

    Raises:
        ValueError: more labels than colours.
    """
    labels = at_most_colours("panels", (label for panel in panels.values() for label in panel))
    figure, grid = _squares(panels, 2.45, 0.6, (0, 1), (-0.02, 1.02))
    for axes, lines in zip(grid, panels.values(), strict=True):
        for label, (false, true) in lines.items():
            axes.step(false, true, where="post", color=PALETTE[labels.index(label)], label=label)
        if mark is not None:
            axes.axvline(mark, color="#999999", linewidth=1, linestyle=":")
    return _named(figure, grid[0], "clean images flagged", "attacked images flagged")


def _squares(
    titles: Mapping[str, Any],
    height: float,
    rest: float,
    diagonal: tuple[float, float],
    limits: tuple[float, float],
) -> tuple[BookFigure, list[Axes]]:
    """Return a figure of square panels, three a row, with one scale for both axes and a dashed diagonal."""
    figure, grid = new_panels(len(titles), 3, height, rest, sharex=True, sharey=True)
    for axes, title in zip(grid, titles, strict=True):
        axes.plot(diagonal, diagonal, **DASHED)
        axes.set(title=title, xlim=limits, ylim=limits, aspect="equal")
    return figure, grid


def _named(figure: BookFigure, first: Axes, xlabel: str, ylabel: str) -> BookFigure:
    """Name the axes of a figure once for all panels, and what is drawn, as the first of them has it."""
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
