"""Adversarial images as a file holds them: whole steps of 8 bits, before anything else looks at them.

An attack that looks for the smallest perturbation may end a fraction of a grey level away, and rounding alone undoes
it. An attacker who hands in a file enlarges the perturbation until the file fools the network; :func:`stored` does so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xaicore.attacks import AttackResult
from xaicore.attacks.result import perturbation_norms
from xaicore.core import checks
from xaicore.defenses import shown_to

ENLARGEMENTS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
"""What a perturbation is multiplied by before it is rounded, the smallest that works; 1 is rounding alone."""


def stored(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    result: AttackResult,
    *,
    bits: int = 8,
    target: Tensor | None = None,
    enlargements: Sequence[float] = ENLARGEMENTS,
    batch_size: int | None = None,
) -> AttackResult:
    """Return what is left of an attack once its images are stored, rounded to ``2**bits - 1`` steps.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits, what was attacked.
        images: the clean images, whole steps themselves, or rounding moves more than the perturbation.
        labels: (N,) int64 true classes.
        result: the attack.
        bits: of a value, 1 to 8.
        target: (N,) int64, as in the attack.
        enlargements: rising factors on the perturbation; the first whose rounded image reaches the goal is taken.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Returns:
        The result with images, norms and ``success`` after rounding, for the images that the attack had fooled; of the
        others, and where no enlargement will do, the attempt that is rounded alone. ``info``: ``enlargement`` (N,)
        float32, NaN where none, ``survives`` (N,) bool, where rounding alone leaves a success, and ``initially_wrong``.
    """
    levels = 2 ** checks.integer("bits", bits, least=1, most=8) - 1
    perturbation = result.adversarial - images

    def attempt(rows: Tensor, factor: float) -> AttackResult:
        enlarged = (images[rows] + factor * perturbation[rows]).clamp(0, 1)
        rounded = (enlarged * levels).round() / levels
        norms = perturbation_norms(images[rows], rounded)
        kept = AttackResult(rounded, result.success[rows], *norms, result.queries[rows], 0.0)
        goal = None if target is None else target[rows]
        return shown_to(model, images[rows], labels[rows], kept, target=goal, batch_size=batch_size)

    everything = torch.arange(len(images), device=images.device)
    found = attempt(everything, 1.0)
    arrays = found.arrays()
    survives = result.success & found.success
    success, enlargement = survives.clone(), torch.full_like(found.l2, torch.nan)
    enlargement[survives] = 1.0
    for factor in enlargements:
        left = (result.success & ~success).nonzero()[:, 0]
        if factor == 1 or not len(left):
            continue
        tried = attempt(left, factor)
        hits = left[tried.success]
        for name, values in tried.arrays().items():
            arrays[name][hits] = values[tried.success]
        success[hits], enlargement[hits] = True, factor
    whole = AttackResult.from_arrays(arrays, seconds=result.seconds)
    info = {
        "enlargement": enlargement,
        "survives": survives,
        "initially_wrong": found.info["initially_wrong"],
    }
    return dataclasses.replace(whole, success=success, info=info)
