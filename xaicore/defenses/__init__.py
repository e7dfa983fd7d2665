"""Defences: what makes a model, or its input, harder to attack; and attacks that know of them.

Images are everywhere (N, C, H, W) floating point in [0, 1], float32 for attacks and training, and labels (N,) int64.
What is of another kind raises TypeError; a shape, type, range or number that does not fit ValueError.
"""

from xaicore.defenses.adaptive import MarkedPixels, masked_attack, shown_to
from xaicore.defenses.blur import gaussian_blur
from xaicore.defenses.denoising import Denoiser, trained_denoiser
from xaicore.defenses.distillation import Distillation, distill, soft_labels
from xaicore.defenses.heat_and_blur import HeatAndBlur, restore, scattered
from xaicore.defenses.reformer import Reformed
from xaicore.defenses.retraining import adversarial_retraining, extended_set
from xaicore.defenses.robust_training import adversarial_training

__all__ = [
    "Denoiser",
    "Distillation",
    "HeatAndBlur",
    "MarkedPixels",
    "Reformed",
    "adversarial_retraining",
    "adversarial_training",
    "distill",
    "extended_set",
    "gaussian_blur",
    "masked_attack",
    "restore",
    "scattered",
    "shown_to",
    "soft_labels",
    "trained_denoiser",
]
