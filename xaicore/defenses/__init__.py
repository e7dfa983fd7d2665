"""Defences: what makes a model, or its input, harder to attack; and attacks that know of them."""

from xaicore.defenses.adaptive import adaptive_attack, shown_to
from xaicore.defenses.blur import gaussian_blur
from xaicore.defenses.heat_and_blur import HeatAndBlur, restore, scattered
from xaicore.defenses.retraining import adversarial_retraining, extended_set

__all__ = [
    "HeatAndBlur",
    "adaptive_attack",
    "adversarial_retraining",
    "extended_set",
    "gaussian_blur",
    "restore",
    "scattered",
    "shown_to",
]
