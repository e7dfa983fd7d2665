"""Attacks: ``attack(model, images, labels, *, …) -> AttackResult``, all in [0, 1] image space.

An image's result depends on the model, the image, its label, the parameters, the seed and its index, and not
on the other images of the call. :data:`ATTACKS` holds them by name (:mod:`xaicore.attacks.registry`).
"""

from xaicore.attacks.adversarial_patch import apply_patch, patch, train_patch
from xaicore.attacks.base import AttackWarning, success_after_uint8
from xaicore.attacks.box_lbfgs import lbfgs
from xaicore.attacks.carlini_wagner_l0 import cw_l0
from xaicore.attacks.carlini_wagner_l2 import cw_l2
from xaicore.attacks.carlini_wagner_linf import cw_linf
from xaicore.attacks.decision_boundary import boundary
from xaicore.attacks.few_pixels import one_pixel
from xaicore.attacks.gradient_sign import fgsm, fgsm_direction, fgsm_search
from xaicore.attacks.iterated_sign import bim, mim, pgd
from xaicore.attacks.matched_noise import gaussian, noise_like
from xaicore.attacks.neuron_fuzzing import dlfuzz
from xaicore.attacks.registry import ATTACKS, Attack
from xaicore.attacks.result import AttackResult
from xaicore.attacks.suspicion import Suspicion, suspicions

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackResult",
    "AttackWarning",
    "Suspicion",
    "apply_patch",
    "bim",
    "boundary",
    "cw_l0",
    "cw_l2",
    "cw_linf",
    "dlfuzz",
    "fgsm",
    "fgsm_direction",
    "fgsm_search",
    "gaussian",
    "lbfgs",
    "mim",
    "noise_like",
    "one_pixel",
    "patch",
    "pgd",
    "success_after_uint8",
    "suspicions",
    "train_patch",
]
