"""How an adversarial patch is trained: for one image each, or for many images together.

A step draws placements, takes the gradient of the mean of log P(goal) over them and moves the patch by Adam
(Kingma & Ba 2015, Alg. 1), after which the patch is clipped to [0, 1]. With s the log-odds of the goal::

    d log P(goal) = (1 - P(goal)) ds = sigmoid(-s) ds ,

so that placements that reach the goal already count less. Taken in this form the gradient does not vanish
where P(goal) underflows (:mod:`xaicore.attacks.goal`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from xaicore.attacks.adam import adam
from xaicore.attacks.base import Attempt
from xaicore.attacks.goal import Goal
from xaicore.attacks.lanes import State, goal, rows
from xaicore.attacks.patch_placement import Placements
from xaicore.attacks.victim import Victim
from xaicore.core import randomness

START = 0.5
"""Value of the patch before training: mid-grey."""

_TRAINING, _CHECK, _TRIALS, _ORDER = range(4)


def reached_at(
    victim: Victim,
    images: Tensor,
    goal: Goal,
    patches: Tensor,
    placements: Placements,
    placement: Tensor,
    count: int,
) -> Tensor:
    """Return which placements of each image reach the goal, (n, count) bool.

    Args:
        victim: the model.
        images: (n, C, H, W).
        goal: of the n images.
        patches: (n, C, s, s).
        placements: the kind of patch.
        placement: (n * count, 4), those of the first image first.
        count: placements per image.
    """
    owner = torch.arange(len(images), device=images.device).repeat_interleave(count)

    def build(part: slice) -> Tensor:
        return placements.footprint(placement[part]).paint(images[owner[part]], patches[owner[part]])

    logits = victim.logits_of(len(owner), images.shape[1:], build)
    return goal[owner].reached(logits).view(len(images), count)


def measured(
    victim: Victim,
    images: Tensor,
    goal: Goal,
    index: Tensor,
    patches: Tensor,
    placements: Placements,
    trials: int,
    seed: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Put patches (n, C, s, s) on images at ``trials`` placements that nothing before has seen.

    Returns:
        The images (n, C, H, W) with the patch at the first of them, and ``info``.
    """
    placement = placements.draw(seed, index, torch.zeros_like(index), trials, purpose=_TRIALS)
    reached = reached_at(victim, images, goal, patches, placements, placement, trials)
    placement = placement.view(-1, trials, 4)[:, 0]
    footprint = placements.footprint(placement)
    share = reached.sum(dim=1).float() / trials
    info = {"patch": patches, "mask": footprint.mask, "placement": placement, "success_share": share}
    return footprint.paint(images, patches), info


@dataclass(frozen=True)
class Training:
    """The training of patches; as an :class:`~xaicore.attacks.lanes.Iteration`, of one patch for each image.

    Attributes:
        placements: where patches are put.
        steps: steps at most (of :meth:`together`: exactly).
        learning_rate: of Adam.
        samples: placements per step.
        trials: placements to stop at and, anew, to measure with.
        seed: source of all randomness.
    """

    placements: Placements
    steps: int
    learning_rate: float
    samples: int
    trials: int
    seed: int

    def start(self, victim: Victim, state: State) -> State:
        """Return grey patches and what Adam remembers."""
        side = self.placements.side
        patch = state["images"].new_full((*state["images"].shape[:2], side, side), START)
        return {
            "patch": patch,
            "m": torch.zeros_like(patch),
            "v": torch.zeros_like(patch),
            "step": torch.zeros_like(state["index"]),
            "queries": torch.zeros_like(state["index"]),
            "zero_gradient": torch.zeros_like(state["done"]),
        }

    def advance(self, victim: Victim, state: State) -> State:
        """Move each patch by one step, unless it works already."""
        index, step, patch = state["index"], state["step"], state["patch"]
        drawn = self.placements.draw(self.seed, index, step, self.samples, purpose=_TRAINING)
        owner = torch.arange(len(index), device=index.device).repeat_interleave(self.samples)
        gradients, reached = self.ascent(
            victim, state["images"][owner], goal(state)[owner], patch[owner], drawn
        )
        gradients = gradients.view(-1, self.samples, *patch.shape[1:])
        everywhere = reached.view(-1, self.samples).all(dim=1)
        gradient = torch.zeros_like(patch)
        for sample in range(self.samples):
            gradient = gradient + gradients[:, sample]
        dead = ~everywhere & (gradients == 0).flatten(1).all(dim=1)
        works = everywhere.clone()
        works[everywhere] = self._works(victim, state, everywhere.nonzero().squeeze(1))
        moved = self._moved(state, gradient / self.samples, step)
        return {
            **{name: tensor.where(rows(~works, tensor), state[name]) for name, tensor in moved.items()},
            "step": step + (~works).long(),
            "queries": state["queries"] + self.samples + self.trials * everywhere.long(),
            "zero_gradient": state["zero_gradient"] | dead,
            "done": works | (step + 1 >= self.steps),
        }

    def finish(self, victim: Victim, state: State) -> Attempt:
        """Return the images with their patches, measured at new placements."""
        adversarial, info = measured(
            victim,
            state["images"],
            goal(state),
            state["index"],
            state["patch"],
            self.placements,
            self.trials,
            self.seed,
        )
        return Attempt(adversarial, state["queries"], {**info, "zero_gradient": state["zero_gradient"]})

    def together(self, victim: Victim, images: Tensor, goal: Goal) -> tuple[Tensor, Tensor, Tensor]:
        """Train one patch on ``images`` (n, C, H, W), n at least 1, on any device.

        Returns:
            The patch (C, s, s) on the victim's device; how often each image was used, (n,) int64; and which
            images gave no usable gradient at some step although the goal was not reached, (n,) bool.
        """
        side, channels = self.placements.side, images.shape[1]
        state = {"patch": torch.full((1, channels, side, side), START, device=victim.device)}
        state |= {name: torch.zeros_like(state["patch"]) for name in ("m", "v")}
        used = torch.zeros(len(images), dtype=torch.int64)
        dead = torch.zeros(len(images), dtype=torch.bool)
        for number in range(self.steps):
            chosen = self.chosen(number, len(images))
            step = torch.tensor([number], device=victim.device)
            drawn = self.placements.draw(
                self.seed, torch.zeros_like(step), step, self.samples, purpose=_TRAINING
            )
            which = chosen.to(images.device)
            gradients, reached = self.ascent(
                victim,
                images[which].to(victim.device),
                goal[which].to(victim.device),
                state["patch"].expand(self.samples, -1, -1, -1),
                drawn,
            )
            used += chosen.bincount(minlength=len(images))
            dead[chosen[(~reached & (gradients == 0).flatten(1).all(dim=1)).cpu()]] = True
            state = self._moved(state, gradients.mean(dim=0, keepdim=True), step)
        return state["patch"][0], used.to(images.device), dead.to(images.device)

    def chosen(self, step: int, count: int) -> Tensor:
        """Return which of ``count`` images a step of :meth:`together` uses, (samples,) int64, all equally often."""
        order = torch.from_numpy(randomness.stream(self.seed, 0, step, _ORDER).permutation(count))
        return order.repeat(-(-self.samples // count))[: self.samples]

    def ascent(
        self, victim: Victim, images: Tensor, goal: Goal, patches: Tensor, placement: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient of log P(goal) at m patches, (m, C, s, s), and where the goal is reached, (m,)."""
        rows_of_a_pass = victim.batch_size
        footprints = [self.placements.footprint(part) for part in placement.split(rows_of_a_pass)]
        parts = zip(footprints, images.split(rows_of_a_pass), patches.split(rows_of_a_pass), strict=True)
        painted = torch.cat([footprint.paint(some, theirs) for footprint, some, theirs in parts])
        logits, gradients = victim.differentiate(painted, lambda logits, part: goal[part].score(logits))
        pairs = zip(footprints, gradients.nan_to_num(0, 0, 0).split(rows_of_a_pass), strict=True)
        pulled = torch.cat([footprint.pull_back(gradient) for footprint, gradient in pairs])
        # In float64 so that the weight does not depend on how the processor splits a row of numbers.
        weight = goal.score(logits.double()).neg().sigmoid().nan_to_num(0).float()
        return rows(weight, pulled) * pulled, goal.reached(logits)

    def _works(self, victim: Victim, state: State, which: Tensor) -> Tensor:
        """Return which of the chosen images' patches reach the goal at all of ``trials`` new placements."""
        index, step = state["index"][which], state["step"][which]
        placement = self.placements.draw(self.seed, index, step, self.trials, purpose=_CHECK)
        images, patches = state["images"][which], state["patch"][which]
        reached = reached_at(
            victim, images, goal(state)[which], patches, self.placements, placement, self.trials
        )
        return reached.all(dim=1)

    def _moved(self, state: State, gradient: Tensor, step: Tensor) -> State:
        """Return patch, m and v (n, C, s, s) after step number ``step`` (n,), counted from 0."""
        update, m, v = adam(state["m"], state["v"], gradient, step + 1, self.learning_rate)
        return {"patch": (state["patch"] + update).clamp(0, 1), "m": m, "v": v}
