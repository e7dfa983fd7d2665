"""APGD: gradient ascent within a ball that chooses its own step sizes and goes back to the best point found.

Croce & Hein (2020), Sec. 3 and Alg. 1. With f the objective, P the projection on the ball and the box, s(g) the sign
of the gradient or its L2 direction, alpha = 0.75 (1 in the first step) and the step size eta, 2 eps at first::

    z_{t+1} = P( x_t + eta s(grad f(x_t)) )
    x_{t+1} = P( x_t + alpha (z_{t+1} - x_t) + (1 - alpha) (x_t - x_{t-1}) )

At the checkpoints w_j = p_j steps, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), eta is halved and x_t
replaced by the best point so far if f rose in at most 3/4 of the steps since w_{j-1}, or if eta was not halved at
w_{j-1} and the best value has not risen since. As in the authors' code the shares 0.22, 0.03 and 0.06 of the steps are
rounded down, to 1 at least, and 3/4 count as too few: with 20 steps that is a little stronger than the paper's text,
with 100 the checkpoints are the same.

In place of the cross-entropy stand the log-odds, which rise and fall with it and have its direction
(:mod:`xaicore.attacks.goal`): every choice above is the same, but nothing saturates.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.balls import bound, no_further, normalised, project
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.candidates import one_by_one
from xaicore.attacks.goal import Goal
from xaicore.attacks.iterated_sign import NORMS, radius
from xaicore.attacks.iteration import Batch, Iteration, put, rows, rows_of, select
from xaicore.attacks.objectives import dlr
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks, randomness

LOSSES = ("ce", "dlr", "targeted-dlr")
ORDER = {"linf": math.inf, "l2": 2.0}
"""The order of each norm."""
RISING = 0.75  # rho, share of steps of which more must raise the objective
MOMENTUM = 0.25  # 1 - alpha
FIRST, SHORTENING, SHORTEST = 0.22, 0.03, 0.06
"""Of the steps: up to the first checkpoint, by how much less to each further one, and at least."""


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    loss: str = "ce",
    norm: str = "linf",
    eps: float | None = None,
    steps: int = 100,
    restarts: int = 1,
    candidates: int = 9,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Climb within an L-infinity or L2 ball with momentum and step sizes that halve themselves, from a random point.

    The start lies on the surface of the ball, in a random direction, clipped to [0, 1]. An image stops at the first
    point that reaches the goal.

    Args:
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`.
        loss: "ce", the cross-entropy (through the log-odds); "dlr", the difference of logits ratio; "targeted-dlr",
            its targeted form towards the wrong class of highest logit and, where that fails, towards all other
            candidates (APGD-T). The last two are the same with a ``target``.
        norm, eps: as in :func:`xaicore.attacks.pgd`.
        steps: number of steps from each start.
        restarts: how often to start, at most; with "targeted-dlr" for each class.
        candidates: classes that "targeted-dlr" tries, those of highest logit on the clean image first.

    Returns:
        The result; a failed image is the best point of its last start, and one that several classes worked for that
        of the first. ``queries`` counts gradients, steps + 1 from
        each start, and the pass that orders the candidates. In ``info``: ``steps`` (N,) int64, steps since the last
        start; ``restart`` (N,) int64, starts before that; ``zero_gradient`` (N,) bool, where the gradient was
        zero or not finite everywhere at a start, which ends there.

    References:
        Croce & Hein (2020), Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks, Sec. 3 and 4.
    """
    norm = checks.one_of("norm", norm, NORMS)
    attack = AutoPgd(
        loss=checks.one_of("loss", loss, LOSSES),
        norm=norm,
        eps=radius(norm, eps),
        steps=checks.integer("steps", steps, least=1),
        restarts=checks.integer("restarts", restarts, least=1),
        candidates=checks.integer("candidates", candidates, least=1),
        seed=checks.integer("seed", seed, least=0),
    )
    return run(attack, model, images, labels, target=target, index=index, batch_size=batch_size)


def checkpoints(steps: int) -> list[int]:
    """Return the steps w_1, w_2, … up to ``steps`` after which the step size may be halved."""
    stretch, shortening, least = (max(int(share * steps), 1) for share in (FIRST, SHORTENING, SHORTEST))
    found, step = [], stretch
    while step <= steps:
        found.append(step)
        stretch = max(stretch - shortening, least)
        step += stretch
    return found


@lru_cache(maxsize=16)
def windows(steps: int) -> Tensor:
    """Return for each step of 0..steps the number of steps since the last checkpoint if it is one, else 0; int64."""
    found, last = torch.zeros(steps + 1, dtype=torch.int64), 0
    for step in checkpoints(steps):
        found[step], last = step - last, step
    return found


def surface(norm: str, seed: int, index: Tensor, start: Tensor, shape: torch.Size) -> Tensor:
    """Return random directions (n, *shape) of length 1 in ``norm``, one stream for each image and start."""
    if norm == "linf":
        shift = randomness.uniform(seed, index, start, shape).mul_(2).sub_(1)
    else:
        shift = randomness.normal(seed, index, start, shape)
    return normalised(shift, ORDER[norm])


class _State(NamedTuple):
    point: Tensor  # (n, C, H, W), x_t
    previous: Tensor  # (n, C, H, W), x_{t-1}
    best: Tensor  # (n, C, H, W), of highest objective since the start; what reached the goal once done
    slope: Tensor  # (n, C, H, W), the gradient there
    low: Tensor | None  # (n, C, H, W), least value of a point in the L-infinity ball; None in an L2 ball
    high: Tensor | None  # (n, C, H, W), greatest value
    size: Tensor  # (n,) float32, eta
    score: Tensor  # (n,) float32, the objective at x_{t-1}
    top: Tensor  # (n,) float32, at the best point; infinite where that reached the goal
    checked: Tensor  # (n,) float32, that at the last checkpoint
    rises: Tensor  # (n,) int64, steps since the last checkpoint that raised the objective
    halved: Tensor  # (n,) bool, eta was halved there
    taken: Tensor  # (n,) int64, t
    start: Tensor  # (n,) int64, starts before this one, those of classes before this one included
    queries: Tensor  # (n,) int64
    zero_gradient: Tensor  # (n,) bool
    done: Tensor  # (n,) bool


@dataclass(frozen=True)
class AutoPgd(Iteration[_State]):
    """The attack as one iteration; see :func:`apgd` for the fields."""

    loss: str
    norm: str
    eps: float
    steps: int
    restarts: int
    candidates: int
    seed: int

    def __call__(
        self, victim: Victim, images: Tensor, goal: Goal, index: Tensor, *others: Any, **options: Any
    ) -> Attempt:
        """Attack ``images`` (n, C, H, W); a step of the base."""
        attack = super().__call__
        if self.loss != "targeted-dlr" or goal.target is not None or options:
            return attack(victim, images, goal, index, *others, **options)
        return one_by_one(attack, victim, images, goal, index, candidates=self.candidates, enough=0)

    def start(self, victim: Victim, batch: Batch) -> _State:
        """Return the first point of each image, its bounds and its counters."""
        images, none = batch.images, torch.zeros_like(batch.number)
        low, high = (bound(images, sign * self.eps) if self.norm == "linf" else None for sign in (-1, 1))
        number, no = none.float(), none.bool()
        start = none if batch.aim is None else batch.aim.turn * self.restarts
        state = _State(
            *(images, images, images, images, low, high, number, number, number, number),
            *(none, no, none, start, none, no, no),
        )
        point = self._first(batch, state)
        return state._replace(point=point, previous=point)

    def advance(self, victim: Victim, batch: Batch, state: _State) -> _State:
        """Take one step, or stop where the point reaches the goal, cannot move, or was the last one."""
        goal, point, fresh = batch.goal, state.point, state.taken == 0
        logits, gradient = victim.differentiate(
            point, lambda logits, part: self._objective(logits, rows_of(batch, part))
        )
        score = self._objective(logits, batch).nan_to_num_(-torch.inf)
        reached = goal.attained(logits) & goal.reached(logits)
        zero = ~gradient.nan_to_num_(0, 0, 0).flatten(1).any(dim=1)
        better = fresh | (score > state.top)
        best, slope = select(better, point, state.best), select(better, gradient, state.slope)
        top = torch.where(better, score, state.top)

        rises = torch.where(fresh, 0, state.rises + (score > state.score))
        window = windows(self.steps).to(rises.device)[state.taken]
        check = window > 0
        halve = check & ((rises <= RISING * window) | (~state.halved & (top <= state.checked)))
        size = torch.where(fresh, 2 * self.eps, torch.where(halve, state.size / 2, state.size))
        here, gradient = select(halve, best, point), select(halve, slope, gradient)

        ends = reached | (state.taken == self.steps) | (fresh & zero)
        again = ends & ~reached & ((state.start + 1) % self.restarts != 0)
        state = state._replace(
            point=self._stepped(here, gradient, batch, state._replace(size=size)),
            previous=here,
            best=select(reached, point, best),
            slope=slope,
            size=size,
            score=score,
            top=torch.where(reached, torch.inf, top),
            checked=torch.where(fresh | check, top, state.checked),
            rises=torch.where(check, 0, rises),
            halved=torch.where(check, halve, state.halved & ~fresh),
            taken=torch.where(again, 0, state.taken + ~ends),
            start=state.start + again,
            queries=state.queries + 1,
            zero_gradient=state.zero_gradient | (fresh & zero & ~reached),
            done=ends & ~again,
        )
        if self.restarts > 1 and again.any():
            which = again.nonzero().squeeze(1)
            first = self._first(rows_of(batch, which), rows_of(state, which))
            state = state._replace(
                point=put(which, first, state.point), previous=put(which, first, state.previous)
            )
        return state

    def finish(self, victim: Victim, batch: Batch, state: _State) -> Attempt:
        """Return the best points; in an L2 ball, moved towards the image by the rounding of their values."""
        best = state.best
        if self.norm == "l2":
            best = no_further(best, batch.images, self.eps)
        info = {"steps": state.taken, "restart": state.start, "zero_gradient": state.zero_gradient}
        if batch.aim is not None:
            info["cost"] = torch.where(state.top == torch.inf, 0.0, torch.inf)
        return Attempt(best, state.queries, info)

    def _objective(self, logits: Tensor, batch: Batch) -> Tensor:
        if self.loss == "ce":
            return batch.goal.score(logits)
        return dlr(logits, batch.labels, batch.target if batch.aim is None else batch.aim.classes)

    def _stepped(self, point: Tensor, gradient: Tensor, batch: Batch, state: _State) -> Tensor:
        direction = gradient.sign() if self.norm == "linf" else normalised(gradient.clone(), order=2)
        moved = self._within(direction.mul_(rows(state.size, point)).add_(point), batch, state)
        share = MOMENTUM * (state.taken > 0).float()
        moved.sub_(point).mul_(rows(1 - share, point))
        moved.add_(point).add_((point - state.previous).mul_(rows(share, point)))
        return self._within(moved, batch, state)

    def _within(self, point: Tensor, batch: Batch, state: _State) -> Tensor:
        """Return ``point`` projected in place on the ball and the box."""
        return project(point, batch.images, self.eps, state.low, state.high)

    def _first(self, batch: Batch, state: _State) -> Tensor:
        """Return the point of each image to start at."""
        shift = surface(self.norm, self.seed, batch.number, state.start, batch.images.shape[1:])
        return self._within(shift.mul_(self.eps).add_(batch.images), batch, state)
