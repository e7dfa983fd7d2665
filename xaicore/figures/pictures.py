"""Figures of images and heatmaps."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from xaicore.figures.mosaic import Mosaic
from xaicore.figures.style import (
    SHOWN,
    STYLE,
    WIDTH,
    BookFigure,
    Images,
    arrow,
    bare,
    new_figure,
    new_panel,
    picture,
    relevance,
    relevance_bar,
    show_image,
    show_relevance,
)

GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1}
HEAT: dict[str, Any] = {"cmap": "inferno", "vmin": 0, "vmax": 1}


def attack_illustration(rows: Sequence[tuple[str, Images, Images, str, str]]) -> BookFigure:
    """Image, perturbation and result, one attack a row.

    Args:
        rows: (name of the attack, clean image, adversarial image, predicted label before, and after), images in
            [0, 1] of shape (C, H, W). The perturbation is stretched to its own largest entry; the title says how much.
    """
    with mpl.rc_context(STYLE):
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


def image_rows(rows: Mapping[str, Sequence[Images]]) -> BookFigure:
    """Draw rows of images (C, H, W) in [0, 1], each row with its label."""
    columns = max(len(images) for images in rows.values())
    with mpl.rc_context(STYLE):
        figure, axes = new_panel(len(rows) * (WIDTH / columns + 0.03))
        mosaic = Mosaic(axes, list(rows), [""] * columns, label_size=10)
        for row, images in enumerate(rows.values()):
            for column, image in enumerate(images):
                mosaic.put(row, column, picture(image), **GREY)
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
        figure, grid = new_figure(2, columns, 2 * WIDTH / (columns + 0.9) + 0.5)
        for position, (image, heatmap, title) in enumerate(zip(images, heatmaps, titles, strict=True)):
            show_image(grid[0, position], image, title)
            show_relevance(grid[1, position], heatmap)
            if arrows and position in arrows:
                for axes in grid[:, position]:
                    arrow(axes, *arrows[position], size=relevance(heatmap).shape[0])
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
    second = [] if beside is None else [beside[0]]
    columns = len(titles) + 1 + len(second)
    with mpl.rc_context({**STYLE, "axes.titlesize": 9 if columns < 6 else 8}):
        side = WIDTH / (columns + 0.6)
        figure, grid = new_figure(len(rows), columns, len(rows) * (side + 0.05) + 0.3)
        heads = [textwrap.fill(title, 16) for title in (image, *second, *titles)]
        for position, (axes, (label, first, heatmaps)) in enumerate(zip(grid, rows, strict=True)):
            named = list(zip(axes, [""] * columns if position else heads, strict=True))
            shown = [first] if beside is None else [first, beside[1][position]]
            for (panel, title), each in zip(named, shown, strict=False):
                show_image(panel, each, title)
            axes[0].set_ylabel(label)
            for (panel, title), heatmap in zip(named[len(shown) :], heatmaps, strict=True):
                bound = float(np.quantile(np.abs(relevance(heatmap)), SHOWN)) or None
                show_relevance(panel, heatmap, title, bound)
        relevance_bar(figure, grid.ravel().tolist(), "relevance, own scale")
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
        figure, grid = new_figure(count, columns, count * (WIDTH / columns + 0.28))
        show_image(grid[0, 0], image, "image")
        for axes, (name, heatmap) in zip(grid.ravel()[1:], maps.items(), strict=False):
            array = relevance(heatmap)
            axes.imshow(array, cmap="magma", vmin=0, vmax=float(array.max()) or 1.0, interpolation="nearest")
            bare(axes, name)
        for axes in grid.ravel()[panels:]:
            axes.set_visible(False)
        return figure


def map_grid(
    rows: Sequence[tuple[str, Sequence[tuple[Images, Images, bool]]]], titles: Sequence[str]
) -> BookFigure:
    """Draw images with a map laid over each, one network or image a row.

    Args:
        rows: (label, one (image (C, H, W) in [0, 1], map (h, w) of at least 0, whether the answer is wrong) for each
            title). Every map is on its own scale from zero to its maximum. A wrong answer has a red frame.
        titles: of the columns.
    """
    columns = len(titles)
    with mpl.rc_context({**STYLE, "xtick.labelsize": 9}):
        side = WIDTH / (columns + 0.9)
        figure, axes = new_panel(len(rows) * (side + 0.04) + 0.8)
        mosaic = Mosaic(axes, [label for label, _ in rows], titles, label_size=10)
        for row, (_, cells) in enumerate(rows):
            for column, (image, heatmap, wrong) in enumerate(cells):
                mosaic.put(row, column, picture(image), **GREY)
                mosaic.put(
                    row,
                    column,
                    _share(heatmap),
                    wrong=wrong,
                    alpha=0.55,
                    **{**HEAT, "interpolation": "bilinear"},
                )
        _map_bar(figure, [axes])
        return figure


def shift_grid(
    images: Sequence[Images],
    maps: Mapping[str, Sequence[Images]],
    titles: Sequence[str],
    *,
    wrong: Sequence[bool] | None = None,
    blocks: int = 2,
) -> BookFigure:
    """Draw the maps of many layers (rows) for several versions of an image (columns), layers in blocks side by side.

    Args:
        images: the versions, (C, H, W) in [0, 1]; shown above each block.
        maps: layer name to one map (h, w) of at least 0 for each version; every map is on its own scale from zero to
            its maximum, so that the colours of all cells mean the same.
        titles: of the versions.
        wrong: versions that are classified wrongly: their image has a red frame.
        blocks: blocks of layers side by side.
    """
    names = list(maps)
    height = -(-len(names) // blocks)
    with mpl.rc_context({**STYLE, "xtick.labelsize": 7.5, "axes.labelsize": 8}):
        side = WIDTH / (blocks * (len(titles) + 0.35))
        figure, grid = new_figure(1, blocks, (height + 1) * side + 0.75)
        for block, axes in enumerate(grid[0]):
            own = names[block * height : (block + 1) * height]
            labels = ["", *(_in_lines(name, 12) for name in own), *[""] * (height - len(own))]
            mosaic = Mosaic(axes, labels, titles, label_size=6.5)
            for column, image in enumerate(images):
                mosaic.put(0, column, picture(image), wrong=bool(wrong and wrong[column]), **GREY)
            for row, name in enumerate(own, 1):
                for column, heatmap in enumerate(maps[name]):
                    mosaic.put(row, column, _share(heatmap), **HEAT)
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
