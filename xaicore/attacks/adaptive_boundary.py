"""FAB: steps to the border of the network made linear, biased towards the image, for the smallest change.

Croce & Hein (2020), Minimally distorted adversarial examples with a fast adaptive boundary attack, Sec. 2. At x_t, near
the border already, the nearest border of the network made linear is a plane; with d(x) the smallest change in the
p-norm that brings x onto it without leaving the box::

    x_{t+1} = clip( (1 - a) (x_t + eta d(x_t)) + a (x + eta d(x)) ),    a = min( |d(x_t)| / (|d(x_t)| + |d(x)|), a_max )

and wherever that reaches the goal, x_{t+1} goes back to x + beta (x_{t+1} - x). The closest point that reached it is
the result.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.auto_pgd import ORDER, surface
from xaicore.attacks.balls import length
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.candidates import one_by_one
from xaicore.attacks.deep_fool import nearest_border
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import Batch, Iteration, put, rows, rows_of, select
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks

STARTS = {"linf": 0.3, "l2": 1.0}
"""Without ``eps``, random starts lie within half of this while no point reached the goal, as by the authors."""
SMALLEST = 1e-8  # least length of a change onto the border, which keeps their ratio finite
PIECES = 60  # most pieces of the way onto the border


def fab(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    eps: float | None = None,
    steps: int = 100,
    restarts: int = 1,
    candidates: int = 9,
    one_by_one: bool = False,
    overshoot: float = 0.05,
    backward: float = 0.9,
    bias: float = 0.1,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Look for the smallest change in a norm along the border of the network made linear again at every step.

    Args:
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`. With a ``target`` the
            border is the one between it and the best other class.
        norm: "linf" or "l2", the norm to make small.
        eps: a change of this size is small enough: an image stops there, and is left as it is if none is found. None:
            all steps are taken, and the smallest change counts.
        steps: number of steps from each start.
        restarts: starts, at most. The first is the image; the others are random, within half of ``eps`` or of the
            smallest change so far.
        candidates: wrong classes whose borders are looked at, those of highest logit at each point.
        one_by_one: take the border of one class only, each of the ``candidates`` of highest logit on the clean image
            with starts of its own (FAB-T): a gradient a step instead of one for each class. With ``eps`` the others
            are tried only where the first fails.
        overshoot: eta - 1, by how much more than onto the border to go; at least 0.
        backward: beta, share of the way to a point that reached the goal from which to go on; in (0, 1].
        bias: a_max, most weight of the step from the image; in [0, 1].

    Returns:
        The result; a failed image is the clean one. ``queries`` counts gradients, one for each border looked at, a pass
        after each step, and the pass that orders the candidates. In ``info``: ``steps`` (N,) int64, steps since the
        last start; ``restart`` (N,) int64, starts before that; ``zero_gradient`` (N,) bool, where all gradients
        were zero or not finite. Such a start ends there.

    References:
        Croce & Hein (2020), Minimally distorted adversarial examples with a fast adaptive boundary attack, Sec. 2;
        one_by_one: Croce & Hein (2020), Reliable evaluation of adversarial robustness, Sec. 5.
    """
    norm = checks.one_of("norm", norm, STARTS)
    attack = Fab(
        norm=norm,
        eps=None if eps is None else checks.positive("eps", eps, most=1 if norm == "linf" else torch.inf),
        steps=checks.integer("steps", steps, least=1),
        restarts=checks.integer("restarts", restarts, least=1),
        candidates=checks.integer("candidates", candidates, least=1),
        one_by_one=checks.flag("one_by_one", one_by_one),
        seed=checks.integer("seed", seed, least=0),
        overshoot=checks.not_negative("overshoot", overshoot),
        backward=checks.positive("backward", backward, most=1),
        bias=checks.not_negative("bias", bias, most=1),
    )
    return run(attack, model, images, labels, target=target, index=index, batch_size=batch_size)


class _State(NamedTuple):
    point: Tensor  # (n, C, H, W)
    best: Tensor  # (n, C, H, W), the closest point that reached the goal; the image until there is one
    distance: Tensor  # (n,) float32, its distance; infinite until then
    taken: Tensor  # (n,) int64, steps since the last start
    start: Tensor  # (n,) int64, starts before that, those of classes before this one included
    queries: Tensor  # (n,) int64
    zero_gradient: Tensor  # (n,) bool
    done: Tensor  # (n,) bool


@dataclass(frozen=True)
class Fab(Iteration[_State]):
    """The attack as one iteration; see :func:`fab` for the fields."""

    norm: str
    eps: float | None
    steps: int
    restarts: int
    candidates: int
    one_by_one: bool
    seed: int
    overshoot: float = 0.05
    backward: float = 0.9
    bias: float = 0.1

    def __call__(
        self, victim: Victim, images: Tensor, goal: Goal, index: Tensor, *others: Any, **options: Any
    ) -> Attempt:
        """Attack ``images`` (n, C, H, W); a step of the base."""
        attack = super().__call__
        if not self.one_by_one or goal.target is not None or options:
            return attack(victim, images, goal, index, *others, **options)
        enough = -1 if self.eps is None else self.eps
        return one_by_one(attack, victim, images, goal, index, candidates=self.candidates, enough=enough)

    def start(self, victim: Victim, batch: Batch) -> _State:
        """Return the images themselves, and counters at zero."""
        none = torch.zeros_like(batch.number)
        far, no = torch.full_like(none, torch.inf, dtype=torch.float32), none.bool()
        start = none if batch.aim is None else batch.aim.turn * self.restarts
        return _State(*(batch.images, batch.images, far, none, start, none, no, no))

    def advance(self, victim: Victim, batch: Batch, state: _State) -> _State:
        """Take one step, and note the point if it is the closest that reaches the goal."""
        images, point, goal = batch.images, state.point, batch.goal
        aims = None if batch.aim is None else batch.aim.classes
        _, border, gradients = nearest_border(victim, batch, point, self.norm, self.candidates, aims)
        zero = border.dual == 0
        behind = border.gap - total(border.normal * (images - point))
        changes = [
            onto(at, border.normal, gap, self.norm) for at, gap in ((point, border.gap), (images, behind))
        ]
        here, there = (length(change, ORDER[self.norm]).clamp_(min=SMALLEST) for change in changes)
        share = rows((here / (here + there)).clamp_(max=self.bias), point)
        ways = [
            at + (1 + self.overshoot) * change for at, change in zip((point, images), changes, strict=True)
        ]
        moved = (ways[0] * (1 - share) + ways[1] * share).clamp_(0, 1)

        logits = victim.logits(moved)
        works = goal.attained(logits) & goal.reached(logits)
        far = length(moved - images, ORDER[self.norm])
        closer = works & (far < state.distance)
        distance = torch.where(closer, far, state.distance)
        taken = state.taken + ~zero
        enough = torch.zeros_like(zero) if self.eps is None else distance <= self.eps
        ends = enough | zero | (taken == self.steps)
        again = ends & ~enough & ((state.start + 1) % self.restarts != 0)
        state = state._replace(
            point=select(works, images + self.backward * (moved - images), moved),
            best=select(closer, moved, state.best),
            distance=distance,
            taken=torch.where(again, 0, taken),
            start=state.start + again,
            queries=state.queries + gradients + 1,
            zero_gradient=state.zero_gradient | zero,
            done=ends & ~again,
        )
        if self.restarts > 1 and again.any():
            which = again.nonzero().squeeze(1)
            first = self._first(rows_of(batch, which), rows_of(state, which))
            state = state._replace(point=put(which, first, state.point))
        return state

    def finish(self, victim: Victim, batch: Batch, state: _State) -> Attempt:
        """Return the closest points found, where they are close enough."""
        near = state.distance <= (torch.inf if self.eps is None else self.eps)
        info = {"steps": state.taken, "restart": state.start, "zero_gradient": state.zero_gradient}
        if batch.aim is not None:
            info["cost"] = torch.where(near, state.distance, torch.inf)
        return Attempt(select(near, state.best, batch.images), state.queries, info)

    def _first(self, batch: Batch, state: _State) -> Tensor:
        """Return the point of each image to start at."""
        most = STARTS[self.norm] if self.eps is None else self.eps
        if self.eps is None:
            wide = torch.where(state.distance.isfinite(), state.distance, most)
        else:
            wide = state.distance.clamp(max=most)
        shift = surface(self.norm, self.seed, batch.number, state.start, batch.images.shape[1:])
        first = (batch.images + shift * rows(wide / 2, shift)).clamp_(0, 1)
        return select(state.start % self.restarts == 0, batch.images, first)


def onto(points: Tensor, normals: Tensor, gaps: Tensor, norm: str) -> Tensor:
    """Return the smallest changes d in ``norm`` with <w, d> = gap and points + d in [0, 1].

    Where the whole box lies on one side of the plane, the corner nearest to the plane is the end. The change is
    sign(w) min(s v, room), with v = 1 (L-infinity) or abs(w) (L2) and ``room`` the way to the box; <w, d> is concave in
    s and made of straight pieces, so that Newton's method from s = 0 comes to the root from one side.

    Args:
        points: (n, C, H, W) in [0, 1].
        normals: w, (n, C, H, W).
        gaps: (n,), of either sign.
        norm: "linf" or "l2".
    """
    normals = normals * rows(gaps.sign(), normals)
    gaps, weight = gaps.abs(), normals.abs()
    room = torch.where(normals > 0, 1 - points, points)
    speed = torch.ones_like(weight) if norm == "linf" else weight
    power, scale = weight * speed, torch.zeros_like(gaps)
    for _ in range(PIECES):
        way = speed * rows(scale, speed)
        slope = total(power * (way < room))
        further = scale + (gaps - total(weight * way.minimum(room))) / slope
        going = (slope > 0) & (further > scale)
        if not going.any():
            break
        scale = torch.where(going, further, scale)
    return normals.sign() * (speed * rows(scale, speed)).minimum(room)


def total(values: Tensor) -> Tensor:
    """Return the sums (n,) of (n, C, H, W), by lines first (see :func:`xaicore.attacks.balls.length`)."""
    return values.sum(dim=3).flatten(1).sum(dim=1)
