"""Small figures that are read at a glance, also on a phone: estimates in rows, and a strip of pictures."""

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np

from xaicore.figures.style import (
    DASHED,
    MARKERS,
    PALETTE,
    STYLE,
    BookFigure,
    Images,
    at_most_colours,
    show_image,
    show_relevance,
)

SMALL = 4.2
"""Width in inches; 10 points are as high there as the text of a phone's page."""

STEP, SPAN = 0.22, 0.75
"""Largest distance of the series within a row, and what they take of it at most."""


@mpl.rc_context({**STYLE, "ytick.labelsize": 10})
def estimate_rows(
    rows: Mapping[str, Mapping[str, Mapping[str, Any] | None]],
    *,
    xlabel: str,
    low: float | None = None,
    high: float | None = None,
    reference: float | None = None,
) -> BookFigure:
    """Draw numbers as points with their intervals, several a row.

    Args:
        rows: label to series to a number as :attr:`xaicore.run.records.Run.values` has it, with ``value`` and ``ci``, the
            latter None for a number without an interval. None and missing series leave a gap. A series has one colour
            and marker throughout.
        xlabel: quantity and unit.
        low: and ``high``: ends of the axis; None: as the numbers need.
        reference: where to draw a dashed line.

    Raises:
        ValueError: no rows, or none or more series than colours.
    """
    series = at_most_colours("rows", (name for row in rows.values() for name in row))
    if not series:
        raise ValueError("rows must have at least one series")
    lines = sum(1 + label.count("\n") for label in rows)
    height = max(0.15 * (lines + len(rows)), 0.13 * len(series) * len(rows)) + 1.1
    figure = BookFigure(figsize=(SMALL, height), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows.values()):
        there = {name: found for name in series if (found := row.get(name)) is not None}
        for position, (name, found) in enumerate(there.items()):
            number = series.index(name)
            level = place + min(STEP, SPAN / len(series)) * (position - (len(there) - 1) / 2)
            if found["ci"] is not None:
                axes.plot(found["ci"], [level, level], color=PALETTE[number], linewidth=1.6)
            axes.plot(found["value"], level, MARKERS[number], color=PALETTE[number], markersize=6)
    if reference is not None:
        axes.axvline(reference, **DASHED)
    left, right = (
        shown if end is None else end for shown, end in zip(axes.get_xlim(), (low, high), strict=True)
    )
    margin = 0.02 * (right - left)
    axes.set(xlim=(left - margin, right + margin), ylim=(len(rows) - 0.5, -0.5), xlabel=xlabel)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.grid(axis="y", visible=False)
    for place in range(1, len(rows)):
        axes.axhline(place - 0.5, color="#e6e6e6", linewidth=0.8)
    if len(series) > 1:
        handles = [
            mpl.lines.Line2D([], [], color=PALETTE[k], marker=MARKERS[k], linewidth=1.6, label=name)
            for k, name in enumerate(series)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=1 if len(series) > 2 else 2)
    return figure


@mpl.rc_context({**STYLE, "axes.titlesize": 9.5})
def relevance_strip(image: Images, maps: Mapping[str, Images], *, title: str = "image") -> BookFigure:
    """Draw an image (C, H, W) in [0, 1] below its ``title`` and some heatmaps of it, by title, in one row.

    Heatmaps (C, h, w), whose channels are summed, or (h, w) each have a scale of their own, symmetric about zero, which
    ends at the largest absolute value.
    """
    columns = len(maps) + 1
    titles = [textwrap.fill(each, 48 // columns) for each in (title, *maps)]
    lines = 1 + max(each.count("\n") for each in titles)
    figure = BookFigure(figsize=(SMALL, SMALL / columns + 0.17 * lines + 0.1), layout="constrained")
    grid: Any = np.ravel(figure.subplots(1, columns))
    show_image(grid[0], image, titles[0])
    for axes, heatmap, each in zip(grid[1:], maps.values(), titles[1:], strict=True):
        show_relevance(axes, heatmap, each)
    return figure
