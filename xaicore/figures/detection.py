"""Figures of detectors: what denoising does to a map, groups of scores side by side, and ROC curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from xaicore.figures.style import (
    MARKERS,
    PALETTE,
    SHOWN,
    STYLE,
    WIDTH,
    BookFigure,
    Images,
    new_figure,
    relevance,
    relevance_bar,
    show_image,
    show_relevance,
)

Points = Mapping[str, NDArray[Any]]


def denoising_grid(rows: Sequence[tuple[str, Images, Images, Images, Images, float, float]]) -> BookFigure:
    """Draw an image, its map, the denoised image and its map, one image a row, with the entropies of the maps.

    Args:
        rows: (label, image (C, H, W) in [0, 1], its map (C, h, w) or (h, w), denoised image, its map, entropy of the
            first map, of the second, in bits). Both maps of a row have one scale, symmetric about zero, that ends at
            the value which one pixel in 200 of the two exceeds.
    """
    titles = ("image", "map", "denoised", "map")
    with mpl.rc_context(STYLE):
        side = WIDTH / 5.4
        figure, grid = new_figure(len(rows), 4, len(rows) * (side + 0.3) + 0.1)
        for place, (axes, (label, image, before, denoised, after, *entropies)) in enumerate(
            zip(grid, rows, strict=True)
        ):
            both = np.abs(np.stack([relevance(before), relevance(after)]))
            bound = float(np.quantile(both, SHOWN)) or None
            heads = ["" if place else title for title in titles]
            show_image(axes[0], image, heads[0])
            show_relevance(axes[1], before, f"{heads[1]}\n{entropies[0]:.2f} bits".strip(), bound)
            show_image(axes[2], denoised, heads[2])
            show_relevance(axes[3], after, f"{heads[3]}\n{entropies[1]:.2f} bits".strip(), bound)
            axes[0].set_ylabel(label)
        relevance_bar(figure, grid.ravel().tolist(), "relevance, scale of the row")
        return figure


def group_boxes(
    panels: Mapping[str, Mapping[str, Mapping[str, NDArray[Any]]]], *, ylabel: str, columns: int = 1
) -> BookFigure:
    """Draw groups of values side by side: median, quartiles, 1.5 quartile ranges, and what lies beyond.

    Args:
        panels: title to place on the axis to group to (n,) values; undefined ones (NaN) are left out. A group has the
            same colour everywhere.
        ylabel: quantity with its unit.
        columns: panels in a row.

    Raises:
        ValueError: more groups than colours.
    """
    groups = list(
        dict.fromkeys(group for panel in panels.values() for place in panel.values() for group in place)
    )
    if len(groups) > len(PALETTE):
        raise ValueError(f"panels must have at most {len(PALETTE)} groups together, not {len(groups)}")
    count = -(-len(panels) // columns)
    with mpl.rc_context({**STYLE, "xtick.labelsize": 8.5}):
        figure, grid = new_figure(count, columns, 2.6 * count + 0.5)
        for axes, (title, places) in zip(grid.ravel(), panels.items(), strict=False):
            for centre, of_place in enumerate(places.values()):
                step = 0.8 / len(of_place)
                for number, (group, values) in enumerate(of_place.items()):
                    known = np.asarray(values, dtype=float)
                    axes.boxplot(
                        known[np.isfinite(known)],
                        positions=[centre + (number - (len(of_place) - 1) / 2) * step],
                        widths=0.8 * step,
                        manage_ticks=False,
                        patch_artist=True,
                        boxprops={"facecolor": PALETTE[groups.index(group)], "alpha": 0.75, "linewidth": 0.8},
                        medianprops={"color": "black", "linewidth": 1.6},
                        flierprops={"markersize": 2, "markeredgecolor": "#777777"},
                    )
            axes.set_xticks(range(len(places)), list(places))
            axes.set(title=title, ylabel=ylabel, xlim=(-0.6, len(places) - 0.4))
        for axes in grid.ravel()[len(panels) :]:
            axes.set_visible(False)
        patches = [
            mpl.patches.Patch(facecolor=PALETTE[number], alpha=0.75, label=group)
            for number, group in enumerate(groups)
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(len(groups), 4))
        return figure


def entropy_planes(panels: Mapping[str, Points], *, columns: int = 3) -> BookFigure:
    """Draw the entropy after denoising against the one before, with the line on which nothing changes.

    Args:
        panels: title to group to (n, 2) entropies of the map and of the denoised image's map, in bits. Above the line
            the entropy rises.
        columns: panels in a row.
    """
    count = -(-len(panels) // columns)
    every = np.concatenate([points for panel in panels.values() for points in panel.values()])
    low, high = float(every.min()) - 0.2, float(every.max()) + 0.2
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(count, columns, 2.55 * count + 0.4, sharex=True, sharey=True)
        for axes, (title, groups) in zip(grid.ravel(), panels.items(), strict=False):
            axes.plot([low, high], [low, high], color="#555555", linewidth=1, linestyle="--")
            for (label, points), colour, marker in zip(groups.items(), PALETTE, MARKERS, strict=False):
                axes.scatter(
                    points[:, 0],
                    points[:, 1],
                    s=14,
                    color=colour,
                    marker=marker,
                    alpha=0.6,
                    linewidths=0,
                    label=label,
                )
            axes.set(title=title, xlim=(low, high), ylim=(low, high), aspect="equal")
        for axes in grid.ravel()[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel("entropy of the map (bits)", fontsize=10)
        figure.supylabel("after denoising (bits)", fontsize=10)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
        return figure


def roc_panels(
    panels: Mapping[str, Mapping[str, tuple[NDArray[Any], NDArray[Any]]]],
    *,
    columns: int = 3,
    mark: float | None = None,
) -> BookFigure:
    """Draw ROC curves, one label in one colour throughout, with the diagonal of chance.

    Args:
        panels: title to label to (false-positive rates (T,), true-positive rates (T,)), shares in [0, 1].
        columns: panels in a row.
        mark: a false-positive rate to mark.
    """
    labels = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    count = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(count, columns, 2.45 * count + 0.6, sharex=True, sharey=True)
        for axes, (title, lines) in zip(grid.ravel(), panels.items(), strict=False):
            axes.plot([0, 1], [0, 1], color="#555555", linewidth=1, linestyle="--")
            for label, (false, true) in lines.items():
                axes.step(false, true, where="post", color=PALETTE[labels.index(label)], label=label)
            if mark is not None:
                axes.axvline(mark, color="#999999", linewidth=1, linestyle=":")
            axes.set(title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        for axes in grid.ravel()[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel("clean images flagged", fontsize=10)
        figure.supylabel("attacked images flagged", fontsize=10)
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
        return figure
