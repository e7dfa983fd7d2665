"""Attacks: ``attack(model, images, labels, *, …) -> AttackResult``, all in [0, 1] image space.

An image's result depends on the model, the image, its label, the parameters, the seed and its index, and not
on the other images of the call. :data:`ATTACKS` holds them by name (:mod:`xaicore.attacks.registry`). Arguments that
all or several have in common are::

    model       (N, C, H, W) images in [0, 1] to (N, K) logits, K of at least 2
    images      (N, C, H, W) float32 in [0, 1], on any device
    labels      (N,) int64, the true classes
    target      class to reach, or (N,) int64 of them; None to leave the true class
    seed        with index, the source of all randomness: image i draws from a stream of its own, (seed, index[i])
    index       (N,) int64, number of each image in its set, at least 0; None counts from 0. With the same index an
                image has the same result in any batch
    batch_size  images in one pass of the model; None: what suits their size and the device

They raise TypeError where an argument is of the wrong kind, and ValueError where shape, type, range, labels, target
or a parameter does not fit or a tensor holds NaN.
"""

from xaicore.attacks.adaptive_boundary import fab
from xaicore.attacks.adversarial_patch import apply_patch, patch, train_patch
from xaicore.attacks.auto_attack import autoattack
from xaicore.attacks.auto_pgd import apgd
from xaicore.attacks.base import AttackWarning, success_after_uint8
from xaicore.attacks.box_lbfgs import lbfgs
from xaicore.attacks.carlini_wagner_l0 import cw_l0
from xaicore.attacks.carlini_wagner_l2 import cw_l2
from xaicore.attacks.carlini_wagner_linf import cw_linf
from xaicore.attacks.decision_boundary import boundary
from xaicore.attacks.deep_fool import deepfool
from xaicore.attacks.few_pixels import one_pixel
from xaicore.attacks.gradient_sign import fgsm, fgsm_direction, fgsm_search
from xaicore.attacks.iterated_sign import bim, mim, pgd
from xaicore.attacks.matched_noise import gaussian, noise_like
from xaicore.attacks.neuron_fuzzing import dlfuzz
from xaicore.attacks.random_squares import square
from xaicore.attacks.registry import ATTACKS, Attack
from xaicore.attacks.result import AttackResult
from xaicore.attacks.suspicion import Suspicion, suspicions

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackResult",
    "AttackWarning",
    "Suspicion",
    "apgd",
    "apply_patch",
    "autoattack",
    "bim",
    "boundary",
    "cw_l0",
    "cw_l2",
    "cw_linf",
    "deepfool",
    "dlfuzz",
    "fab",
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
    "square",
    "success_after_uint8",
    "suspicions",
    "train_patch",
]
