"""Metrics: numbers from heatmaps, images, logits, scores and samples, with their intervals.

Most take one row per image and give one number per image, in float64; :mod:`xaicore.metrics.intervals` turns those
into an interval. A number that is not defined for an image is NaN: :func:`undefined_count` counts these, and
:func:`defined` leaves them out.
"""

from xaicore.metrics.detection import (
    OperatingPoint,
    RocCurve,
    auroc,
    auroc_ci,
    roc_curve,
    tpr_at_fpr,
    tpr_at_fpr_ci,
)
from xaicore.metrics.dissimilarity import mod, nissim, vid
from xaicore.metrics.gain import Relevances, ndcg, relevances
from xaicore.metrics.images import Norms, norms, psnr
from xaicore.metrics.intervals import (
    Interval,
    bootstrap_ci,
    bootstrap_difference_ci,
    paired_bootstrap_ci,
    proportion_ci,
)
from xaicore.metrics.localisation import pointing_hits, relevance_rank, relevance_share, window_mask
from xaicore.metrics.maps import cosine_similarity, rank_correlation, shannon_entropy, total_variation
from xaicore.metrics.masks import mask_fraction, mask_iou, relevance_mask
from xaicore.metrics.neighbours import neighbour_mixing
from xaicore.metrics.neuron_coverage import NeuronCoverage, coverage_progress
from xaicore.metrics.rank_tests import RankTest, holm, mann_whitney, wilcoxon
from xaicore.metrics.ratios import Estimate, ratio, ratio_difference
from xaicore.metrics.rows import matched_difference, row_bootstrap, row_bootstraps, separation
from xaicore.metrics.structural import ssim
from xaicore.metrics.undefined import defined, undefined_count

__all__ = [
    "Estimate",
    "Interval",
    "NeuronCoverage",
    "Norms",
    "OperatingPoint",
    "RankTest",
    "Relevances",
    "RocCurve",
    "auroc",
    "auroc_ci",
    "bootstrap_ci",
    "bootstrap_difference_ci",
    "cosine_similarity",
    "coverage_progress",
    "defined",
    "holm",
    "mann_whitney",
    "mask_fraction",
    "mask_iou",
    "matched_difference",
    "mod",
    "ndcg",
    "neighbour_mixing",
    "nissim",
    "norms",
    "paired_bootstrap_ci",
    "pointing_hits",
    "proportion_ci",
    "psnr",
    "rank_correlation",
    "ratio",
    "ratio_difference",
    "relevance_mask",
    "relevance_rank",
    "relevance_share",
    "relevances",
    "roc_curve",
    "row_bootstrap",
    "row_bootstraps",
    "separation",
    "shannon_entropy",
    "ssim",
    "total_variation",
    "tpr_at_fpr",
    "tpr_at_fpr_ci",
    "undefined_count",
    "vid",
    "wilcoxon",
    "window_mask",
]
