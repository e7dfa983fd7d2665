"""Detectors: they give an image a suspicion, and flag it where that is high.

All share the contract of :class:`Detector`: fitted on clean images, a score (higher is more suspicious), a threshold
for a false-positive rate. :class:`Explainer` is the detector of paper 5, :class:`MagNet` and :class:`FeatureSqueezing`
are those it compares itself with, :func:`adaptive_attack` knows the detector it faces. The others stand for further
ideas: signatures of relevance and of SHAP values, which learn from adversarial examples too, the maps of all layers,
how unequally pixels matter that are left out one by one (and ML-LOO, which learns from adversarial examples how neurons
do), the uncertainty of dropout, what the network looks at pasted onto other images, the network's answer alone (maximum
softmax, margin, energy), the features that enter its last layer (kernel density, local dimension, Mahalanobis, nearest
neighbours), and the image alone. What is raised is said once, in :mod:`xaicore.detectors.base`.
"""

from xaicore.detectors.adaptive import adaptive_attack
from xaicore.detectors.answer_scores import Energy, Margin, MaxSoftmax
from xaicore.detectors.base import Detector
from xaicore.detectors.clusters import clustered
from xaicore.detectors.deep_features import DeepNeighbours, KernelDensity, LocalDimension, Mahalanobis
from xaicore.detectors.explainer import EXPLANATIONS, Explainer
from xaicore.detectors.feature_squeezing import FeatureSqueezing, squeezed
from xaicore.detectors.image_scores import ImageDenoising, ImageEntropy
from xaicore.detectors.layer_deviation import LayerDeviation
from xaicore.detectors.leave_one_out import LeaveOneOut, MultiLayerLeaveOneOut
from xaicore.detectors.magnet import MagNet
from xaicore.detectors.monte_carlo_dropout import MCDropout
from xaicore.detectors.non_local_means import exact_means, noise_level, non_local_means
from xaicore.detectors.sentinet import SentiNet
from xaicore.detectors.signature_detectors import ShapSignature, SignatureDetector

DETECTORS: dict[str, type[Detector]] = {
    "deep_neighbours": DeepNeighbours,
    "energy": Energy,
    "explainer": Explainer,
    "feature_squeezing": FeatureSqueezing,
    "image_denoising": ImageDenoising,
    "image_entropy": ImageEntropy,
    "kernel_density": KernelDensity,
    "layer_deviation": LayerDeviation,
    "leave_one_out": LeaveOneOut,
    "local_dimension": LocalDimension,
    "magnet": MagNet,
    "mahalanobis": Mahalanobis,
    "margin": Margin,
    "max_softmax": MaxSoftmax,
    "mc_dropout": MCDropout,
    "sentinet": SentiNet,
    "ml_loo": MultiLayerLeaveOneOut,
    "shap_signature": ShapSignature,
    "signature": SignatureDetector,
}
"""Every detector by name; another one is registered here."""

__all__ = [
    "DETECTORS",
    "EXPLANATIONS",
    "DeepNeighbours",
    "Detector",
    "Energy",
    "Explainer",
    "FeatureSqueezing",
    "ImageDenoising",
    "ImageEntropy",
    "KernelDensity",
    "LayerDeviation",
    "LeaveOneOut",
    "LocalDimension",
    "MCDropout",
    "MagNet",
    "Mahalanobis",
    "Margin",
    "MaxSoftmax",
    "MultiLayerLeaveOneOut",
    "SentiNet",
    "ShapSignature",
    "SignatureDetector",
    "adaptive_attack",
    "clustered",
    "exact_means",
    "noise_level",
    "non_local_means",
    "squeezed",
]
