"""AutoAttack: four or six attacks one after the other, each on the images that have withstood those before.

Croce & Hein (2020), Sec. 6. The parts need no tuning and fail for different reasons: APGD on two losses, FAB, which
minimises the distance and needs no loss, and Square, which needs no gradient. The versions are those of the authors'
code: "standard" takes APGD on the cross-entropy, APGD-T, FAB-T and Square; "plus" APGD on the cross-entropy and on DLR
and FAB with five starts each, Square, APGD-T and FAB-T.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.attacks.adaptive_boundary import Fab
from xaicore.attacks.auto_pgd import AutoPgd
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iterated_sign import NORMS, radius
from xaicore.attacks.random_squares import Square
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks

VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce-5", "apgd-dlr-5", "fab-5", "square", "apgd-t", "fab-t"),
}
"""The parts of each version, by name, in the order of their numbers in ``info``."""
BLACK_BOX = VERSIONS["standard"].index("square")
"""The number of the part without gradients, in both versions."""
RANDOM = 1e-5  # share of the largest logit by which two passes of a model that is not random may differ


def autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    version: str = "standard",
    norm: str = "linf",
    eps: float | None = None,
    steps: int = 100,
    queries: int = 5000,
    candidates: int = 9,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Run several attacks within an L-infinity or L2 ball, each on the images that no earlier one fooled.

    Args:
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`. With a ``target`` all
            parts aim at it.
        version: "standard" or "plus".
        norm, eps: as in :func:`xaicore.attacks.pgd`.
        steps: of APGD and FAB, from each start.
        queries: of Square.
        candidates: wrong classes that APGD-T and FAB-T try and FAB looks at.

    Returns:
        The result; a failed image is that of largest margin among those that the parts handed back. ``queries`` counts
        those of all parts, two passes of the clean image, and one to judge what each part hands back. In ``info``:
        ``part`` (N,) int64, the number in :data:`VERSIONS` of the part that fooled the image, -1 without; ``random``
        (N,) bool, two passes of the clean image gave different logits; ``zero_gradient`` (N,) bool, some part had no
        usable gradient at a start. See :func:`xaicore.attacks.suspicions`.

    References:
        Croce & Hein (2020), Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks, Sec. 6.
    """
    norm = checks.one_of("norm", norm, NORMS)
    eps = radius(norm, eps)
    steps = checks.integer("steps", steps, least=1)
    queries = checks.integer("queries", queries, least=1)
    candidates = checks.integer("candidates", candidates, least=1)
    seed = checks.integer("seed", seed, least=0)

    def part(name: str) -> AutoPgd | Fab | Square:
        if name == "square":
            return Square(norm=norm, eps=eps, queries=queries, covered=0.8, seed=seed)
        common: dict[str, Any] = {"norm": norm, "eps": eps, "steps": steps, "candidates": candidates}
        common |= {"restarts": 5 if name.endswith("-5") else 1, "seed": seed}
        if name.startswith("fab"):
            return Fab(one_by_one=name == "fab-t", **common)
        loss = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "targeted-dlr"}[name.removesuffix("-5")]
        return AutoPgd(loss=loss, **common)

    version = checks.one_of("version", version, VERSIONS)
    attack = _InTurn([part(name) for name in VERSIONS[version]])
    return run(attack, model, images, labels, target=target, index=index, batch_size=batch_size)


@dataclass(frozen=True)
class _InTurn:
    """The parts as one step of the base."""

    parts: list[AutoPgd | Fab | Square]

    def __call__(self, victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        """Attack ``images`` (n, C, H, W) with one part after the other."""
        clean, again = victim.logits(images), victim.logits(images)
        apart = (clean - again).abs().amax(dim=1) > RANDOM * clean.abs().amax(dim=1)
        best, margin = images.clone(), torch.full_like(clean[:, 0], -torch.inf)
        queries, zero = torch.full_like(index, 2), torch.zeros_like(apart)
        fooled_by = torch.full_like(index, -1)
        left = torch.arange(len(images), device=images.device)
        for number, part in enumerate(self.parts):
            attempt = part(victim, images[left], goal[left], index[left])
            logits = victim.logits(attempt.adversarial)
            margins = goal[left].margin(logits).nan_to_num(-torch.inf)
            reached = goal[left].reached(logits)
            better = reached | (margins > margin[left])
            best[left[better]], margin[left[better]] = attempt.adversarial[better], margins[better]
            queries[left] += attempt.queries + 1
            if "zero_gradient" in attempt.info:
                zero[left] |= attempt.info["zero_gradient"]
            fooled_by[left[reached]] = number
            left = left[~reached]
        return Attempt(best, queries, {"part": fooled_by, "random": apart, "zero_gradient": zero})
