"""Adversarial patches: a visible sticker that fools the model wherever it is put.

Brown et al. (2017), Sec. 2, train a patch p over images x, transformations t and locations l::

    maximise over p in [0, 1]:   E_(x, t, l) log P(goal | A(p, x, l, t)) ,

where A puts the patch on the image (:mod:`xaicore.attacks.patch_placement`) and P(goal) is the probability of
the target class or, untargeted, of any class but the true one. ``patch`` trains a patch for each image, or one
for all; ``train_patch`` and ``apply_patch`` are the two halves of the latter, so that a patch trained on some
images can be tested on others. Each step draws new placements and ascends the mean with Adam (Kingma & Ba
2015), after which the patch is clipped to [0, 1]. With s the log-odds of the goal::

    d log P(goal) = (1 - P(goal)) ds = sigmoid(-s) ds ,

so that placements that reach the goal already count less. Taken in this form the gradient does not vanish
where P(goal) underflows (:mod:`xaicore.attacks.goal`).
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, Step, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import Batch, Iteration, rows, rows_of, select
from xaicore.attacks.optimization import Adam
from xaicore.attacks.patch_placement import Placements, Shape, side_of
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks, randomness
from xaicore.core.errors import UserError

START = 0.5
"""Value of the patch before training: mid-grey."""

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
    training = _training(
        images, size, shape, scale, rotation, location, steps, learning_rate, samples, trials, seed
    )
    given: dict[str, Any] = {"target": target, "index": index, "batch_size": batch_size}
    if not checks.flag("universal", universal):
        return run(training, model, images, labels, **given)
    trained, extras = training.together(model, images, labels, target, batch_size)
    result = run(training.of(trained), model, images, labels, **given, extras=extras)
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
        model: (N, C, H, W) images in [0, 1] to (N, K) logits, K of at least 2.
        images: (N, C, H, W) float32 in [0, 1], on any device.
        labels: (N,) int64, the true classes.
        size, shape, learning_rate, scale, rotation, location, target, seed, batch_size: as in :func:`patch`.
        steps: steps taken, at least 1.
        samples: images per step, each at a placement of its own; drawn without repetition unless there are
            fewer images.

    Returns:
        The patch (C, s, s) float32 in [0, 1] on the device of ``images``.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: as :func:`patch`; in particular, the model gets no image right.

    References:
        Brown, Mané, Roy, Abadi & Gilmer (2017), Adversarial patch, Sec. 2.
    """
    training = _training(
        images, size, shape, scale, rotation, location, steps, learning_rate, samples, 1, seed
    )
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
        model: (N, C, H, W) images in [0, 1] to (N, K) logits, K of at least 2.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, the true classes.
        patch: (C, s, s) float32 in [0, 1].
        shape: the part of ``patch`` that shows: the "circle" in it, or the whole "square".
        scale, rotation, location, target, seed, index, batch_size: as in :func:`patch`.
        trials: placements per image, at least 1.

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
    trials, seed = checks.integer("trials", trials, least=1), checks.integer("seed", seed, least=0)
    step = Measurement(placements, trials, seed).of(patch.detach())
    return run(step, model, images, labels, target=target, index=index, batch_size=batch_size, extras={})


@dataclass(frozen=True)
class Measurement:
    """What patches do at placements that nothing before has seen.

    Attributes:
        placements: where patches are put.
        trials: placements per image; in training, also those to stop at.
        seed: source of all randomness.
    """

    placements: Placements
    trials: int
    seed: int

    def of(self, patch: Tensor) -> Step:
        """Return the step of the base that puts one ``patch`` (C, s, s) on all images.

        Its extras, if the patch was trained on these images, are the training's ``queries`` and ``zero_gradient``.
        """

        def step(
            victim: Victim, images: Tensor, goal: Goal, index: Tensor, extras: dict[str, Tensor]
        ) -> Attempt:
            patches = patch.to(victim.device).expand(len(images), -1, -1, -1)
            queries = extras.pop("queries", torch.zeros_like(goal.labels))
            return self.measured(victim, images, goal, index, patches, queries, extras)

        return step

    def measured(
        self,
        victim: Victim,
        images: Tensor,
        goal: Goal,
        index: Tensor,
        patches: Tensor,
        queries: Tensor,
        info: Mapping[str, Tensor],
    ) -> Attempt:
        """Return the images (n, C, H, W) with patches (n, C, s, s) at the first of their trials."""
        drawn = self.placements.draw(self.seed, index, torch.zeros_like(index), self.trials, purpose=_TRIALS)
        share = self.reached(victim, images, goal, patches, drawn).sum(dim=1).float() / self.trials
        placement = drawn.view(-1, self.trials, 4)[:, 0]
        footprint = self.placements.footprint(placement)
        own = {"patch": patches, "mask": footprint.mask, "placement": placement, "success_share": share}
        return Attempt(footprint.paint(images, patches), queries, {**own, **info})

    def reached(
        self, victim: Victim, images: Tensor, goal: Goal, patches: Tensor, placement: Tensor
    ) -> Tensor:
        """Return which of its trials (n * trials, 4), those of the first image first, reach the goal, (n, trials)."""
        owner = torch.arange(len(images), device=images.device).repeat_interleave(self.trials)

        def build(part: slice) -> Tensor:
            return self.placements.footprint(placement[part]).paint(images[owner[part]], patches[owner[part]])

        logits = victim.logits_of(len(owner), images.shape[1:], build)
        return goal[owner].reached(logits).view(len(images), self.trials)


class State(NamedTuple):
    """Of n images the patch (n, C, s, s), its optimiser and, each (n,), steps, passes, failures of the gradient, end."""

    patch: Tensor
    adam: Adam
    step: Tensor
    queries: Tensor
    zero_gradient: Tensor
    done: Tensor


@dataclass(frozen=True)
class Training(Measurement, Iteration[State]):
    """The training of patches; as an iteration, of one for each image.

    Attributes:
        steps: steps at most (of :meth:`together`: exactly).
        learning_rate: of Adam.
        samples: placements per step.
    """

    steps: int
    learning_rate: float
    samples: int

    def start(self, victim: Victim, batch: Batch) -> State:
        """Return grey patches and what Adam remembers."""
        none = torch.zeros_like(batch.number)
        patch = batch.images.new_full((*batch.images.shape[:2], *[self.placements.side] * 2), START)
        return State(patch, Adam.zero(patch), none, none, none.bool(), none.bool())

    def advance(self, victim: Victim, batch: Batch, state: State) -> State:
        """Move each patch by one step, unless it works already."""
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
        works = everywhere.clone()
        works[everywhere] = self._works(victim, rows_of(batch, everywhere), rows_of(state, everywhere))
        patch, adam = self._moved(state.patch, state.adam, gradient / self.samples, state.step)
        return State(
            select(works, state.patch, patch),
            select(works, state.adam, adam),
            state.step + ~works,
            state.queries + self.samples + self.trials * everywhere,
            state.zero_gradient | (~everywhere & (gradients == 0).flatten(1).all(dim=1)),
            works | (state.step + 1 >= self.steps),
        )

    def finish(self, victim: Victim, batch: Batch, state: State) -> Attempt:
        """Return the images with their patches, measured at new placements."""
        info = {"zero_gradient": state.zero_gradient}
        return self.measured(victim, batch.images, batch.goal, batch.number, state.patch, state.queries, info)

    def together(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        target: int | Tensor | None,
        batch_size: int | None,
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
                which = right[self.chosen(number, len(right)).to(images.device)]
                gradients, reached = self.ascent(
                    victim,
                    images[which].to(victim.device),
                    goal[which].to(victim.device),
                    patch.expand(self.samples, -1, -1, -1),
                    drawn,
                )
                queries += which.bincount(minlength=len(images))
                zero[which[(~reached & (gradients == 0).flatten(1).all(dim=1)).to(images.device)]] = True
                patch, adam = self._moved(patch, adam, gradients.mean(dim=0, keepdim=True), step)
        return patch[0], {"queries": queries, "zero_gradient": zero}

    def chosen(self, step: int, count: int) -> Tensor:
        """Return which of ``count`` images a step of :meth:`together` uses, (samples,) int64, all equally often."""
        order = torch.from_numpy(randomness.stream(self.seed, 0, step, _ORDER).permutation(count))
        return order.repeat(-(-self.samples // count))[: self.samples]

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

    def _works(self, victim: Victim, batch: Batch, state: State) -> Tensor:
        """Return which patches reach the goal at all of their trials, drawn anew, (n,) bool."""
        drawn = self.placements.draw(self.seed, batch.number, state.step, self.trials, purpose=_CHECK)
        return self.reached(victim, batch.images, batch.goal, state.patch, drawn).all(dim=1)

    def _moved(self, patch: Tensor, adam: Adam, gradient: Tensor, step: Tensor) -> tuple[Tensor, Adam]:
        """Return patches (n, C, s, s) and optimiser after step number ``step`` (n,), counted from 0."""
        update, adam = adam.update(gradient, step + 1, self.learning_rate)
        return (patch + update).clamp(0, 1), adam


def _training(
    images: Any,
    size: Any,
    shape: Any,
    scale: Any,
    rotation: Any,
    location: Any,
    steps: Any,
    learning_rate: Any,
    samples: Any,
    trials: Any,
    seed: Any,
) -> Training:
    """Return the training if all parameters are right."""
    height, width = checks.images(images).shape[2:]
    checks.one_of("shape", shape, get_args(Shape))
    side = side_of(checks.positive("size", size, most=1), shape, height, width)
    return Training(
        Placements.checked(shape, side, images.shape, scale, rotation, location),
        checks.integer("trials", trials, least=1),
        checks.integer("seed", seed, least=0),
        checks.integer("steps", steps, least=1),
        checks.positive("learning_rate", learning_rate),
        checks.integer("samples", samples, least=1),
    )
