"""Every figure the notebooks show.

One palette that colour-blind readers can tell apart (Okabe and Ito 2008), with marker shapes that repeat what the colour
says; relevance on a diverging map centred on zero; one scale within a comparison; units on the axes. A function takes
arrays or tensors, returns a :class:`BookFigure` and touches no global state of matplotlib.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
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


def _figure(rows: int, columns: int, height: float, **options: Any) -> tuple[BookFigure, NDArray[Any]]:
    figure = BookFigure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _picture(image: Images) -> NDArray[Any]:
    """Turn one (C, H, W) or (H, W) image into what ``imshow`` takes."""
    array = np.asarray(image.detach().cpu() if isinstance(image, torch.Tensor) else image)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    return array


def _relevance(heatmap: Images) -> NDArray[Any]:
    """Sum the relevance of one (C, H, W) or (H, W) map over its channels."""
    array = np.asarray(heatmap.detach().cpu() if isinstance(heatmap, torch.Tensor) else heatmap)
    return array.sum(axis=0) if array.ndim == 3 else array


def _show_image(axes: Axes, image: Images, title: str = "") -> None:
    axes.imshow(_picture(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _bare(axes, title)


def _show_relevance(axes: Axes, heatmap: Images, title: str = "", limit: float | None = None) -> None:
    array = _relevance(heatmap)
    bound = limit if limit is not None else float(np.abs(array).max()) or 1.0
    axes.imshow(array, cmap=RELEVANCE_MAP, vmin=-bound, vmax=bound, interpolation="nearest")
    _bare(axes, title)


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#bbbbbb")


def _relevance_bar(figure: Figure, axes: Sequence[Axes], label: str = "relevance / largest") -> None:
    colours = mpl.cm.ScalarMappable(norm=mpl.colors.Normalize(-1, 1), cmap=RELEVANCE_MAP)
    bar = figure.colorbar(colours, ax=list(axes), location="right", shrink=0.7, pad=0.01, ticks=[-1, 0, 1])
    bar.set_label(label)


def _arrow(axes: Axes, row: float, column: float, size: int) -> None:
    reach = size * 0.22
    left = -1 if column > size / 2 else 1
    axes.annotate(
        "",
        xy=(column, row),
        xytext=(column + left * reach, row + (reach if row < size / 2 else -reach)),
        arrowprops={"arrowstyle": "-|>", "color": PALETTE[4], "linewidth": 2, "mutation_scale": 14},
    )


def training_curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> BookFigure:
    """Loss and accuracy against the epoch, one colour a model; dashed: training set, solid: validation set."""
    with mpl.rc_context(STYLE):
        figure, ((left, right),) = _figure(1, 2, 3.0)
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


def attack_illustration(rows: Sequence[tuple[str, Images, Images, str, str]]) -> BookFigure:
    """Image, perturbation and result, one attack a row.

    Args:
        rows: (name of the attack, clean image, adversarial image, predicted label before, and after), images in
            [0, 1] of shape (C, H, W). The perturbation is stretched to its own largest entry; the title says how much.
    """
    with mpl.rc_context(STYLE):
        figure, grid = _figure(len(rows), 3, 2.55 * len(rows))
        for axes, (name, clean, adversarial, before, after) in zip(grid, rows, strict=True):
            difference = _picture(adversarial).astype(float) - _picture(clean).astype(float)
            bound = float(np.abs(difference).max()) or 1.0
            _show_image(axes[0], clean, f"predicted “{before}”")
            if difference.ndim == 2:
                axes[1].imshow(difference / bound, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
            else:
                axes[1].imshow(0.5 + difference / (2 * bound), interpolation="nearest")
            factor = f"{1 / bound:.3g}" if bound > 0.01 else f"{1 / bound:,.0f}"
            _bare(axes[1], f"perturbation × {factor}")
            _show_image(axes[2], adversarial, f"predicted “{after}”")
            axes[0].set_ylabel(name)
        return figure


def image_grid_with_relevance(
    images: Sequence[Images],
    heatmaps: Sequence[Images],
    titles: Sequence[str],
    arrows: Mapping[int, tuple[float, float]] | None = None,
) -> BookFigure:
    """Images above, their relevance below, each map on a scale symmetric about zero.

    Args:
        images: (C, H, W) in [0, 1], one a column.
        heatmaps: (C, H, W) relevance; channels are summed.
        titles: one a column.
        arrows: column → (row, column) of a pixel to point at in image and map.
    """
    columns = len(images)
    with mpl.rc_context(STYLE):
        figure, grid = _figure(2, columns, 2 * WIDTH / (columns + 0.9) + 0.5)
        for position, (image, heatmap, title) in enumerate(zip(images, heatmaps, titles, strict=True)):
            _show_image(grid[0, position], image, title)
            _show_relevance(grid[1, position], heatmap)
            if arrows and position in arrows:
                for axes in grid[:, position]:
                    _arrow(axes, *arrows[position], size=_relevance(heatmap).shape[0])
        grid[0, 0].set_ylabel("input")
        grid[1, 0].set_ylabel("relevance")
        _relevance_bar(figure, grid.ravel().tolist())
        return figure


def explanation_grid(
    rows: Sequence[tuple[str, Images, Sequence[Images]]], titles: Sequence[str]
) -> BookFigure:
    """Draw an image and several explanations of it side by side, one image a row.

    Args:
        rows: (label, image (C, H, W) in [0, 1], one heatmap (C, h, w) or (h, w) for each title). Channels are
            summed; each map has its own scale, symmetric about zero, that ends at the value which only one pixel
            in 200 exceeds, as single pixels would hide the rest.
        titles: of the heatmaps.
    """
    columns = len(titles) + 1
    with mpl.rc_context({**STYLE, "axes.titlesize": 9 if columns < 6 else 8}):
        side = WIDTH / (columns + 0.6)
        figure, grid = _figure(len(rows), columns, len(rows) * (side + 0.05) + 0.3)
        titles = [textwrap.fill(title, 16) for title in titles]
        for position, (axes, (label, image, heatmaps)) in enumerate(zip(grid, rows, strict=True)):
            _show_image(axes[0], image, "" if position else "image")
            axes[0].set_ylabel(label)
            for panel, heatmap, title in zip(axes[1:], heatmaps, titles, strict=True):
                bound = float(np.quantile(np.abs(_relevance(heatmap)), SHOWN)) or None
                _show_relevance(panel, heatmap, "" if position else title, bound)
        _relevance_bar(figure, grid.ravel().tolist(), "relevance, own scale")
        return figure


def layer_grid(image: Images, maps: Mapping[str, Images], *, columns: int = 6) -> BookFigure:
    """Draw an image and one map for each layer, in reading order, each on its own scale from zero upwards.

    Args:
        image: (C, H, W) in [0, 1].
        maps: layer name to (h, w), at least 0; shown at the size of the image, without interpolation.
        columns: panels in a row.
    """
    panels = len(maps) + 1
    count = -(-panels // columns)
    with mpl.rc_context({**STYLE, "axes.titlesize": 8}):
        figure, grid = _figure(count, columns, count * (WIDTH / columns + 0.28))
        _show_image(grid[0, 0], image, "image")
        for axes, (name, heatmap) in zip(grid.ravel()[1:], maps.items(), strict=False):
            array = _relevance(heatmap)
            axes.imshow(array, cmap="magma", vmin=0, vmax=float(array.max()) or 1.0, interpolation="nearest")
            _bare(axes, name)
        for axes in grid.ravel()[panels:]:
            axes.set_visible(False)
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
        figure, ((axes,),) = _figure(1, 1, 0.34 * len(names) + 1.3)
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
        figure, ((axes,),) = _figure(1, 1, 4.6)
        _scatter(axes, points, groups, background)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, markerscale=1.3)
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
    for (label, mask), colour, marker in zip(groups, PALETTE, MARKERS, strict=False):
        axes.scatter(
            points[mask, 0],
            points[mask, 1],
            s=26,
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
        figure, grid = _figure(1, len(panels), 2.9)
        for axes, (title, points) in zip(grid[0], panels, strict=True):
            _scatter(axes, points, groups, None)
            axes.set(title=title, xlabel="", ylabel="")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return figure


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
        figure, ((axes,),) = _figure(1, 1, 0.62 * len(samples) + 0.9)
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
        figure, ((axes,),) = _figure(1, 1, 3.4)
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
