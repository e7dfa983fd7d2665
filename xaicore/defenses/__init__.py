"""Defences: what makes a model, or its input, harder to attack."""

from xaicore.defenses.retraining import adversarial_retraining, extended_set

__all__ = ["adversarial_retraining", "extended_set"]
