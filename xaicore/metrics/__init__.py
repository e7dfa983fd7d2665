"""Metrics: numbers from heatmaps, images, logits, scores and samples, with their intervals.

Most take one row per image and give one number per image, in float64; :mod:`xaicore.metrics.intervals` turns those
into an interval. A number that is not defined for an image is NaN: :func:`undefined_count` counts these, and
:func:`defined` leaves them out.
"""

from xaicore.metrics.checks import defined, placed, undefined_count
from xaicore.metrics.detection import (
    OperatingPoint,
    RocCurve,
    auroc,
    auroc_ci,
    roc_curve,
    separation,
    tpr_at_fpr,
    tpr_at_fpr_ci,
)
from xaicore.metrics.dissimilarity import mod, nissim, vid
from xaicore.metrics.gain import Relevances, ndcg, relevances
from xaicore.metrics.images import Norms, norms, psnr
from xaicore.metrics.intervals import (
    Estimate,
    Interval,
    bootstrap_ci,
    bootstrap_difference_ci,
    proportion_ci,
    row_bootstrap,
    row_bootstraps,
)
from xaicore.metrics.localisation import pointing_hits, relevance_rank, relevance_share, window_mask
from xaicore.metrics.maps import cosine_similarity, rank_correlation, shannon_entropy, total_variation
from xaicore.metrics.masks import mask_fraction, mask_iou, mean_iou_with_others, relevance_mask
from xaicore.metrics.neighbours import neighbour_mixing
from xaicore.metrics.neuron_coverage import NeuronCoverage, coverage_progress
from xaicore.metrics.rank_tests import RankTest, holm, wilcoxon
from xaicore.metrics.ratios import matched_difference, ratio, ratio_difference
from xaicore.metrics.structural import ssim

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
    "mask_fraction",
    "mask_iou",
    "matched_difference",
    "mean_iou_with_others",
    "mod",
    "ndcg",
    "neighbour_mixing",
    "nissim",
    "norms",
    "placed",
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
