"""The Carlini-Wagner L2 attack: the smallest Euclidean change that reaches the goal, by Adam and a search over c.

Carlini & Wagner (2017), Sec. V-B and VI-A::

    minimise |x' - x|^2 + c * max(confidence - margin(x'), 0),   x' in [0, 1] by a change of variables,

with the margin by which the best wrong class leads the label (untargeted), or the target all others, in
logits. The c to find is the smallest one that reaches the goal. Every image has its own Adam, its own c and its
own end, of a search and of the attack.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xaicore.attacks.adam import adam
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.box_space import SPACES, Space
from xaicore.attacks.goal import Goal
from xaicore.attacks.lanes import State, goal, in_lanes, rows
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks

CHECKS = 10
"""Looks at the progress of one search, evenly spread (as in the published code)."""

STRIDE = 1.0
"""Length of the first Adam step on a grey image, in units of the distance to the border were the model linear."""

FACTOR = 10.0
"""By which c grows until the goal is reached, or shrinks until it is not (as in the published code)."""


def cw_l2(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    confidence: float = 0.0,
    steps: int = 50,
    search_steps: int = 6,
    learning_rate: float | None = None,
    initial_const: float | None = None,
    abort_early: bool = True,
    space: str = "sine",
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Minimise the L2 norm of the perturbation and the shortfall of the margin, weighted by a searched constant.

    Every iterate that reaches the goal is a candidate, the one of smallest L2 is kept. Three things differ from
    the published code, each for a smaller distortion at fewer gradients: the change of variables
    (:mod:`xaicore.attacks.box_space`); a learning rate that falls linearly to 0 within a search; and a first c and
    learning rate taken from the image. Were the model linear, with shortfall f at the clean image, the border would be
    d = f / abs(grad f) away and c = 2 f / abs(grad f)^2 would balance both terms there. Adam's first step moves n
    grey values by half the learning rate each, thus the image by sqrt(n)/2 times that: a rate of 0.01, usual for
    digits, carries a photograph of 224 pixels ten times farther than its border is away.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits, K of at least 2.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, the true classes.
        confidence: margin to reach, in logits, at least 0.
        steps: Adam steps of one search.
        search_steps: searches: c is multiplied by 10 until the goal is held (or divided by 10 until it is not),
            then set to the geometric mean of the largest that failed and the smallest that worked. A c works if the
            last tenth of its steps saw the goal reached; an early overshoot says nothing about c.
        learning_rate: of Adam at the first step of a search; None: 2 d / sqrt(n) for each image, within 0.0001
            and 0.1.
        initial_const: first c, greater than 0; None: from each image's own gradient.
        abort_early: whether a search ends when a tenth of its steps has lowered the loss by less than 0.01 %.
        space: ``"sine"``, or ``"tanh"`` as in the paper, which freezes pixels that are exactly 0 or 1.
        target: class to reach, or (N,) int64 of them; None to leave the true class.
        seed: accepted so that all attacks can be called alike; nothing here is random.
        index: accepted so that all attacks can be called alike.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Returns:
        The result; a failed image carries the iterate of largest margin. ``info["constant"]`` (N,) float32 is the
        smallest c that worked, inf where none did; ``info["zero_gradient"]`` (N,) bool marks images with no usable
        gradient to start from, which stay as they are.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shape, type, range, NaN, labels, target or a parameter do not fit.

    References:
        Carlini & Wagner (2017), Towards evaluating the robustness of neural networks, Sec. V and VI-A.
    """
    search = ConstantSearch(
        confidence=checks.not_negative("confidence", confidence),
        steps=checks.integer("steps", steps, least=1),
        searches=checks.integer("search_steps", search_steps, least=1),
        learning_rate=None if learning_rate is None else checks.positive("learning_rate", learning_rate),
        constant=None if initial_const is None else checks.positive("initial_const", initial_const),
        abort_early=checks.flag("abort_early", abort_early),
        space=SPACES[checks.one_of("space", space, SPACES)],
    )
    checks.integer("seed", seed, least=0)

    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        return in_lanes(search, victim, images, goal, index)

    return run(step, model, images, labels, target=target, index=index, batch_size=batch_size)


@dataclass(frozen=True)
class ConstantSearch:
    """The attack as an iteration: one gradient per image and step."""

    confidence: float
    steps: int
    searches: int
    learning_rate: float | None
    constant: float | None
    abort_early: bool
    space: Space

    def start(self, victim: Victim, state: State) -> State:
        """Look at the clean image: its gradient tells where to begin with c."""
        images = state["images"]
        shortfall, gradient, _, margin = self._shortfall(victim, images, goal(state))
        steepness = gradient.square().flatten(1).sum(dim=1)
        nothing = steepness == 0
        if self.constant is None:
            constant = (2 * shortfall / steepness).where(~nothing, 1.0).clamp(1e-6, 1e10)
        else:
            constant = torch.full_like(shortfall, self.constant)
        if self.learning_rate is None:
            distance = shortfall / steepness.sqrt().clamp(min=1e-12)
            rate = (STRIDE * 2 * distance / images.shape[1:].numel() ** 0.5).clamp(1e-4, 0.1)
        else:
            rate = torch.full_like(shortfall, self.learning_rate)
        count = torch.zeros_like(state["labels"])
        return {
            **self._first(images),
            "constant": constant,
            "rate": rate,
            "low": torch.zeros_like(constant),
            "high": torch.full_like(constant, torch.inf),
            "search": count,
            "best": images.clone(),
            "best_l2": torch.full_like(constant, torch.inf),
            "best_margin": margin.nan_to_num(-torch.inf),
            "queries": torch.ones_like(count),
            "zero_gradient": nothing,
            "done": nothing,
        }

    def advance(self, victim: Victim, state: State) -> State:
        """Evaluate the iterate, keep it if it is the best so far, take a step; a search that ends sets c anew."""
        images, constant, w = state["images"], state["constant"], state["w"]
        candidate = self.space.bounded(w)
        shortfall, gradient, reached, margin = self._shortfall(victim, candidate, goal(state))
        change = candidate - images
        squared = change.square().flatten(1).sum(dim=1)

        l2 = squared.sqrt()
        never = state["best_l2"].isinf()
        closer = torch.where(reached, l2 < state["best_l2"], never & (margin > state["best_margin"]))
        best = candidate.where(rows(closer, candidate), state["best"])
        best_l2 = l2.where(reached & closer, state["best_l2"])
        best_margin = margin.where(closer, state["best_margin"])
        found = state["found"] | reached

        at = state["at"] + 1
        loss = squared + constant * shortfall
        look = at % max(1, math.ceil(self.steps / CHECKS)) == 0
        recent = torch.minimum(state["recent"], loss)
        stalled = look & (recent > 0.9999 * state["lowest"]) if self.abort_early else torch.zeros_like(look)
        rate = state["rate"] * (1 - (at - 1) / self.steps)
        slope = self.space.chain(2 * change + rows(constant, change) * gradient, w)
        update, m, v = adam(state["m"], state["v"], slope, at, rate)
        moved = {
            "w": w - update,
            "m": m,
            "v": v,
            "at": at,
            "lowest": torch.minimum(state["lowest"], recent).where(look, state["lowest"]),
            "recent": recent.where(~look, torch.inf),
            "found": found & ~look,
        }

        ended = stalled | (at >= self.steps)
        low = torch.where(ended & ~found, torch.maximum(state["low"], constant), state["low"])
        high = torch.where(ended & found, torch.minimum(state["high"], constant), state["high"])
        search = state["search"] + ended
        if ended.any():
            fresh = self._first(images)
            moved = {name: fresh[name].where(rows(ended, moved[name]), moved[name]) for name in fresh}
        return {
            **moved,
            "constant": _next_constant(constant, low, high).where(ended, constant),
            "low": low,
            "high": high,
            "search": search,
            "best": best,
            "best_l2": best_l2,
            "best_margin": best_margin,
            "queries": state["queries"] + 1,
            "done": search >= self.searches,
        }

    def finish(self, victim: Victim, state: State) -> Attempt:
        """Return the candidate kept."""
        info = {"constant": state["high"], "zero_gradient": state["zero_gradient"]}
        return Attempt(state["best"], state["queries"], info)

    def _shortfall(self, victim: Victim, images: Tensor, goal: Goal) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return max(confidence - margin, 0) (n,), its gradient, whether the goal is reached, and the margin."""

        def objective(logits: Tensor, part: slice) -> Tensor:
            return (self.confidence - goal[part].margin(logits)).clamp(min=0)

        logits, gradient = victim.differentiate(images, objective)
        margin = goal.margin(logits)
        shortfall = (self.confidence - margin).clamp(min=0).nan_to_num(0, 0, 0)
        return shortfall, gradient.nan_to_num(0, 0, 0), goal.attained(logits, self.confidence), margin

    def _first(self, images: Tensor) -> State:
        """Return what a search begins with."""
        each = len(images)
        return {
            "w": self.space.unbounded(images),
            "m": torch.zeros_like(images),
            "v": torch.zeros_like(images),
            "at": torch.zeros(each, dtype=torch.int64, device=images.device),
            "lowest": torch.full((each,), torch.inf, device=images.device),
            "recent": torch.full((each,), torch.inf, device=images.device),
            "found": torch.zeros(each, dtype=torch.bool, device=images.device),
        }


def _next_constant(constant: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return c for the next search, all (n,): bracket first, then the geometric mean of the bracket."""
    return torch.where(
        high.isinf(),
        (constant * FACTOR).clamp(max=1e10),
        torch.where(low == 0, high / FACTOR, (low * high).sqrt()),
    )
