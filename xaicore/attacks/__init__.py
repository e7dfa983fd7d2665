"""Attacks: ``attack(model, images, labels, *, …) -> AttackResult``, all in [0, 1] image space.

An image's result depends on the model, the image, its label, the parameters, the seed and its index, and not
on the other images of the call. ``ATTACKS`` is the one registry; a new attack is a file with its step and a
line here.
"""

from collections.abc import Callable

from xaicore.attacks.base import success_after_uint8
from xaicore.attacks.few_pixels import one_pixel
from xaicore.attacks.gradient_sign import fgsm, fgsm_search
from xaicore.attacks.result import AttackResult

ATTACKS: dict[str, Callable[..., AttackResult]] = {
    "fgsm": fgsm,
    "fgsm_search": fgsm_search,
    "one_pixel": one_pixel,
}

__all__ = ["ATTACKS", "AttackResult", "fgsm", "fgsm_search", "one_pixel", "success_after_uint8"]
