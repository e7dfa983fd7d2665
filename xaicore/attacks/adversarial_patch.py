"""Adversarial patches: a visible sticker that fools the model wherever it is put.

Brown et al. (2017), Sec. 2, train a patch p over images x, transformations t and locations l::

    maximise over p in [0, 1]:   E_(x, t, l) log P(goal | A(p, x, l, t)) ,

where A puts the patch on the image (:mod:`xaicore.attacks.patch_placement`) and P(goal) is the probability of
the target class or, untargeted, of any class but the true one. Each step draws new placements and ascends the mean
with Adam (Kingma & Ba 2015), after which the patch is clipped to [0, 1]. With s the log-odds of the goal::

    d log P(goal) = (1 - P(goal)) ds = sigmoid(-s) ds ,

so that placements that reach the goal already count less. Taken in this form the gradient does not vanish
where P(goal) underflows (:mod:`xaicore.attacks.goal`).
"""

import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import Batch, Iteration, rows, rows_of, select
from xaicore.attacks.optimization import Adam
from xaicore.attacks.patch_placement import Placements, Shape
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks, randomness
from xaicore.core.errors import UserError

START = 0.5  # mid-grey, the patch before training
_TRAINING, _CHECK, _TRIALS, _ORDER = range(4)
"""Purposes of the random streams."""


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
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`.
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
        ValueError: also if the patch at its largest does not fit into the image, or a universal patch has no image to
            be trained on.

    References:
        Brown, Mané, Roy, Abadi & Gilmer (2017), Adversarial patch.
    """
    started = time.perf_counter()
    placements = Placements.of_share(size, shape, checks.images(images).shape, scale, rotation, location)
    training = Training(placements, trials, seed, steps, learning_rate, samples)
    given: dict[str, Any] = {"target": target, "index": index, "batch_size": batch_size}
    if not checks.flag("universal", universal):
        return run(training, model, images, labels, **given)
    trained, extras = training.together(model, images, labels, target, batch_size)
    result = run(partial(training.put_one, trained), model, images, labels, **given, extras=extras)
    return dataclasses.replace(result, seconds=time.perf_counter() - started)


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
        model, images, labels, target, seed, batch_size: as in :mod:`xaicore.attacks`.
        size, shape, learning_rate, scale, rotation, location: as in :func:`patch`.
        steps: steps taken, at least 1.
        samples: images per step, each at a placement of its own; drawn without repetition unless there are
            fewer images.

    Returns:
        The patch (C, s, s) float32 in [0, 1] on the device of ``images``.

    Raises:
        ValueError: as :func:`patch`; in particular, the model gets no image right.
    """
    placements = Placements.of_share(size, shape, checks.images(images).shape, scale, rotation, location)
    training = Training(placements, 1, seed, steps, learning_rate, samples)
    return training.together(model, images, labels, target, batch_size)[0].to(images.device)


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
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`.
        patch: (C, s, s) float32 in [0, 1].
        shape: the part of ``patch`` that shows: the "circle" in it, or the whole "square".
        scale, rotation, location: as in :func:`patch`.
        trials: placements per image, at least 1.

    Returns:
        The result, with the ``info`` of :func:`patch` but ``zero_gradient``; ``queries`` are 0.

    Raises:
        ValueError: as :func:`patch`, or the patch does not fit the images.
    """
    channels = checks.images(images).shape[1]
    if (
        checks.tensor("patch", patch).ndim != 3
        or patch.shape[0] != channels
        or patch.shape[1] != patch.shape[2]
    ):
        raise UserError(f"patch must have shape ({channels}, s, s), not {tuple(patch.shape)}")
    if patch.dtype != torch.float32 or not ((patch >= 0) & (patch <= 1)).all():
        raise UserError("patch must be float32 in [0, 1] without NaN")
    placements = Placements.checked(shape, patch.shape[-1], images.shape, scale, rotation, location)
    step = partial(Training(placements, trials, seed).put_one, patch.detach())
    return run(step, model, images, labels, target=target, index=index, batch_size=batch_size, extras={})


class State(NamedTuple):
    """What is known of n images."""

    patch: Tensor  # (n, C, s, s)
    adam: Adam
    step: Tensor  # (n,) int64
    queries: Tensor  # (n,) int64
    zero_gradient: Tensor  # (n,) bool
    done: Tensor  # (n,) bool


@dataclass(frozen=True)
class Training(Iteration[State]):
    """The training of patches, as an iteration of one for each image, and what they do at placements never seen."""

    placements: Placements
    trials: int  # placements per image to measure at and, in training, to stop at
    seed: int
    steps: int = 1  # at most (of :meth:`together`: exactly)
    learning_rate: float = 0.1
    samples: int = 1  # placements per step

    def __post_init__(self) -> None:
        checks.integer("trials", self.trials, least=1)
        checks.integer("seed", self.seed, least=0)
        checks.integer("steps", self.steps, least=1)
        checks.positive("learning_rate", self.learning_rate)
        checks.integer("samples", self.samples, least=1)

    def start(self, victim: Victim, batch: Batch) -> State:
        """Return grey patches and what Adam remembers."""
        none = torch.zeros_like(batch.number)
        patch = batch.images.new_full((*batch.images.shape[:2], *[self.placements.side] * 2), START)
        return State(patch, Adam.zero(patch), none, none, none.bool(), none.bool())

    def advance(self, victim: Victim, batch: Batch, state: State) -> State:
        """Move each patch by one step, unless it reaches the goal at all its samples and then at all trials."""
        drawn = self.placements.draw(self.seed, batch.number, state.step, self.samples, purpose=_TRAINING)
        owner = torch.arange(len(batch.number), device=batch.number.device).repeat_interleave(self.samples)
        gradients, reached = self.ascent(
            victim, batch.images[owner], batch.goal[owner], state.patch[owner], drawn
        )
        gradients = gradients.view(-1, self.samples, *state.patch.shape[1:])
        everywhere = reached.view(-1, self.samples).all(dim=1)
        gradient = torch.zeros_like(state.patch)
        for sample in range(self.samples):
            gradient = gradient + gradients[:, sample]
        some, their = rows_of(batch, everywhere), rows_of(state, everywhere)
        check = self.placements.draw(self.seed, some.number, their.step, self.trials, purpose=_CHECK)
        works = everywhere.clone()
        works[everywhere] = self._reached(victim, some, their.patch, check).all(dim=1)
        update, adam = state.adam.update(gradient / self.samples, state.step + 1, self.learning_rate)
        return State(
            select(works, state.patch, (state.patch + update).clamp(0, 1)),
            select(works, state.adam, adam),
            state.step + ~works,
            state.queries + self.samples + self.trials * everywhere,
            state.zero_gradient | (~everywhere & (gradients == 0).flatten(1).all(dim=1)),
            works | (state.step + 1 >= self.steps),
        )

    def finish(self, victim: Victim, batch: Batch, state: State) -> Attempt:
        """Return the images with their patches, measured at new placements."""
        return self._measured(
            victim, batch, state.patch, state.queries, {"zero_gradient": state.zero_gradient}
        )

    def put_one(
        self, patch: Tensor, victim: Victim, images: Tensor, goal: Goal, index: Tensor, extras: Any
    ) -> Attempt:
        """Put one ``patch`` (C, s, s) on all images; a step of the base.

        Its extras, if the patch was trained on these images, are the training's ``queries`` and ``zero_gradient``.
        """
        patches = patch.to(victim.device).expand(len(images), -1, -1, -1)
        queries = extras.pop("queries", torch.zeros_like(goal.labels))
        batch = Batch(images, goal.labels, goal.target, index, index)
        return self._measured(victim, batch, patches, queries, extras)

    def together(
        self, model: nn.Module, images: Tensor, labels: Tensor, target: Any, batch_size: int | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Train one patch on those of ``images`` (N, C, H, W) that the model gets right.

        Returns:
            The patch (C, s, s) on the model's device; for all N images ``queries``, how often each was used,
            and ``zero_gradient``, where a step had no usable gradient although the goal was not reached.
        """
        goal, images = Goal.of(labels, target, images), images.detach()
        with Victim.of(checks.model(model), images, batch_size) as victim:
            queries, zero = torch.zeros_like(goal.labels), torch.zeros_like(goal.labels, dtype=torch.bool)
            clean = victim.logits(images).to(images.device)
            goal.check_classes(clean.shape[1])
            right = (clean.argmax(dim=1) == goal.labels) & clean.isfinite().all(dim=1)
            right = right.nonzero().squeeze(1)
            if not len(right):
                raise UserError(
                    "images must hold at least one that the model gets right, to train a patch on"
                )
            shape = (1, images.shape[1], *[self.placements.side] * 2)
            patch = torch.full(shape, START, device=victim.device)
            adam = Adam.zero(patch)
            for number in range(self.steps):
                step = torch.tensor([number], device=victim.device)
                drawn = self.placements.draw(self.seed, 0 * step, step, self.samples, purpose=_TRAINING)
                # All images are used equally often.
                order = randomness.stream(self.seed, 0, number, _ORDER).permutation(len(right))
                chosen = torch.from_numpy(order).repeat(-(-self.samples // len(right)))[: self.samples]
                which = right[chosen.to(images.device)]
                some, wanted = images[which].to(victim.device), goal[which].to(victim.device)
                patches = patch.expand(self.samples, -1, -1, -1)
                gradients, reached = self.ascent(victim, some, wanted, patches, drawn)
                queries += which.bincount(minlength=len(images))
                zero[which[(~reached & (gradients == 0).flatten(1).all(dim=1)).to(images.device)]] = True
                mean = gradients.mean(dim=0, keepdim=True)
                update, adam = adam.update(mean, step + 1, self.learning_rate)
                patch = (patch + update).clamp(0, 1)
        return patch[0], {"queries": queries, "zero_gradient": zero}

    def ascent(
        self, victim: Victim, images: Tensor, goal: Goal, patches: Tensor, placement: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient of log P(goal) at m patches, (m, C, s, s), and where the goal is reached, (m,)."""
        size = victim.batch_size
        footprints = [self.placements.footprint(part) for part in placement.split(size)]
        parts = zip(footprints, images.split(size), patches.split(size), strict=True)
        painted = torch.cat([footprint.paint(some, theirs) for footprint, some, theirs in parts])
        logits, gradients = victim.differentiate(painted, lambda logits, part: goal[part].score(logits))
        pairs = zip(footprints, gradients.nan_to_num(0, 0, 0).split(size), strict=True)
        pulled = torch.cat([footprint.pull_back(gradient) for footprint, gradient in pairs])
        # In float64 so that the weight does not depend on how the processor splits a row of numbers.
        weight = goal.score(logits.double()).neg().sigmoid().nan_to_num(0).float()
        return rows(weight, pulled) * pulled, goal.reached(logits)

    def _measured(
        self, victim: Victim, batch: Batch, patches: Tensor, queries: Tensor, info: dict[str, Tensor]
    ) -> Attempt:
        """Return the images (n, C, H, W) with patches (n, C, s, s) at the first of their trials."""
        index = batch.number
        drawn = self.placements.draw(self.seed, index, torch.zeros_like(index), self.trials, purpose=_TRIALS)
        share = self._reached(victim, batch, patches, drawn).sum(dim=1).float() / self.trials
        placement = drawn.view(-1, self.trials, 4)[:, 0]
        footprint = self.placements.footprint(placement)
        own = {"patch": patches, "mask": footprint.mask, "placement": placement, "success_share": share}
        return Attempt(footprint.paint(batch.images, patches), queries, own | info)

    def _reached(self, victim: Victim, batch: Batch, patches: Tensor, placement: Tensor) -> Tensor:
        """Return which of its trials (n * trials, 4), those of the first image first, reach the goal, (n, trials)."""
        images = batch.images
        owner = torch.arange(len(images), device=images.device).repeat_interleave(self.trials)

        def build(part: slice) -> Tensor:
            return self.placements.footprint(placement[part]).paint(images[owner[part]], patches[owner[part]])

        logits = victim.logits_of(len(owner), images.shape[1:], build)
        return batch.goal[owner].reached(logits).view(-1, self.trials)
