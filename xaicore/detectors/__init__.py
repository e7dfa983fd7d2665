"""Detectors: they give an image a suspicion, and flag it where that is high.

All share the contract of :class:`Detector`: fitted on clean images, a score (higher is more suspicious), a threshold
for a false-positive rate. :class:`Explainer` is the detector of paper 5, :class:`MagNet` and :class:`FeatureSqueezing`
are those it compares itself with.
"""

from xaicore.detectors.base import Detector
from xaicore.detectors.clusters import clustered
from xaicore.detectors.explainer import EXPLANATIONS, Explainer
from xaicore.detectors.feature_squeezing import FeatureSqueezing, squeezed
from xaicore.detectors.magnet import MagNet
from xaicore.detectors.non_local_means import noise_level, non_local_means

__all__ = [
    "EXPLANATIONS",
    "Detector",
    "Explainer",
    "FeatureSqueezing",
    "MagNet",
    "clustered",
    "noise_level",
    "non_local_means",
    "squeezed",
]
