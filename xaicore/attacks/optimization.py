"""What the optimisers share: Adam, the constant c of Carlini & Wagner that grows, and the best iterate so far."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import rows, select
from xaicore.attacks.victim import Victim
from xaicore.core import checks
from xaicore.core.errors import UserError

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's decay rates and the number that keeps its quotient finite, the values of the paper."""

LEAST_FACTOR = 1.01
"""What c grows by at least, so that it reaches its end."""

PROGRESS = 0.01
"""Share by which the objective has to fall within ``patience`` steps, or c is raised."""


class Adam(NamedTuple):
    """Adam for many images at once, each at its own step: Kingma & Ba (2015), Algorithm 1."""

    m: Tensor  # (n, ...) running mean of the gradients, zero before the first step
    v: Tensor  # (n, ...) of their squares

    @classmethod
    def zero(cls, like: Tensor) -> Self:
        """Return the state before the first step for variables (n, ...)."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    def update(self, gradient: Tensor, step: Tensor, rate: float | Tensor) -> tuple[Tensor, "Adam"]:
        """Return what is to be subtracted from the variables, and the new state.

        Args:
            gradient: (n, ...), finite.
            step: (n,) number of this step for each row, counted from 1.
            rate: learning rate, one for all rows or (n,).
        """
        power = step.to(gradient.dtype)
        m = BETA_1 * self.m + (1 - BETA_1) * gradient
        v = BETA_2 * self.v + (1 - BETA_2) * gradient.square()
        # 1 - beta^step, without the cancellation that costs float32 four digits at step 1.
        length = rate / -torch.expm1(power * math.log(BETA_1))
        spread = -torch.expm1(power * math.log(BETA_2))
        return rows(length, m) * m / ((v / rows(spread, v)).sqrt() + EPSILON), Adam(m, v)


class Trial(NamedTuple):
    """What happens at one c, each (n,)."""

    constant: Tensor
    lowest: Tensor  # objective
    tried: Tensor  # steps made
    stuck: Tensor  # steps since the objective last fell


@dataclass(frozen=True)
class Schedule:
    """The c that Carlini-Wagner L0 and L-infinity raise until the goal is reached (2017, Sec. VI-B and VI-C).

    Raises:
        UserError: a number is out of range, the largest is below the first, or c would hardly grow.
    """

    first: float
    largest: float
    factor: float  # by which c grows
    steps: int  # at one c, at most
    patience: int  # steps without progress after which c grows

    def __post_init__(self) -> None:
        checks.positive("initial_const", self.first)
        checks.positive("largest_const", self.largest)
        checks.positive("const_factor", self.factor)
        checks.integer("steps", self.steps, least=1)
        checks.integer("patience", self.patience, least=1)
        if self.largest < self.first:
            raise UserError(
                f"largest_const must be at least initial_const, {self.first:g}, not {self.largest!r}"
            )
        if self.factor < LEAST_FACTOR:
            raise UserError(f"const_factor must be a number of at least {LEAST_FACTOR}, not {self.factor!r}")

    def begin(self, labels: Tensor) -> Trial:
        """Return the first trial of images with ``labels`` (n,)."""
        zero = torch.zeros(len(labels), device=labels.device)
        none = torch.zeros_like(labels)
        return Trial(zero + self.first, zero + torch.inf, none, none)

    def judge(self, trial: Trial, loss: Tensor, good: Tensor) -> tuple[Trial, Tensor, Tensor]:
        """Return the trial after a step, where it stalled, and where it failed as c cannot grow any further.

        Args:
            trial: before the step.
            loss: (n,), the objective.
            good: (n,) bool, where the step reached what the trial is for.
        """
        progress = loss < (1 - PROGRESS) * trial.lowest
        stuck = torch.where(progress, 0, trial.stuck + 1)
        tried = trial.tried + 1
        stalled = ~good & ((stuck >= self.patience) | (tried >= self.steps))
        larger = trial.constant * self.factor
        failed = stalled & (larger > self.largest)
        fresh = self.begin(tried)._replace(constant=larger.where(stalled & ~failed, trial.constant))
        going_on = Trial(trial.constant, loss.where(progress, trial.lowest), tried, stuck)
        return select(good | stalled, fresh, going_on), stalled, failed


class Best(NamedTuple):
    """The iterate to hand back: the smallest that attains the goal or, before any does, that of largest margin."""

    images: Tensor  # (n, C, H, W)
    size: Tensor  # (n,) of the perturbation, inf until the goal is attained
    margin: Tensor  # (n,), in logits

    @property
    def found(self) -> Tensor:
        """Where an iterate attained the goal, (n,) bool."""
        return ~self.size.isinf()

    def updated(
        self, images: Tensor, size: Tensor, margin: Tensor, attained: Tensor
    ) -> tuple["Best", Tensor]:
        """Return the best after the iterates ``images``, and where it is one of them."""
        better = torch.where(attained, size < self.size, ~self.found & (margin > self.margin))
        return select(better, Best(images, size.where(attained, torch.inf), margin), self), better


def look(victim: Victim, images: Tensor, goal: Goal, confidence: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of -margin (zero where not finite), the margin, and where the goal is attained."""
    logits, gradient = victim.differentiate(images, lambda rows, part: -goal[part].margin(rows))
    margin = goal.margin(logits).nan_to_num(-torch.inf, torch.inf, -torch.inf)
    return gradient.nan_to_num(0, 0, 0), margin, goal.attained(logits, confidence)
