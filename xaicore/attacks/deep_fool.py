"""DeepFool: step after step to the nearest border of the network made linear.

Moosavi-Dezfooli, Fawzi & Frossard (2016), Alg. 2. With f_k = z_k - z_y the lead of class k over the label y at x_t, w_k
its gradient and 1/p + 1/q = 1, the step goes to the border of the class l nearest to x_t in the p-norm::

    l = argmin_k |f_k| / |w_k|_q,    r += |f_l| / |w_l|_2^2 w_l  (L2),    r += |f_l| / |w_l|_1 sign(w_l)  (L-infinity)
    x_{t+1} = clip( x_0 + (1 + overshoot) r )

and each step is longer by 1e-4, as in the authors' code: the overshoot alone crosses a curved border by too little.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.auto_pgd import ORDER
from xaicore.attacks.balls import length
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.iteration import Batch, Iteration, rows, select
from xaicore.attacks.objectives import leads
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks

BEYOND = 1e-4  # length added to each step
ROUNDING = 1e-5  # of the logits, by which a goal counts as reached (Goal.attained)
DUAL = {"linf": 1.0, "l2": 2.0}
"""The order of the norm dual to each."""


def deepfool(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    steps: int = 50,
    candidates: int = 9,
    overshoot: float = 0.02,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Step to the nearest border of the network made linear until it is crossed: a small change for few passes.

    Args:
        model, images, labels, target, batch_size: as in :mod:`xaicore.attacks`. With a ``target`` the border is the
            one between it and the best other class.
        norm: "l2" or "linf", in which the nearest border is meant.
        steps: most steps.
        candidates: wrong classes whose borders are looked at, those of highest logit at each point (the authors: at
            the clean image).
        overshoot: eta, by how much more than to the borders to go, as a share; greater than 0.

    Returns:
        The result; a failed image is its last point. ``queries`` counts gradients, one for each candidate and point,
        the last one included. In ``info``: ``steps`` (N,) int64, steps taken; ``zero_gradient`` (N,) bool, where all
        gradients were zero or not finite. Such an image stops there.

    References:
        Moosavi-Dezfooli, Fawzi & Frossard (2016), DeepFool: a simple and accurate method to fool deep neural networks.
    """
    attack = DeepFool(
        norm=checks.one_of("norm", norm, DUAL),
        steps=checks.integer("steps", steps, least=1),
        candidates=checks.integer("candidates", candidates, least=1),
        overshoot=checks.positive("overshoot", overshoot),
    )
    return run(attack, model, images, labels, target=target, batch_size=batch_size)


class Border(NamedTuple):
    """Of n points the nearest border of the network made linear."""

    gap: Tensor  # (n,) float32, by how much the goal has to gain to lead there by twice the rounding of the logits
    normal: Tensor  # (n, C, H, W), the gradient of its lead
    dual: Tensor  # (n,) float32, the norm of that, dual to the one in which it is the nearest


def nearest_border(
    victim: Victim, batch: Batch, points: Tensor, norm: str, candidates: int, aims: Tensor | None = None
) -> tuple[Tensor, Border, int]:
    """Return the logits (n, K) at ``points`` (n, C, H, W), the border nearest in ``norm``, and the gradients it took.

    Args:
        candidates, aims: as in :func:`xaicore.attacks.objectives.leads`.
    """

    def ahead(logits: Tensor, part: slice) -> Tensor:
        return leads(logits, batch.goal[part], candidates, None if aims is None else aims[part])

    count = 1 if batch.target is not None or aims is not None else min(candidates, victim.classes - 1)
    logits, normals = victim.jacobian(points, ahead, count)
    lead = ahead(logits, slice(None)).nan_to_num_(0, 0, 0)
    normals.nan_to_num_(0, 0, 0)
    duals = length(normals.flatten(0, 1), DUAL[norm]).view(lead.shape)
    nearest = (lead.abs() / duals).nan_to_num_(torch.inf).argmin(dim=1)
    every = torch.arange(len(points), device=points.device)
    gap = 2 * ROUNDING * logits.nan_to_num(0, 0, 0).abs().amax(dim=1) - lead[every, nearest]
    border = Border(gap, normals[every, nearest], duals[every, nearest])
    return logits, border, count


class _State(NamedTuple):
    point: Tensor  # (n, C, H, W)
    total: Tensor  # (n, C, H, W), r
    taken: Tensor  # (n,) int64
    queries: Tensor  # (n,) int64
    zero_gradient: Tensor  # (n,) bool
    done: Tensor  # (n,) bool


@dataclass(frozen=True)
class DeepFool(Iteration[_State]):
    """The attack as one iteration; see :func:`deepfool` for the fields."""

    norm: str
    steps: int
    candidates: int
    overshoot: float

    def start(self, victim: Victim, batch: Batch) -> _State:
        """Return the images themselves, and counters at zero."""
        none = torch.zeros_like(batch.number)
        return _State(batch.images, torch.zeros_like(batch.images), none, none, none.bool(), none.bool())

    def advance(self, victim: Victim, batch: Batch, state: _State) -> _State:
        """Step to the nearest border, or stop where the point reaches the goal or cannot move."""
        logits, border, count = nearest_border(victim, batch, state.point, self.norm, self.candidates)
        reached = batch.goal.attained(logits) & batch.goal.reached(logits)
        zero = border.dual == 0
        step = (
            border.normal.sign() if ORDER[self.norm] != 2 else border.normal / rows(border.dual, state.point)
        )
        total = state.total + step.mul_(rows(border.gap.abs() / border.dual + BEYOND, step)).nan_to_num_(
            0, 0, 0
        )
        ends = reached | zero | (state.taken == self.steps)
        return _State(
            point=select(ends, state.point, (batch.images + (1 + self.overshoot) * total).clamp_(0, 1)),
            total=total,
            taken=state.taken + ~ends,
            queries=state.queries + count,
            zero_gradient=state.zero_gradient | (zero & ~reached),
            done=ends,
        )

    def finish(self, victim: Victim, batch: Batch, state: _State) -> Attempt:
        """Return the last points."""
        info = {"steps": state.taken, "zero_gradient": state.zero_gradient}
        return Attempt(state.point, state.queries, info)
