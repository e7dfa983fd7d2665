"""Every figure the notebooks show.

One palette that colour-blind readers can tell apart (Okabe and Ito 2008), with marker shapes that repeat what the colour
says; relevance on a diverging map centred on zero; one scale within a comparison; units on the axes. A function takes
arrays or tensors, returns a :class:`BookFigure` and touches no global state of matplotlib.
"""

from xaicore.figures.charts import (
    curve_panels,
    curves,
    distributions,
    estimated,
    fitted_points,
    layer_boxes,
    layer_curves,
    scatter_groups,
    scatter_panels,
    training_curves,
)
from xaicore.figures.detection import entropy_planes, group_boxes, roc_panels
from xaicore.figures.pictures import (
    attack_illustration,
    cluster_panels,
    denoising_grid,
    explanation_grid,
    image_grid_with_relevance,
    image_rows,
    layer_grid,
    map_grid,
    picture_table,
    shift_grid,
)
from xaicore.figures.small import estimate_rows, relevance_strip
from xaicore.figures.style import MARKERS, PALETTE, RELEVANCE_MAP, BookFigure
from xaicore.figures.tables import arena_table, heat_table

__all__ = [
    "MARKERS",
    "PALETTE",
    "RELEVANCE_MAP",
    "BookFigure",
    "arena_table",
    "attack_illustration",
    "cluster_panels",
    "curve_panels",
    "curves",
    "denoising_grid",
    "distributions",
    "entropy_planes",
    "estimate_rows",
    "estimated",
    "explanation_grid",
    "fitted_points",
    "group_boxes",
    "heat_table",
    "image_grid_with_relevance",
    "image_rows",
    "layer_boxes",
    "layer_curves",
    "layer_grid",
    "map_grid",
    "picture_table",
    "relevance_strip",
    "roc_panels",
    "scatter_groups",
    "scatter_panels",
    "shift_grid",
    "training_curves",
]
