"""Figures of images and heatmaps."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from xaicore.figures.style import (
    FRAME,
    PALETTE,
    STYLE,
    WIDTH,
    BookFigure,
    Images,
    bare,
    new_figure,
    new_panel,
    new_panels,
    picture,
    relevance,
    relevance_bar,
    scale_of,
    show_image,
    show_relevance,
)

GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1}
HEAT: dict[str, Any] = {"cmap": "inferno", "vmin": 0, "vmax": 1}
BLOCKS = 2
"""Blocks of layers side by side."""
GAP = 0.05
"""Left free on each side of a picture in a mosaic, as a share of the cell's width."""


@mpl.rc_context(STYLE)
def attack_illustration(rows: Sequence[tuple[str, Images, Images, str, str]]) -> BookFigure:
    """Image, perturbation and result, one attack a row.

    Args:
        rows: (name of the attack, clean image, adversarial image, predicted label before, and after), images in
            [0, 1] of shape (C, H, W). The perturbation is stretched to its own largest entry; the title says how much.
    """
    figure, grid = new_figure(len(rows), 3, 2.55 * len(rows))
    for axes, (name, clean, adversarial, before, after) in zip(grid, rows, strict=True):
        difference = picture(adversarial).astype(float) - picture(clean).astype(float)
        bound = float(np.abs(difference).max()) or 1.0
        show_image(axes[0], clean, f"predicted “{before}”")
        if difference.ndim == 2:
            axes[1].imshow(difference / bound, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
        else:
            axes[1].imshow(0.5 + difference / (2 * bound), interpolation="nearest")
        factor = f"{1 / bound:.3g}" if bound > 0.01 else f"{1 / bound:,.0f}"
        bare(axes[1], f"perturbation × {factor}")
        show_image(axes[2], adversarial, f"predicted “{after}”")
        axes[0].set_ylabel(name)
    return figure


@mpl.rc_context(STYLE)
def image_rows(rows: Mapping[str, Sequence[Images]]) -> BookFigure:
    """Draw rows of images (C, H, W) in [0, 1], each row with its label."""
    columns = max(len(images) for images in rows.values())
    figure, axes = new_panel(len(rows) * (WIDTH / columns + 0.03))
    _mosaic(axes, list(rows), [""] * columns, 10, rows.values())
    return figure


@mpl.rc_context(STYLE)
def picture_table(rows: Sequence[tuple[str, Sequence[Images | None]]], titles: Sequence[str]) -> BookFigure:
    """Draw images and masks in rows and columns.

    Args:
        rows: (label, one image (C, H, W) in [0, 1] or mask (H, W) for each title, None to leave a cell empty).
        titles: of the columns.
    """
    columns = len(titles)
    figure, axes = new_panel(len(rows) * (WIDTH / (columns + 0.3) + 0.03) + 0.45)
    axes.tick_params(axis="x", labelsize=9 if columns < 6 else 8)
    _mosaic(axes, [label for label, _ in rows], titles, 9, [images for _, images in rows])
    return figure


def _mosaic(
    axes: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    label_size: float,
    images: Iterable[Sequence[Images | None]] = (),
) -> None:
    """Make of a panel square cells with ``images``, which matplotlib lays out ten times as fast as a grid of panels."""
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0), aspect="equal")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=3)
    axes.xaxis.tick_top()
    axes.set_xticks([column + 0.5 for column in range(len(columns))], list(columns))
    upwards: Any = {"rotation": 90, "va": "center", "multialignment": "center", "fontsize": label_size}
    axes.set_yticks([row + 0.5 for row in range(len(rows))], list(rows), **upwards)
    for row, of_row in enumerate(images):
        for column, image in enumerate(of_row):
            if image is not None:
                _put(axes, row, column, picture(image), **GREY)


def _put(
    axes: Axes, row: int, column: int, array: NDArray[Any], *, wrong: bool = False, **options: Any
) -> None:
    """Draw an array into a cell of a mosaic, over what is there; with a thick red frame where it is ``wrong``."""
    limits = {"xlim": axes.get_xlim(), "ylim": axes.get_ylim()}
    extent = (column + GAP, column + 1 - GAP, row + 1 - GAP, row + GAP)
    axes.imshow(array, extent=extent, aspect="equal", **{"interpolation": "nearest", **options})
    axes.set(**limits)
    colour, width = (PALETTE[1], 2.5) if wrong else (FRAME, 0.8)
    frame: Any = {"fill": False, "edgecolor": colour, "linewidth": width, "clip_on": False}
    axes.add_patch(Rectangle((column + GAP, row + GAP), 1 - 2 * GAP, 1 - 2 * GAP, **frame))


@mpl.rc_context(STYLE)
def image_grid_with_relevance(
    images: Sequence[Images],
    heatmaps: Sequence[Images],
    titles: Sequence[str],
    arrows: Mapping[int, tuple[float, float]] | None = None,
) -> BookFigure:
    """Images (C, H, W) in [0, 1] above, their relevance, summed over channels, below, on a scale symmetric about zero.

    In the columns of ``arrows`` an arrow points at the pixel (row, column) of image and map.
    """
    columns = len(images)
    figure, grid = new_figure(2, columns, 2 * WIDTH / (columns + 0.9) + 0.5)
    for position, (image, heatmap, title) in enumerate(zip(images, heatmaps, titles, strict=True)):
        show_image(grid[0, position], image, title)
        show_relevance(grid[1, position], heatmap)
        if arrows and position in arrows:
            for axes in grid[:, position]:
                _arrow(axes, *arrows[position], size=relevance(heatmap).shape[0])
    grid[0, 0].set_ylabel("input")
    grid[1, 0].set_ylabel("relevance")
    relevance_bar(figure, grid.ravel().tolist())
    return figure


def explanation_grid(
    rows: Sequence[tuple[str, Images, Sequence[Images]]],
    titles: Sequence[str],
    *,
    image: str = "image",
    beside: tuple[str, Sequence[Images]] | None = None,
) -> BookFigure:
    """Draw an image and several explanations of it side by side, one image a row.

    Args:
        rows: (label, image (C, H, W) in [0, 1], one heatmap (C, h, w) or (h, w) for each title). Channels are
            summed; each map has its own scale, symmetric about zero, that ends at the value which only one pixel
            in 200 exceeds, as single pixels would hide the rest.
        titles: of the heatmaps.
        image: title of the images.
        beside: title and one more image (C, H, W) in [0, 1] for each row, to the right of the first; none: no such
            column.
    """
    heads = [image, *([beside[0]] if beside else []), *titles]
    columns = len(heads)
    with mpl.rc_context({**STYLE, "axes.titlesize": 9 if columns < 6 else 8}):
        side = WIDTH / (columns + 0.6)
        figure, grid = new_figure(len(rows), columns, len(rows) * (side + 0.05) + 0.3)
        for position, (axes, (label, first, heatmaps)) in enumerate(zip(grid, rows, strict=True)):
            shown = [first, beside[1][position]] if beside else [first]
            for panel, each in zip(axes, shown, strict=False):
                show_image(panel, each)
            for panel, heatmap in zip(axes[len(shown) :], heatmaps, strict=True):
                show_relevance(panel, heatmap, limit=scale_of(heatmap))
            axes[0].set_ylabel(label)
        for panel, title in zip(grid[0], heads, strict=True):
            panel.set_title(textwrap.fill(title, 16))
        relevance_bar(figure, grid.ravel().tolist(), "relevance, own scale")
        return figure


def _arrow(axes: Axes, row: float, column: float, size: int) -> None:
    """Point at a pixel of an image of ``size`` rows."""
    reach = size * 0.22
    left = -1 if column > size / 2 else 1
    axes.annotate(
        "",
        xy=(column, row),
        xytext=(column + left * reach, row + (reach if row < size / 2 else -reach)),
        arrowprops={"arrowstyle": "-|>", "color": PALETTE[4], "linewidth": 2, "mutation_scale": 14},
    )


@mpl.rc_context(STYLE)
def denoising_grid(rows: Sequence[tuple[str, Images, Images, Images, Images, float, float]]) -> BookFigure:
    """Draw an image, its map, the denoised image and its map, one image a row, with the entropies of the maps.

    Args:
        rows: (label, image (C, H, W) in [0, 1], its map (C, h, w) or (h, w), denoised image, its map, entropy of the
            first map, of the second, in bits). Both maps of a row have one scale, symmetric about zero, that ends at
            the value which one pixel in 200 of the two exceeds.
    """
    figure, grid = new_figure(len(rows), 4, len(rows) * (WIDTH / 5.4 + 0.3) + 0.1)
    heads = ["image", "map\n", "denoised", "map\n"]
    for axes, (label, image, before, denoised, after, *entropies) in zip(grid, rows, strict=True):
        bound = scale_of(before, after)
        show_image(axes[0], image, heads[0])
        show_relevance(axes[1], before, f"{heads[1]}{entropies[0]:.2f} bits", bound)
        show_image(axes[2], denoised, heads[2])
        show_relevance(axes[3], after, f"{heads[3]}{entropies[1]:.2f} bits", bound)
        axes[0].set_ylabel(label)
        heads = [""] * 4
    relevance_bar(figure, grid.ravel().tolist(), "relevance, scale of the row")
    return figure


@mpl.rc_context({**STYLE, "axes.titlesize": 8})
def layer_grid(image: Images, maps: Mapping[str, Images]) -> BookFigure:
    """Draw an image (C, H, W) in [0, 1] and the map (h, w) of each layer, in reading order.

    The maps, at least 0, have the size of the image, without interpolation, and their own scale from zero upwards.
    """
    figure, grid = new_panels(len(maps) + 1, 6, WIDTH / 6 + 0.28)
    show_image(grid[0], image, "image")
    for axes, (name, heatmap) in zip(grid[1:], maps.items(), strict=True):
        axes.imshow(_share(heatmap), cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        bare(axes, name)
    return figure


@mpl.rc_context({**STYLE, "axes.titlesize": 8.5})
def cluster_panels(maps: Sequence[NDArray[Any]], titles: Sequence[str]) -> BookFigure:
    """Draw the mean map (h, w) of each cluster below its title, on a scale of its own, symmetric about zero."""
    figure, grid = new_panels(len(maps), 5, 1.95)
    for axes, values, title in zip(grid, maps, titles, strict=True):
        show_relevance(axes, values, title)
    return figure


@mpl.rc_context({**STYLE, "xtick.labelsize": 9})
def map_grid(
    rows: Sequence[tuple[str, Sequence[tuple[Images, Images, bool]]]], titles: Sequence[str]
) -> BookFigure:
    """Draw images with a map laid over each, one network or image a row.

    Args:
        rows: (label, one (image (C, H, W) in [0, 1], map (h, w) of at least 0, whether the prediction is wrong) for
            each title). Every map is on its own scale from zero to its maximum. A wrong prediction has a red frame.
        titles: of the columns.
    """
    columns = len(titles)
    side = WIDTH / (columns + 0.9)
    figure, axes = new_panel(len(rows) * (side + 0.04) + 0.8)
    _mosaic(axes, [label for label, _ in rows], titles, 10)
    for row, (_, cells) in enumerate(rows):
        for column, (image, heatmap, wrong) in enumerate(cells):
            _put(axes, row, column, picture(image), **GREY)
            smooth: dict[str, Any] = {"alpha": 0.55, "interpolation": "bilinear", **HEAT}
            _put(axes, row, column, _share(heatmap), wrong=wrong, **smooth)
    _map_bar(figure, [axes])
    return figure


@mpl.rc_context({**STYLE, "xtick.labelsize": 7.5, "axes.labelsize": 8})
def shift_grid(
    images: Sequence[Images],
    maps: Mapping[str, Sequence[Images]],
    titles: Sequence[str],
    *,
    wrong: Sequence[bool] | None = None,
) -> BookFigure:
    """Draw the maps of many layers (rows) for several versions of an image (columns), layers in blocks side by side.

    Args:
        images: the versions, (C, H, W) in [0, 1]; shown above each block.
        maps: layer name to one map (h, w) of at least 0 for each version; every map is on its own scale from zero to
            its maximum, so that the colours of all cells mean the same.
        titles: of the versions.
        wrong: versions that are classified wrongly: their image has a red frame.
    """
    names = list(maps)
    height = -(-len(names) // BLOCKS)
    side = WIDTH / (BLOCKS * (len(titles) + 0.35))
    figure, grid = new_figure(1, BLOCKS, (height + 1) * side + 0.75)
    for block, axes in enumerate(grid[0]):
        own = names[block * height : (block + 1) * height]
        labels = ["", *(_in_lines(name, 12) for name in own), *[""] * (height - len(own))]
        _mosaic(axes, labels, titles, 6.5)
        for column, image in enumerate(images):
            _put(axes, 0, column, picture(image), wrong=bool(wrong and wrong[column]), **GREY)
        for row, name in enumerate(own, 1):
            for column, heatmap in enumerate(maps[name]):
                _put(axes, row, column, _share(heatmap), **HEAT)
    _map_bar(figure, grid.ravel().tolist())
    return figure


def _share(heatmap: Images) -> NDArray[Any]:
    """Return a map divided by its own maximum."""
    array = relevance(heatmap)
    return array / (float(array.max()) or 1.0)


def _in_lines(name: str, width: int) -> str:
    """Break a layer's name after dots and before underscores, where it can be, into lines of ``width`` characters."""
    lines = [""]
    for part in re.findall(r"_*[^._]+\.?|[._]", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _map_bar(figure: BookFigure, axes: Sequence[Axes]) -> None:
    colours = mpl.cm.ScalarMappable(norm=mpl.colors.Normalize(0, 1), cmap="inferno")
    bar = figure.colorbar(
        colours, ax=list(axes), location="bottom", shrink=0.4, pad=0.01, aspect=40, ticks=[0, 1]
    )
    bar.set_label("Grad-CAM, share of the map's own maximum")
