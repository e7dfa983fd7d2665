"""Iterated gradient attacks: many small steps up the objective, kept within a ball around the image.

With J the cross-entropy, B the ball of radius eps around the clean image x, cut by the box [0, 1], and P_B the
projection on it::

    bim   x_{t+1} = P_B( x_t + a sign(g_t) ),   g_t = grad J(x_t),   x_0 = x       Kurakin et al. (2017), Sec. 2.2
    mim   x_{t+1} = P_B( x_t + a sign(m_t) ),   m_t = mu m_{t-1} + g_t / |g_t|_1   Dong et al. (2018), Eq. 6-7
    pgd   as bim from a random x_0 in B, or with g_t / |g_t|_2 and an L2 ball      Madry et al. (2018), Sec. 2.1

The gradient is taken through the log-odds, which have the direction of the cross-entropy's and do not vanish
(:mod:`xaicore.attacks.goal`). The logits of a gradient pass tell whether x_t reaches the goal already, so that
an image can stop there without a pass of its own.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.balls import bound, no_further, normalised, project
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.iteration import Batch, Iteration, put, rows, rows_of, select
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks, randomness
from xaicore.core.errors import UserError

NORMS = {"linf": 8 / 255, "l2": 0.5}
"""The norms of :func:`pgd` and the radius of each by default, those of RobustBench's CIFAR-10 lists."""


def radius(norm: str, eps: float | None) -> float:
    """Return ``eps``, checked, or the radius of the ``norm`` by default."""
    return NORMS[norm] if eps is None else checks.positive("eps", eps, 1 if norm == "linf" else torch.inf)


def bim(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    steps: int = 10,
    step_size: float | None = None,
    early_stop: bool = True,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Take ``steps`` sign steps from the clean image, each clipped to the L-infinity ball and to [0, 1].

    Args:
        model, images, labels, target, batch_size: as in :mod:`xaicore.attacks`.
        eps: largest change of a value, in (0, 1].
        steps: number of steps.
        step_size: a, the change of a value in one step; None: 2.5 * eps / steps, which crosses the ball from
            any start (Kurakin et al. take 1/255 and min(255 eps + 4, 1.25 * 255 eps) steps).
        early_stop: leave an image as soon as it reaches the goal (by more than rounding of the logits). False
            takes all steps and returns the last iterate, whether or not an earlier one reached the goal: for
            examples of high confidence.

    Returns:
        The result; a failed image is its last iterate. ``queries`` counts gradients. In ``info``: ``steps``
        (N,) int64, steps taken; ``zero_gradient`` (N,) bool, where the gradient was zero or not finite
        everywhere at the start or later. Such an image cannot move and stops there.

    References:
        Kurakin, Goodfellow & Bengio (2017), Adversarial examples in the physical world, Sec. 2.2.
    """
    attack = Ascent(
        eps=checks.positive("eps", eps, most=1),
        steps=checks.integer("steps", steps, least=1),
        step_size=2.5 * eps / steps if step_size is None else checks.positive("step_size", step_size),
        early_stop=checks.flag("early_stop", early_stop),
    )
    return run(attack, model, images, labels, target=target, batch_size=batch_size, opening=True)


def mim(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    early_stop: bool = True,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Take ``steps`` sign steps along a running sum of gradients, each divided by its L1 norm.

    Args:
        model, images, labels, target, batch_size: as in :mod:`xaicore.attacks`.
        eps, steps, early_stop: as in :func:`bim`.
        step_size: a, the change of a value in one step; None: eps / steps, as in the paper.
        decay: mu, the weight of the sum so far, at least 0; 0 gives the directions of :func:`bim`.

    Returns:
        The result, as of :func:`bim`. A gradient that is zero adds nothing to the sum (its L1 norm would make
        it 0/0) and is marked in ``info["zero_gradient"]``; the image goes on along the sum, if there is one.

    References:
        Dong et al. (2018), Boosting adversarial attacks with momentum, Alg. 1.
    """
    attack = Ascent(
        eps=checks.positive("eps", eps, most=1),
        steps=checks.integer("steps", steps, least=1),
        step_size=eps / steps if step_size is None else checks.positive("step_size", step_size),
        early_stop=checks.flag("early_stop", early_stop),
        decay=checks.not_negative("decay", decay),
    )
    return run(attack, model, images, labels, target=target, batch_size=batch_size, opening=True)


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    eps: float | None = None,
    steps: int = 40,
    step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    early_stop: bool = True,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Climb within an L-infinity or L2 ball from a random point of it, with restarts for images that resist.

    An L2 step has length ``step_size`` along the gradient divided by its L2 norm; then the point is projected
    on the ball and clipped to [0, 1], which leaves it in the ball. The start is uniform in the ball, then
    clipped.

    Args:
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`.
        norm: "linf" or "l2".
        eps: radius of the ball, at most 1 with "linf"; None: 8/255 with "linf", 0.5 with "l2". The
            perturbation's norm is never larger: exactly for "linf", within 1e-6 of eps for "l2".
        steps: number of steps from each start.
        step_size: length of a step in ``norm``; None: 2.5 * eps / steps.
        random_start: False starts from the clean image.
        restarts: how often to start, at most, with ``steps`` steps each. Only an image whose last iterate
            fails starts again, which costs it one pass to find out.
        early_stop: as in :func:`bim`.

    Returns:
        The result; a failed image is the last iterate of its last start. ``queries`` counts gradients and the
        passes before a restart. In ``info``: ``steps`` (N,) int64, steps since the last start; ``restart``
        (N,) int64 with ``random_start``, the start the image comes from, counted from 0; ``zero_gradient`` as
        in :func:`bim`.

    Raises:
        ValueError: also for more than one start without ``random_start``, which would repeat the first.

    References:
        Madry et al. (2018), Towards deep learning models resistant to adversarial attacks, Sec. 2.1 and 5.
    """
    norm = checks.one_of("norm", norm, NORMS)
    eps = radius(norm, eps)
    attack = Ascent(
        eps=eps,
        steps=checks.integer("steps", steps, least=1),
        step_size=2.5 * eps / steps if step_size is None else checks.positive("step_size", step_size),
        early_stop=checks.flag("early_stop", early_stop),
        seed=checks.integer("seed", seed, least=0),
        norm=norm,
        random_start=checks.flag("random_start", random_start),
        restarts=checks.integer("restarts", restarts, least=1),
    )
    if attack.restarts > 1 and not random_start:
        raise UserError("restarts must be 1 without random_start: each would repeat the first")
    return run(
        attack,
        model,
        images,
        labels,
        target=target,
        index=index,
        batch_size=batch_size,
        opening=not random_start,
    )


class State(NamedTuple):
    """What is known of n images."""

    point: Tensor  # (n, C, H, W), where the ascent is
    low: Tensor | None  # (n, C, H, W), least value of a point in the L-infinity ball; None in an L2 ball
    high: Tensor | None  # (n, C, H, W), greatest value
    sum: Tensor | None  # (n, C, H, W), of the normalised gradients; None without ``decay``
    taken: Tensor  # (n,) int64, steps since the last start
    restart: Tensor  # (n,) int64, starts before that
    queries: Tensor  # (n,) int64
    zero_gradient: Tensor  # (n,) bool
    done: Tensor  # (n,) bool


@dataclass(frozen=True)
class Ascent(Iteration[State]):
    """The family as one iteration; see :func:`bim`, :func:`mim` (``decay``) and :func:`pgd` for the fields."""

    eps: float
    steps: int
    step_size: float
    early_stop: bool
    seed: int = 0
    norm: str = "linf"
    decay: float | None = None
    random_start: bool = False
    restarts: int = 1

    def start(self, victim: Victim, batch: Batch) -> State:
        """Return the first point of each image, its bounds and its counters."""
        images, none = batch.images, torch.zeros_like(batch.number)
        low, high = (bound(images, sign * self.eps) if self.norm == "linf" else None for sign in (-1, 1))
        total = None if self.decay is None else torch.zeros_like(images)
        state = State(images, low, high, total, none, none, none, none.bool(), none.bool())
        state = state._replace(point=self._first(batch, state))
        return state if batch.opening is None else self._stepped(batch, state, *batch.opening)

    def advance(self, victim: Victim, batch: Batch, state: State) -> State:
        """Take one step, or stop where the point reaches the goal, cannot move, or was only to be checked."""
        goal = batch.goal
        found = victim.differentiate(state.point, lambda logits, part: goal[part].score(logits))
        return self._stepped(batch, state, *found)

    def _stepped(self, batch: Batch, state: State, logits: Tensor, gradient: Tensor) -> State:
        goal, point, restart = batch.goal, state.point, state.restart
        reached = goal.attained(logits) & goal.reached(logits)
        gradient.nan_to_num_(0, 0, 0)
        zero = ~gradient.flatten(1).any(dim=1)
        stuck, total = zero, state.sum
        if total is not None and self.decay is not None:
            total = normalised(gradient, order=1).add_(total, alpha=self.decay)
            gradient = total.sign()
            stuck = ~gradient.flatten(1).any(dim=1)
        step = gradient.sign_() if self.norm == "linf" else normalised(gradient, order=2)
        moved = self._within(step.mul_(self.step_size).add_(point), batch, state)

        ends = (state.taken == self.steps) | (reached if self.early_stop else False)
        stays = stuck | ends
        again = stays & ~reached & (restart + 1 < self.restarts)
        taken = state.taken + ~stays
        last = restart + 1 == self.restarts
        state = state._replace(
            point=select(stays, point, moved),
            sum=total,
            taken=torch.where(again, 0, taken),
            restart=restart + again,
            queries=state.queries + 1,
            zero_gradient=state.zero_gradient | (zero & ~ends),
            done=(stays & ~again) | (last & (taken == self.steps)),
        )
        if self.restarts > 1 and again.any():
            which = again.nonzero().squeeze(1)
            first = self._first(rows_of(batch, which), rows_of(state, which))
            state = state._replace(point=put(which, first, state.point))
        return state

    def finish(self, victim: Victim, batch: Batch, state: State) -> Attempt:
        """Return the last points; in an L2 ball, moved towards the image by the rounding of their values."""
        point = state.point
        if self.norm == "l2":
            point = no_further(point, batch.images, self.eps)
        info = {"steps": state.taken, "zero_gradient": state.zero_gradient}
        if self.random_start:
            info["restart"] = state.restart
        return Attempt(point, state.queries, info)

    def _within(self, point: Tensor, batch: Batch, state: State) -> Tensor:
        """Return ``point`` projected in place on the ball and the box."""
        return project(point, batch.images, self.eps, state.low, state.high)

    def _first(self, batch: Batch, state: State) -> Tensor:
        """Return the point of each image to start at."""
        images, index, restart = batch.images, batch.number, state.restart
        if not self.random_start:
            return images
        if self.norm == "linf":
            shift = randomness.uniform(self.seed, index, restart, images.shape[1:]).mul_(2).sub_(1)
            return self._within(shift.mul_(self.eps).add_(images), batch, state)
        # A normal vector has a uniform direction; a uniform number's D-th root is the radius in D dimensions.
        direction = normalised(randomness.normal(self.seed, index, restart, images.shape[1:]), order=2)
        radius = randomness.uniform(self.seed, index, restart, (1,), purpose=1)[:, 0]
        radius = radius.pow(1 / images.shape[1:].numel()).mul(self.eps)
        return self._within(direction.mul_(rows(radius, images)).add_(images), batch, state)
