"""Figures of numbers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from xaicore.figures.style import (
    DASHED,
    MARKERS,
    PALETTE,
    STYLE,
    BookFigure,
    at_most_colours,
    known,
    line,
    new_figure,
    new_panel,
    new_panels,
)
from xaicore.metrics import Estimate

Curves = Mapping[str, tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]]
Groups = Sequence[tuple[str, NDArray[Any]]]


@mpl.rc_context(STYLE)
def training_curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> BookFigure:
    """Loss and accuracy against the epoch, one colour a model; dashed: training set, solid: validation set."""
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


@mpl.rc_context(STYLE)
def scatter_groups(
    points: NDArray[Any], groups: Groups, *, background: NDArray[Any] | None = None
) -> BookFigure:
    """Points in the plane by group, as in a map of signatures.

    Args:
        points: (N, 2) coordinates without unit.
        groups: (label, (N,) mask); later groups are drawn above earlier ones.
        background: (N,) mask of points drawn small and grey below all others.
    """
    figure, axes = new_panel(4.6)
    if background is not None:
        x, y = points[background].T
        axes.scatter(x, y, s=8, color="#c4c4c4", linewidths=0, label="_other")
    scale = _scatter(axes, points, groups)
    axes.set_xlabel("UMAP 1 (no unit)", labelpad=2)
    axes.set_ylabel("UMAP 2 (no unit)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, markerscale=scale)
    return figure


@mpl.rc_context(STYLE)
def scatter_panels(panels: Groups, groups: Groups) -> BookFigure:
    """Draw the same groups (label, (N,) mask) in several maps (title, (N, 2) coordinates), say one a random seed."""
    figure, grid = new_figure(1, len(panels), 2.9)
    for axes, (title, points) in zip(grid[0], panels, strict=True):
        scale = _scatter(axes, points, groups)
        axes.set_title(title)
    legend = grid[0, 0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2, markerscale=scale)
    return figure


def _scatter(axes: Axes, points: NDArray[Any], groups: Groups) -> float:
    """Draw groups of points; return how much larger a legend shows their marks."""
    shown = sum(int(mask.sum()) for _, mask in groups)
    area = 26 if shown <= CROWD else max(4.0, 26 * CROWD / shown)  # many points hide each other
    for (label, mask), colour, marker in zip(groups, PALETTE, MARKERS, strict=False):
        look: dict[str, Any] = {"s": area, "color": colour, "marker": marker, "alpha": 0.75, "linewidths": 0}
        axes.scatter(*points[mask].T, label=f"{label} (n = {int(mask.sum())})", **look)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    return float((MARK / area) ** 0.5)


@mpl.rc_context(STYLE)
def distributions(samples: Mapping[str, NDArray[Any]], *, xlabel: str) -> BookFigure:
    """One row a group: every value as a dot, the quartiles as a box, the mean as a diamond.

    Args:
        samples: label → (n,) values; undefined ones (NaN) are left out and counted in the label.
        xlabel: quantity with its unit.
    """
    figure, axes = new_panel(0.62 * len(samples) + 0.9)
    jitter = np.random.default_rng(0)
    box: dict[str, Any] = {"orientation": "horizontal", "widths": 0.55, "showfliers": False}
    box["medianprops"] = {"color": PALETTE[1], "linewidth": 2}
    labels = {}
    for position, (label, values) in enumerate(samples.items()):
        shown = known(values)
        labels[-position] = f"{label}\n(n = {len(shown)})"
        scattered = jitter.uniform(-0.22, 0.22, len(shown)) - position
        axes.scatter(shown, scattered, s=9, alpha=0.45, linewidths=0, color=PALETTE[0])
        if len(shown):
            axes.boxplot(shown, positions=[-position], **box)
            axes.plot(shown.mean(), -position, marker="D", color="black", markersize=5, linestyle="none")
    axes.set_yticks(list(labels), list(labels.values()))
    axes.set_xlabel(xlabel)
    return figure


def estimated(
    x: Iterable[float], estimates: Iterable[Estimate | None]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return estimates, and the place of each, as a line of :func:`curves`: x (m,), values (m,), intervals (m, 2).

    Those that are None are left out.
    """
    there = [(place, each) for place, each in zip(x, estimates, strict=True) if each is not None]
    return (
        np.array([place for place, _ in there], dtype=np.float64),
        np.array([each.value for _, each in there]),
        np.array([(each.low, each.high) for _, each in there]).reshape(-1, 2),
    )


@mpl.rc_context(STYLE)
def curves(
    series: Curves, *, xlabel: str, ylabel: str, reference: float | None = None, steps: bool = False
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
    at_most_colours("series", series)
    figure, axes = new_panel(3.4)
    for (label, (x, y, band)), colour, marker in zip(series.items(), PALETTE, MARKERS, strict=False):
        look: dict[str, Any] = {"drawstyle": "steps-post"} if steps else {"marker": marker, "markersize": 4}
        line(axes, x, y, band, color=colour, shade=0.18, label=label, **look)
    if reference is not None:
        axes.axhline(reference, **DASHED)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend()
    return figure


@mpl.rc_context(STYLE)
def fitted_points(
    groups: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    intercept: float,
    slope: float,
    xlabel: str,
    ylabel: str,
) -> BookFigure:
    """Points of several groups and one straight line through all of them.

    Args:
        groups: label → (x (m,), y (m,)); undefined points are not drawn.
        intercept: of the line at x = 0, ``slope`` its rise over 1; NaN: no line.
        xlabel: quantity and unit of x, ``ylabel`` of y.

    Raises:
        ValueError: more groups than colours.
    """
    labels = at_most_colours("groups", groups)
    figure, axes = new_panel(3.6)
    for (x, y), label, colour, marker in zip(groups.values(), labels, PALETTE, MARKERS, strict=False):
        axes.scatter(x, y, s=26, color=colour, marker=marker, alpha=0.8, linewidths=0, label=label)
    ends = np.array(axes.get_xlim())
    if np.isfinite([intercept, slope]).all():
        axes.plot(ends, intercept + slope * ends, **DASHED)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=tuple(ends))
    axes.legend()
    return figure


@mpl.rc_context(STYLE)
def curve_panels(
    panels: Mapping[str, tuple[str, Curves]],
    *,
    xlabel: str,
    low: float | None = None,
    high: float | None = None,
) -> BookFigure:
    """Draw curves with bands in panels, two a row; one label has one colour and marker throughout.

    Args:
        panels: title to (quantity and unit of y, curves as for :func:`curves`).
        xlabel: quantity and unit of x, the same in all panels; whole numbers are marked only as such.
        low: and ``high``: ends of every y axis; None: as the curves need.

    Raises:
        ValueError: more different labels than colours.
    """
    labels = at_most_colours("panels", (label for _, series in panels.values() for label in series))
    figure, grid = new_panels(len(panels), 2, 2.5, 0.5, sharex=True)
    handles: dict[str, Any] = {}
    for axes, (title, (ylabel, series)) in zip(grid, panels.items(), strict=True):
        for label, (x, y, band) in series.items():
            number = labels.index(label)
            look: dict[str, Any] = {"marker": MARKERS[number], "markersize": 5}
            line(axes, x, y, band, color=PALETTE[number], label=label, **look)
            handles.setdefault(label, axes.lines[-1])
        axes.set(title=title, ylabel=ylabel, ylim=(low, high))
        whole = all(float(value).is_integer() for x, _, _ in series.values() for value in x)
        axes.xaxis.set_major_locator(MaxNLocator(integer=whole))
    for axes in grid[(len(grid) - 1) // 2 * 2 :]:
        axes.set_xlabel(xlabel)
    ncols = min(4, len(handles))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=ncols)
    return figure


@mpl.rc_context(STYLE)
def layer_boxes(panels: Mapping[str, NDArray[Any]], layers: Sequence[str], *, ylabel: str) -> BookFigure:
    """Draw one box a layer, the panels below each other on one scale: median, quartiles, 1.5 quartile ranges, outliers.

    The ``panels`` are title to (N, L) values, undefined ones (NaN) left out; ``ylabel`` is the quantity with its unit.
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

    The ``panels`` are title to label to (values (L,), band (L, 2) of lower and upper bounds or None); ``layers`` name the
    axis; ``ylabel`` is the quantity with its unit.
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
