"""Adversarial patches: a visible sticker that fools the model wherever it is put.

Brown et al. (2017), Sec. 2, train a patch p over images x, transformations t and locations l::

    maximise over p in [0, 1]:   E_(x, t, l) log P(goal | A(p, x, l, t)) ,

where A puts the patch on the image (:mod:`xaicore.attacks.patch_placement`) and P(goal) is the probability of
the target class or, untargeted, of any class but the true one. ``patch`` trains a patch for each image, or one
for all; ``train_patch`` and ``apply_patch`` are the two halves of the latter, so that a patch trained on some
images can be tested on others. Each step draws new placements and ascends the mean with Adam (Kingma & Ba
2015), after which the patch is clipped to [0, 1].
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.lanes import in_lanes
from xaicore.attacks.patch_placement import Placements, Shape, known_shape, side_of
from xaicore.attacks.patch_training import Training, measured
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks
from xaicore.core.errors import UserError


def patch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    size: float = 0.1,
    shape: Shape = "circle",
    universal: bool = False,
    steps: int = 100,
    learning_rate: float = 0.1,
    samples: int = 4,
    scale: tuple[float, float] = (0.8, 1.2),
    rotation: float = 22.5,
    location: tuple[float, float] | None = None,
    trials: int = 10,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Train a patch that reaches the goal at random places, sizes and angles, and put it on the images.

    Each image gets a patch of its own, trained on that image alone, until the patch works at all ``samples``
    placements of a step and then at all of ``trials`` new ones, or until the steps are spent. With
    ``universal`` one patch is trained on all images of the call that the model gets right, with all steps, as
    :func:`train_patch` does, and then put on the same images; here the images do influence each other. For an
    honest figure of a universal patch use :func:`apply_patch` on images it was not trained on.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits, K of at least 2.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, the true classes.
        size: share of the image's area that the patch takes at scale 1, in (0, 1]; its side or diameter s is
            rounded to whole pixels.
        shape: "circle" or "square".
        universal: one patch for all images.
        steps: steps at most, at least 1.
        learning_rate: of Adam; about the change of a value per step.
        samples: placements per step; with ``universal`` each on another image.
        scale: smallest and largest scale of the side, drawn uniformly.
        rotation: largest angle to either side, in degrees (0 to 180), drawn uniformly.
        location: None for a random place, or (row, column) as shares in [0, 1] of the free room: (0, 0) is the
            upper left corner, (0.5, 0.5) the middle.
        trials: placements drawn to stop at and, anew, to measure with.
        target: class to reach, or (N,) int64 of them; None to leave the true class.
        seed: with ``index``, the source of all randomness.
        index: (N,) int64, number of each image in its set; None counts from 0.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Returns:
        The result. ``adversarial`` has the patch at the first of ``trials`` placements that neither training
        nor stopping has seen, so that ``success`` is an unbiased draw. ``queries`` counts training and
        stopping, with ``universal`` the gradients taken at this image; those last ``trials`` are a measurement
        and do not count. In ``info``: ``patch`` (N, C, s, s) float32, 0.5 where it never shows (outside a
        circle); ``mask`` (N, H, W) bool, the pixels under the patch: all others are those of the image, bit
        for bit; ``placement`` (N, 4) float32, row and column of the centre in pixels, scale, and angle in
        degrees counter-clockwise; ``success_share`` (N,) float32, the share of the last ``trials`` placements
        that reach the goal; ``zero_gradient`` (N,) bool, at some step no placement had a usable gradient
        although the goal was not reached at all of them.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shape, type, range, NaN, labels, target or a parameter does not fit, the patch at its
            largest does not fit into the image, or a universal patch has no image to be trained on.

    References:
        Brown, Mané, Roy, Abadi & Gilmer (2017), Adversarial patch.
    """
    started = time.perf_counter()
    placements = _placements(images, size, shape, scale, rotation, location)
    trials = checks.integer("trials", trials, least=1)
    seed = checks.integer("seed", seed, least=0)
    training = Training(
        placements,
        checks.integer("steps", steps, least=1),
        checks.positive("learning_rate", learning_rate),
        checks.integer("samples", samples, least=1),
        trials,
        seed,
    )
    if checks.flag("universal", universal):
        trained, extras = _together(training, model, images, labels, target, batch_size)
        result = _apply(
            trained, placements, trials, model, images, labels, target, seed, index, batch_size, extras
        )
        return dataclasses.replace(result, seconds=time.perf_counter() - started)

    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        return in_lanes(training, victim, images, goal, index)

    return run(step, model, images, labels, target=target, index=index, batch_size=batch_size)


def train_patch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    size: float = 0.1,
    shape: Shape = "circle",
    steps: int = 100,
    learning_rate: float = 0.1,
    samples: int = 4,
    scale: tuple[float, float] = (0.8, 1.2),
    rotation: float = 22.5,
    location: tuple[float, float] | None = None,
    target: int | Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """Train one patch on all ``images`` that the model gets right.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits, K of at least 2.
        images: (N, C, H, W) float32 in [0, 1], on any device.
        labels: (N,) int64, the true classes.
        size: as in :func:`patch`, like all parameters that are not explained here.
        shape: "circle" or "square".
        steps: steps taken.
        learning_rate: of Adam.
        samples: images per step, each at a placement of its own; drawn without repetition unless there are
            fewer images.
        scale: smallest and largest scale.
        rotation: largest angle in degrees.
        location: None for a random place, or shares of the free rows and columns.
        target: class to reach, or (N,) int64 of them; None to leave the true class.
        seed: source of all randomness.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Returns:
        The patch (C, s, s) float32 in [0, 1] on the device of ``images``.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: as :func:`patch`; in particular, the model gets no image right.

    References:
        Brown, Mané, Roy, Abadi & Gilmer (2017), Adversarial patch, Sec. 2.
    """
    training = Training(
        _placements(images, size, shape, scale, rotation, location),
        checks.integer("steps", steps, least=1),
        checks.positive("learning_rate", learning_rate),
        checks.integer("samples", samples, least=1),
        1,
        checks.integer("seed", seed, least=0),
    )
    return _together(training, model, images, labels, target, batch_size)[0].to(images.device)


def apply_patch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    patch: Tensor,
    *,
    shape: Shape = "circle",
    scale: tuple[float, float] = (0.8, 1.2),
    rotation: float = 22.5,
    location: tuple[float, float] | None = None,
    trials: int = 10,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Put a given patch on each image at random placements and measure what it does.

    This is the test of a universal patch, on images it was not trained on; a grey patch or one of random
    colours gives the control.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits, K of at least 2.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, the true classes.
        patch: (C, s, s) float32 in [0, 1].
        shape: the part of ``patch`` that shows: the "circle" in it, or the whole "square".
        scale: as in :func:`patch`, like all further parameters.
        rotation: largest angle in degrees.
        location: None for a random place, or shares of the free rows and columns.
        trials: placements per image.
        target: class to reach, or (N,) int64 of them; None to leave the true class.
        seed: with ``index``, the source of all randomness.
        index: (N,) int64, number of each image in its set; None counts from 0.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Returns:
        The result, with the ``info`` of :func:`patch` but ``zero_gradient``; ``queries`` are 0.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: as :func:`patch`, or the patch does not fit the images.
    """
    channels = checks.images(images).shape[1]
    if not isinstance(patch, Tensor):
        raise TypeError(f"patch must be a torch.Tensor, not {type(patch).__name__}")
    if patch.ndim != 3 or patch.shape[0] != channels or patch.shape[1] != patch.shape[2]:
        raise UserError(f"patch must have shape ({channels}, s, s), not {tuple(patch.shape)}")
    if patch.dtype != torch.float32 or not ((patch >= 0) & (patch <= 1)).all():
        raise UserError("patch must be float32 in [0, 1] without NaN")
    placements = Placements.checked(shape, patch.shape[-1], images.shape, scale, rotation, location)
    trials = checks.integer("trials", trials, least=1)
    seed = checks.integer("seed", seed, least=0)
    return _apply(patch.detach(), placements, trials, model, images, labels, target, seed, index, batch_size)


def _placements(images: Any, size: Any, shape: Any, scale: Any, rotation: Any, location: Any) -> Placements:
    height, width = checks.images(images).shape[2:]
    side = side_of(checks.positive("size", size, most=1), known_shape(shape), height, width)
    return Placements.checked(shape, side, images.shape, scale, rotation, location)


def _apply(
    patch: Tensor,
    placements: Placements,
    trials: int,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    target: int | Tensor | None,
    seed: int,
    index: Tensor | None,
    batch_size: int | None,
    training: Mapping[str, Tensor] | None = None,
) -> AttackResult:
    """Measure ``patch``; ``training`` is what its training leaves to report, if it belongs to the attack."""

    def step(
        victim: Victim, images: Tensor, goal: Goal, index: Tensor, training: dict[str, Tensor] | None = None
    ) -> Attempt:
        patches = patch.to(victim.device).expand(len(images), -1, -1, -1)
        adversarial, info = measured(victim, images, goal, index, patches, placements, trials, seed)
        if training is None:
            return Attempt(adversarial, torch.zeros_like(goal.labels), info)
        return Attempt(adversarial, training["queries"], {**info, "zero_gradient": training["zero_gradient"]})

    return run(
        step, model, images, labels, target=target, index=index, batch_size=batch_size, extras=training
    )


def _together(
    training: Training,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    target: int | Tensor | None,
    batch_size: int | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the patch, and for all N images the ``queries`` and ``zero_gradient`` of its training."""
    goal, images = Goal.of(labels, target, images), images.detach()
    with Victim.of(checks.model(model), images, batch_size) as victim:
        clean = victim.logits(images).to(images.device)
        goal.check_classes(clean.shape[1])
        right = (clean.argmax(dim=1) == goal.labels) & clean.isfinite().all(dim=1)
        if not right.any():
            raise UserError("images must hold at least one that the model gets right, to train a patch on")
        trained, used, dead = training.together(victim, images[right], goal[right])
    queries, zero = torch.zeros_like(goal.labels), torch.zeros_like(right)
    queries[right], zero[right] = used, dead
    return trained, {"queries": queries, "zero_gradient": zero}
