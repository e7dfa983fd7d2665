"""Metrics: numbers from heatmaps, images and samples, with their intervals.

Heatmaps and images come in, one number per image goes out; :mod:`xaicore.metrics.intervals` turns those
into an interval.
"""

from xaicore.metrics.images import Norms, norms, psnr
from xaicore.metrics.intervals import (
    Interval,
    bootstrap_ci,
    bootstrap_difference_ci,
    paired_bootstrap_ci,
    proportion_ci,
)
from xaicore.metrics.localisation import relevance_rank, relevance_share, window_mask
from xaicore.metrics.maps import cosine_similarity, rank_correlation, shannon_entropy, total_variation
from xaicore.metrics.neighbours import neighbour_mixing
from xaicore.metrics.ratios import Estimate, ratio, ratio_difference

__all__ = [
    "Estimate",
    "Interval",
    "Norms",
    "bootstrap_ci",
    "bootstrap_difference_ci",
    "cosine_similarity",
    "neighbour_mixing",
    "norms",
    "paired_bootstrap_ci",
    "proportion_ci",
    "psnr",
    "rank_correlation",
    "ratio",
    "ratio_difference",
    "relevance_rank",
    "relevance_share",
    "shannon_entropy",
    "total_variation",
    "window_mask",
]
