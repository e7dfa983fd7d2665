"""Figures of images and heatmaps."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np

from xaicore.plotting.style import (
    SHOWN,
    STYLE,
    WIDTH,
    BookFigure,
    Images,
    arrow,
    bare,
    new_figure,
    picture,
    relevance,
    relevance_bar,
    show_image,
    show_relevance,
)


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
        figure, grid = new_figure(len(rows), columns, len(rows) * (side + 0.05) + 0.3)
        titles = [textwrap.fill(title, 16) for title in titles]
        for position, (axes, (label, image, heatmaps)) in enumerate(zip(grid, rows, strict=True)):
            show_image(axes[0], image, "" if position else "image")
            axes[0].set_ylabel(label)
            for panel, heatmap, title in zip(axes[1:], heatmaps, titles, strict=True):
                bound = float(np.quantile(np.abs(relevance(heatmap)), SHOWN)) or None
                show_relevance(panel, heatmap, "" if position else title, bound)
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
