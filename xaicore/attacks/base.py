"""What all attacks share: checks, the clean pass, clipping, the success check, norms, queries and time.

An attack is a step: given some correctly classified images and a goal, it returns an attempt. :func:`run`
does the rest, so that no attack decides for itself what counts as success. Images that the model gets wrong
before the attack are handed back untouched, in targeted attacks too: success is a statement about images that
were right (ARCHITECTURE, TRAPS).
"""

import inspect
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.goal import Goal
from xaicore.attacks.result import AttackResult, perturbation_norms
from xaicore.attacks.victim import Victim
from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.core.outputs import look_like_probabilities

GROUP = 2**26
"""Values of the images an attack holds on the model's device at a time, 256 MB: memory beyond input and output
does not grow with N."""


class AttackWarning(UserWarning):
    """An attack met zero gradients, non-finite logits or probabilities: a failure says little about robustness."""


@dataclass(frozen=True)
class Attempt:
    """What a step returns for its n images: (n, C, H, W), passes (n,) int64, further tensors (n, ...)."""

    adversarial: Tensor
    queries: Tensor
    info: dict[str, Tensor]


class Opening(NamedTuple):
    """What the clean pass finds where an attack begins with the gradient at the clean images."""

    logits: Tensor  # (n, K)
    gradient: Tensor  # (n, C, H, W), of ``goal.score``


Step = Callable[..., Attempt]
"""(victim, images, goal, index) -> attempt; images on the victim's device, possibly none at all.

With ``extras`` in :func:`run` one argument more, their rows for these images, by name; with ``opening`` an
:class:`Opening`.
"""


def run(
    step: Step,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    target: int | Tensor | None,
    batch_size: int | None,
    index: Tensor | None = None,
    extras: Mapping[str, Tensor] | None = None,
    opening: bool = False,
) -> AttackResult:
    """Run ``step`` on the correctly classified ``images`` and measure what comes out.

    Args:
        step: the attack proper.
        model, images, labels, target, batch_size, index: as in :mod:`xaicore.attacks`.
        extras: checked tensors (N, ...), one row for each image, that the step needs besides.
        opening: the step begins with the gradient at the clean images; the clean pass takes it along, which saves a pass.

    Returns:
        The result, with tensors on the device of ``images``.
    """
    started = time.perf_counter()
    checks.model(model)
    images = checks.images(images).detach()
    goal = Goal.of(labels, target, images)
    index = torch.arange(len(images)) if index is None else checks.integers("index", index, len(images))
    if (index < 0).any():
        raise UserError("index must not be negative")
    with Victim.of(model, images, batch_size) as victim:
        clean, attempt = _in_groups(step, victim, images, goal, index.to(images.device), extras, opening)
        final = victim.logits(attempt.adversarial).to(images.device)
        if victim.device.type == "cuda":
            torch.cuda.synchronize(victim.device)
    wrong = _wrong(clean, goal)
    nonfinite = ~(clean.isfinite().all(dim=1) & final.isfinite().all(dim=1))
    _warn(attempt.info.get("zero_gradient"), nonfinite, wrong, clean)
    info = {"initially_wrong": wrong, "nonfinite": nonfinite, "margin": goal.margin(final), **attempt.info}
    return AttackResult(
        attempt.adversarial,
        goal.reached(final) & ~nonfinite,
        *perturbation_norms(images, attempt.adversarial),
        queries=attempt.queries,
        seconds=time.perf_counter() - started,
        info=info,
    )


def _warn(zero_gradient: Tensor | None, nonfinite: Tensor, wrong: Tensor, clean: Tensor) -> None:
    """Say in one line each, at the place where the attack was called, what makes its result doubtful."""
    found = []
    if zero_gradient is not None and zero_gradient.any():
        count, attacked = int(zero_gradient.sum()), int((~wrong).sum())
        found.append(f"no usable gradient for {count} of {attacked} images attacked")
    if nonfinite.any():
        found.append(f"NaN or infinite logits for {int(nonfinite.sum())} of {len(nonfinite)} images")
    texts = [f"{' and '.join(found)}: no success there does not mean robust"] if found else []
    if look_like_probabilities(clean):
        texts.append("the model seems to return probabilities: attacks are weaker there, return its logits")
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("xaicore.attacks."):
        level, frame = level + 1, frame.f_back
    for text in texts:
        warnings.warn(text, AttackWarning, stacklevel=level)


def _wrong(clean: Tensor, goal: Goal) -> Tensor:
    return (clean.argmax(dim=1) != goal.labels) | ~clean.isfinite().all(dim=1)


def _in_groups(
    step: Step,
    victim: Victim,
    images: Tensor,
    goal: Goal,
    index: Tensor,
    extras: Mapping[str, Tensor] | None,
    opening: bool,
) -> tuple[Tensor, Attempt]:
    """Return the clean logits (N, K) and the attempt for all images, the wrong ones untouched."""
    whole = Attempt(images.clone(), torch.zeros_like(goal.labels), {})
    rows = []
    for group in torch.arange(len(images), device=images.device).split(max(1, GROUP // images[0].numel())):
        clean, gradient = _clean_pass(
            victim, images[group].to(victim.device), goal[group].to(victim.device), opening
        )
        rows.append(clean.to(images.device))
        right = (~_wrong(rows[-1], goal[group])).nonzero().squeeze(1)
        which = group[right]
        part: list[Any] = [each[which].to(victim.device) for each in (images, goal, index)]
        if extras is not None:
            part.append({name: t[which.to(t.device)].to(victim.device) for name, t in extras.items()})
        if gradient is not None:
            part.append(Opening(*(each[right.to(victim.device)] for each in (clean, gradient))))
        attempt = step(victim, *part)
        whole.adversarial[which] = attempt.adversarial.clamp(0, 1).to(images.device)
        whole.queries[which] = attempt.queries.to(images.device)
        for name, tensor in attempt.info.items():
            if name not in whole.info:
                empty = torch.nan if tensor.is_floating_point() else tensor.dtype != torch.bool and -1
                like = tensor.new_full((len(images), *tensor.shape[1:]), empty, device=images.device)
                whole.info[name] = like
            whole.info[name][which] = tensor.to(images.device)
    return torch.cat(rows), whole


def _clean_pass(victim: Victim, images: Tensor, goal: Goal, opening: bool) -> tuple[Tensor, Tensor | None]:
    """Return the logits of clean images and, with ``opening``, the gradient of the goal's score there."""

    def score(logits: Tensor, part: slice) -> Tensor:
        goal.check_classes(logits.shape[1])
        return goal[part].score(logits)

    if opening:
        return victim.differentiate(images, score)
    logits = victim.logits(images)
    goal.check_classes(logits.shape[1])
    return logits, None


def success_after_uint8(
    model: nn.Module,
    adversarial: Tensor,
    labels: Tensor,
    *,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Return which images still reach the goal once they are stored with 8 bits per channel, (N,) bool.

    Args:
        model, labels, target, batch_size: as in :mod:`xaicore.attacks`.
        adversarial: (N, C, H, W) float32 in [0, 1]; rounded here to multiples of 1/255.
    """
    images = checks.images(adversarial).detach().mul(255).round().div(255)
    goal = Goal.of(labels, target, images)
    with Victim.of(checks.model(model), images, batch_size) as victim:
        logits = victim.logits(images).to(images.device)
    goal.check_classes(logits.shape[1])
    return goal.reached(logits)
