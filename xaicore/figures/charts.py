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
    """Draw the same groups in several maps, say one a random seed.

    Args:
        panels: (title, (N, 2) coordinates).
        groups: (label, (N,) mask).
    """
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
def distributions(
    samples: Mapping[str, NDArray[Any]], *, xlabel: str, reference: float | None = None
) -> BookFigure:
    """One row a group: every value as a dot, the quartiles as a box, the mean as a diamond.

    Args:
        samples: label → (n,) values; undefined ones (NaN) are left out and counted in the label.
        xlabel: quantity with its unit.
        reference: where to draw a dashed line, say at chance.
    """
    figure, axes = new_panel(0.62 * len(samples) + 0.9)
    jitter = np.random.default_rng(0)
    labels = []
    for position, (label, values) in enumerate(samples.items()):
        shown = np.asarray(values, dtype=float)
        shown = shown[np.isfinite(shown)]
        labels.append(f"{label}\n(n = {len(shown)})")
        height = -position
        scattered = height + jitter.uniform(-0.22, 0.22, len(shown))
        axes.scatter(shown, scattered, s=9, alpha=0.45, linewidths=0, color=PALETTE[0])
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
        axes.axvline(reference, **DASHED)
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
        np.array([(each.low, each.high) for _, each in known]).reshape(-1, 2),
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
        low: lower end of every y axis; None: as the curves need.
        high: upper end.

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
