"""Figures of quantities that every layer of a network has."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from xaicore.figures.style import MARKERS, PALETTE, STYLE, BookFigure, known, line, new_figure


@mpl.rc_context(STYLE)
def layer_boxes(panels: Mapping[str, NDArray[Any]], layers: Sequence[str], *, ylabel: str) -> BookFigure:
    """Draw one box a layer, the panels below each other on one scale: median, quartiles, 1.5 quartile ranges, outliers.

    Args:
        panels: title to (N, L) values; undefined ones (NaN) are left out.
        layers: (L,) names for the axis.
        ylabel: quantity with its unit.
    """
    figure, grid = new_figure(len(panels), 1, 2.4 * len(panels) + 0.3, sharex=True, sharey=True)
    for axes, (title, values), colour in zip(grid[:, 0], panels.items(), PALETTE, strict=False):
        columns = [known(column) for column in np.transpose(values)]
        look = {"medianprops": {"color": colour, "linewidth": 2}}
        look["flierprops"] = {"markersize": 3, "markeredgecolor": "#777777"}
        axes.boxplot(columns, positions=range(len(layers)), widths=0.6, **look)
        means = [column.mean() if len(column) else np.nan for column in columns]
        axes.plot(range(len(layers)), means, "D", color=colour, markersize=4)
        axes.set(title=title, ylabel=ylabel)
    _name_layers(grid[-1, 0], layers)
    return figure


@mpl.rc_context({**STYLE, "xtick.labelsize": 8})
def layer_curves(
    panels: Mapping[str, Mapping[str, tuple[NDArray[Any], NDArray[Any] | None]]],
    layers: Sequence[str],
    *,
    ylabel: str,
) -> BookFigure:
    """Draw lines over the layers, the panels side by side on one scale.

    Args:
        panels: title to label to (values (L,), band (L, 2) of lower and upper bounds or None).
        layers: (L,) names for the axis.
        ylabel: quantity with its unit.
    """
    figure, grid = new_figure(1, len(panels), 3.4, sharey=True)
    places = np.arange(len(layers))
    sizes: dict[str, Any] = {"markersize": 3.5, "linewidth": 1.4}
    for axes, (title, lines) in zip(grid[0], panels.items(), strict=True):
        for (label, (values, band)), colour, marker in zip(lines.items(), PALETTE, MARKERS, strict=False):
            line(axes, places, values, band, color=colour, marker=marker, label=label, **sizes)
        axes.set_title(title)
        _name_layers(axes, layers)
    grid[0, 0].set_ylabel(ylabel)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    return figure


def _name_layers(axes: Any, layers: Sequence[str]) -> None:
    step = -(-len(layers) // 16)
    places = range(0, len(layers), step)
    axes.set_xticks(list(places), [layers[place] for place in places], rotation=45 if len(layers) > 8 else 0)
    axes.set_xlabel("layer")
