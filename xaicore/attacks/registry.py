"""The attacks in one table: the function, what pages call it, what it sees of the model, and what it bounds.

A new attack is a file with its step, a row here, and its test. Attacks do not import this table: another title does not
change the address of what they computed.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from xaicore.attacks.adaptive_boundary import fab
from xaicore.attacks.adversarial_patch import patch
from xaicore.attacks.auto_attack import autoattack
from xaicore.attacks.auto_pgd import apgd
from xaicore.attacks.box_lbfgs import lbfgs
from xaicore.attacks.carlini_wagner_l0 import cw_l0
from xaicore.attacks.carlini_wagner_l2 import cw_l2
from xaicore.attacks.carlini_wagner_linf import cw_linf
from xaicore.attacks.decision_boundary import boundary
from xaicore.attacks.deep_fool import deepfool
from xaicore.attacks.few_pixels import one_pixel
from xaicore.attacks.gradient_sign import fgsm, fgsm_search
from xaicore.attacks.iterated_sign import bim, mim, pgd
from xaicore.attacks.matched_noise import gaussian
from xaicore.attacks.neuron_fuzzing import dlfuzz
from xaicore.attacks.random_squares import square
from xaicore.attacks.result import AttackResult

Access = Literal["gradients", "scores", "decisions", "none"]
Norm = Literal["l0", "l2", "linf"]


@dataclass(frozen=True)
class Attack:
    """An attack and what kind of attack it is, for its default parameters.

    Attributes:
        function: ``function(model, images, labels, *, …) -> AttackResult``.
        title: what pages call it.
        access: what it uses of the model: its ``gradients`` (white-box), the ``scores`` of the classes, only
            its ``decisions``, or ``none``.
        norm: the one it bounds or minimises; None where its constraint is no norm.
        minimal: it looks for the smallest perturbation, with no budget given beforehand.
    """

    function: Callable[..., AttackResult]
    title: str
    access: Access
    norm: Norm | None
    minimal: bool = False

    def accepts(self, parameter: str) -> bool:
        """Return whether the function has a parameter of that name."""
        return parameter in inspect.signature(self.function).parameters

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        **parameters: Any,
    ) -> AttackResult:
        """Call the function; ``seed`` and ``index`` reach it where it draws at random."""
        drawing = {"seed": seed, "index": index} if self.accepts("index") else {}
        return self.function(model, images, labels, **drawing, **parameters)


ATTACKS = {
    "fgsm": Attack(fgsm, "FGSM", "gradients", "linf"),
    "fgsm_search": Attack(fgsm_search, "FGSM, smallest step", "gradients", "linf", minimal=True),
    "bim": Attack(bim, "BIM", "gradients", "linf"),
    "mim": Attack(mim, "MIM", "gradients", "linf"),
    "pgd": Attack(pgd, "PGD", "gradients", "linf"),
    "apgd": Attack(apgd, "APGD", "gradients", "linf"),
    "autoattack": Attack(autoattack, "AutoAttack", "gradients", "linf"),
    "fab": Attack(fab, "FAB", "gradients", "linf", minimal=True),
    "deepfool": Attack(deepfool, "DeepFool", "gradients", "l2", minimal=True),
    "cw_l2": Attack(cw_l2, "CW L2", "gradients", "l2", minimal=True),
    "cw_linf": Attack(cw_linf, "CW L∞", "gradients", "linf", minimal=True),
    "cw_l0": Attack(cw_l0, "CW L0", "gradients", "l0", minimal=True),
    "lbfgs": Attack(lbfgs, "L-BFGS", "gradients", "l2", minimal=True),
    "boundary": Attack(boundary, "boundary", "decisions", "l2", minimal=True),
    "square": Attack(square, "Square", "scores", "linf"),
    "one_pixel": Attack(one_pixel, "one pixel", "scores", "l0"),
    "dlfuzz": Attack(dlfuzz, "DLFuzz", "gradients", None),
    "patch": Attack(patch, "patch", "gradients", None),
    "gaussian": Attack(gaussian, "Gaussian noise", "none", None),
}
