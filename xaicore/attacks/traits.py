"""What each attack may see of the model, and how it measures its perturbation: one table for all of them."""

from dataclasses import dataclass
from typing import Literal

Access = Literal["gradients", "scores", "decisions", "none"]
Norm = Literal["l0", "l2", "linf"]


@dataclass(frozen=True)
class Traits:
    """What kind of attack it is.

    Attributes:
        access: what it uses of the model: its ``gradients`` (white-box), the ``scores`` of the classes, only
            its ``decisions``, or ``none``.
        norm: the one it bounds or minimises; None where its constraint is no norm.
        minimal: it looks for the smallest perturbation, with no budget given beforehand.
    """

    access: Access
    norm: Norm | None
    minimal: bool = False


TRAITS: dict[str, Traits] = {
    "fgsm": Traits("gradients", "linf"),
    "fgsm_search": Traits("gradients", "linf", minimal=True),
    "bim": Traits("gradients", "linf"),
    "mim": Traits("gradients", "linf"),
    "pgd": Traits("gradients", "linf"),
    "cw_l2": Traits("gradients", "l2", minimal=True),
    "cw_l0": Traits("gradients", "l0", minimal=True),
    "cw_linf": Traits("gradients", "linf", minimal=True),
    "lbfgs": Traits("gradients", "l2", minimal=True),
    "boundary": Traits("decisions", "l2", minimal=True),
    "one_pixel": Traits("scores", "l0"),
    "dlfuzz": Traits("gradients", None),
    "patch": Traits("gradients", None),
    "gaussian": Traits("none", None),
}
"""By the names of ``ATTACKS``, for their default parameters: ``pgd(..., norm="l2")`` is
``Traits("gradients", "l2")``."""
