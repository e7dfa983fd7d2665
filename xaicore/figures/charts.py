"""Figures of numbers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.legend import Legend
from numpy.typing import NDArray

from xaicore.figures.style import MARKERS, PALETTE, STYLE, BookFigure, new_figure
from xaicore.metrics import Estimate


def training_curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> BookFigure:
    """Loss and accuracy against the epoch, one colour a model; dashed: training set, solid: validation set."""
    with mpl.rc_context(STYLE):
        figure, ((left, right),) = new_figure(1, 2, 3.0)
        for (label, history), colour, marker in zip(histories.items(), PALETTE, MARKERS, strict=False):
            epochs = [row["epoch"] for row in history]
            for axes, quantity, factor in ((left, "loss", 1), (right, "accuracy", 100)):
                train = [row[f"train_{quantity}"] * factor for row in history]
                validation = [row[f"validation_{quantity}"] * factor for row in history]
                axes.plot(epochs, train, "--", color=colour, linewidth=1.2)
                axes.plot(epochs, validation, marker=marker, markersize=3, color=colour, label=label)
        left.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
        right.set(xlabel="epoch", ylabel="accuracy (%)")
        right.legend(title="solid: validation, dashed: training", title_fontsize=9)
        return figure


CROWD = 1000
"""From so many points on the marks in a map become smaller."""
MARK = 40
"""Area of a mark in a legend, in square points."""


def scatter_groups(
    points: NDArray[Any],
    groups: Sequence[tuple[str, NDArray[Any]]],
    *,
    background: NDArray[Any] | None = None,
) -> BookFigure:
    """Points in the plane by group, as in a map of signatures.

    Args:
        points: (N, 2) coordinates without unit.
        groups: (label, (N,) mask); later groups are drawn above earlier ones.
        background: (N,) mask of points drawn small and grey below all others.
    """
    with mpl.rc_context(STYLE):
        figure, ((axes,),) = new_figure(1, 1, 4.6)
        _scatter(axes, points, groups, background)
        _full_size(axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2))
        return figure


def _scatter(
    axes: Axes,
    points: NDArray[Any],
    groups: Sequence[tuple[str, NDArray[Any]]],
    background: NDArray[Any] | None,
) -> None:
    if background is not None:
        axes.scatter(
            points[background, 0], points[background, 1], s=8, color="#c4c4c4", linewidths=0, label="_other"
        )
    shown = sum(int(mask.sum()) for _, mask in groups)
    area = 26 if shown <= CROWD else max(4.0, 26 * CROWD / shown)  # many points hide each other
    for (label, mask), colour, marker in zip(groups, PALETTE, MARKERS, strict=False):
        axes.scatter(
            points[mask, 0],
            points[mask, 1],
            s=area,
            color=colour,
            marker=marker,
            alpha=0.75,
            linewidths=0,
            label=f"{label} (n = {int(mask.sum())})",
        )
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.set_xlabel("UMAP 1 (no unit)", labelpad=2)
    axes.set_ylabel("UMAP 2 (no unit)")


def scatter_panels(
    panels: Sequence[tuple[str, NDArray[Any]]], groups: Sequence[tuple[str, NDArray[Any]]]
) -> BookFigure:
    """Draw the same groups in several maps, say one a random seed.

    Args:
        panels: (title, (N, 2) coordinates).
        groups: (label, (N,) mask).
    """
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(1, len(panels), 2.9)
        for axes, (title, points) in zip(grid[0], panels, strict=True):
            _scatter(axes, points, groups, None)
            axes.set(title=title, xlabel="", ylabel="")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        _full_size(figure.legend(handles, labels, loc="outside lower center", ncols=2))
        return figure


def _full_size(legend: Legend) -> None:
    """Show the marks of a legend large, however small those of the map are."""
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([MARK])


def distributions(
    samples: Mapping[str, NDArray[Any]], *, xlabel: str, reference: float | None = None
) -> BookFigure:
    """One row a group: every value as a dot, the quartiles as a box, the mean as a diamond.

    Args:
        samples: label → (n,) values; undefined ones (NaN) are left out and counted in the label.
        xlabel: quantity with its unit.
        reference: where to draw a dashed line, say at chance.
    """
    with mpl.rc_context(STYLE):
        figure, ((axes,),) = new_figure(1, 1, 0.62 * len(samples) + 0.9)
        jitter = np.random.default_rng(0)
        labels = []
        for position, (label, values) in enumerate(samples.items()):
            shown = np.asarray(values, dtype=float)
            shown = shown[np.isfinite(shown)]
            labels.append(f"{label}\n(n = {len(shown)})")
            height = -position
            axes.scatter(
                shown,
                height + jitter.uniform(-0.22, 0.22, len(shown)),
                s=9,
                alpha=0.45,
                linewidths=0,
                color=PALETTE[0],
            )
            if len(shown):
                axes.boxplot(
                    shown,
                    positions=[height],
                    orientation="horizontal",
                    widths=0.55,
                    showfliers=False,
                    medianprops={"color": PALETTE[1], "linewidth": 2},
                )
                axes.plot(shown.mean(), height, marker="D", color="black", markersize=5, linestyle="none")
        if reference is not None:
            axes.axvline(reference, color="#555555", linestyle="--", linewidth=1)
        axes.set_yticks([-position for position in range(len(labels))], labels)
        axes.set_xlabel(xlabel)
        return figure


def estimated(
    x: Iterable[float], estimates: Iterable[Estimate | None]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return estimates as a line of :func:`curves`: x (m,), values (m,), intervals (m, 2).

    Args:
        x: a place for each estimate.
        estimates: those that are None are left out.
    """
    known = [(place, each) for place, each in zip(x, estimates, strict=True) if each is not None]
    return (
        np.array([place for place, _ in known], dtype=np.float64),
        np.array([each.value for _, each in known]),
        np.array([(each.low, each.high) for _, each in known]),
    )


def curves(
    series: Mapping[str, tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]],
    *,
    xlabel: str,
    ylabel: str,
    reference: float | None = None,
    steps: bool = False,
) -> BookFigure:
    """Lines with bands.

    Args:
        series: label → (x (m,), y (m,), band (m, 2) of lower and upper bounds or None).
        xlabel: quantity and unit of x.
        ylabel: quantity and unit of y.
        reference: where to draw a dashed horizontal line.
        steps: draw stairs, for counts that only change at given x.

    Raises:
        ValueError: more series than colours.
    """
    if len(series) > len(PALETTE):
        raise ValueError(
            f"series must be at most {len(PALETTE)}, not {len(series)}: draw a heat_table instead"
        )
    with mpl.rc_context(STYLE):
        figure, ((axes,),) = new_figure(1, 1, 3.4)
        for (label, (x, y, band)), colour, marker in zip(series.items(), PALETTE, MARKERS, strict=False):
            if steps:
                axes.step(x, y, where="post", color=colour, label=label)
            else:
                axes.plot(x, y, marker=marker, markersize=4, color=colour, label=label)
            if band is not None:
                axes.fill_between(
                    x,
                    band[:, 0],
                    band[:, 1],
                    color=colour,
                    alpha=0.18,
                    linewidth=0,
                    step="post" if steps else None,
                )
        if reference is not None:
            axes.axhline(reference, color="#555555", linestyle="--", linewidth=1)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend()
        return figure


def heat_table(
    values: Mapping[str, Mapping[str, float]],
    *,
    label: str,
    low: float,
    high: float,
    colours: str = "viridis",
    digits: int = 2,
) -> BookFigure:
    """Draw numbers as a table whose cells are coloured by them; undefined cells are empty.

    Args:
        values: row to column to number; every row has the same columns.
        label: quantity and unit, for the colour bar.
        low: number at the dark end of the colours.
        high: number at the light end.
        colours: name of a colour map of matplotlib.
        digits: decimals in the cells.
    """
    names, columns = list(values), list(next(iter(values.values())))
    array = np.array([[values[row][column] for column in columns] for row in names], dtype=float)
    with mpl.rc_context(STYLE):
        figure, ((axes,),) = new_figure(1, 1, 0.34 * len(names) + 1.3)
        shown = axes.imshow(array, cmap=colours, vmin=low, vmax=high, aspect="auto")
        for (row, column), number in np.ndenumerate(array):
            if np.isfinite(number):
                red, green, blue, _ = shown.cmap(shown.norm(number))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                axes.text(
                    column,
                    row,
                    f"{number:.{digits}f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else "black",
                )
        axes.set_xticks(
            range(len(columns)),
            columns,
            rotation=30 if len(columns) > 4 else 0,
            ha="right" if len(columns) > 4 else "center",
        )
        axes.set_yticks(range(len(names)), names)
        axes.grid(False)
        figure.colorbar(shown, ax=axes, pad=0.01).set_label(label)
        return figure
