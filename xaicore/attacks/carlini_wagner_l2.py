"""The Carlini-Wagner L2 attack: the smallest Euclidean change that reaches the goal, by Adam and a search over c.

Carlini & Wagner (2017), Sec. V-B and VI-A::

    minimise |x' - x|^2 + c * max(confidence - margin(x'), 0),   x' in [0, 1] by a change of variables,

with the margin by which the best wrong class leads the label (untargeted), or the target all others, in
logits. The c to find is the smallest one that reaches the goal. Every image has its own Adam, its own c and its
own end, of a search and of the attack.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import Batch, Iteration, rows, select
from xaicore.attacks.optimization import Adam, Best
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks

CHECKS = 10
"""Looks at the progress of one search, evenly spread (as in the published code)."""

STRIDE = 1.0
"""Length of the first Adam step on a grey image, in units of the distance to the border were the model linear."""

FACTOR = 10.0
"""By which c grows until the goal is reached, or shrinks until it is not (as in the published code)."""

SHRINK = 1 - 1e-6
"""Images are drawn towards mid-grey by this factor before the inverse of a change of variables: at the faces of the
box it is flat. A value in [0, 1] moves by at most 5e-7."""


class Space(NamedTuple):
    """A change of variables from unbounded w to (-1, 1), elementwise, so that an optimiser needs no clipping.

    Carlini & Wagner (2017), Sec. V-B, write x = (tanh w + 1) / 2. A pixel at exactly 0 or 1 is then at infinity; even
    drawn inwards by one in a million it sits where the map is flat and needs hundreds of Adam steps to move at
    all: of MNIST digits, which are mostly 0 and 1, most pixels are frozen. x = (sin w + 1) / 2 keeps the box as
    well and reaches its faces at finite w, with a slope that grows at once, so that ``sine`` is the default here and
    ``tanh`` the paper's.
    """

    forward: Callable[[Tensor], Tensor]  # w to (-1, 1)
    inverse: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]  # derivative of ``forward`` at w

    def unbounded(self, images: Tensor) -> Tensor:
        """Return w of ``images`` in [0, 1], any shape; ``bounded`` gives them back within 6e-7."""
        return self.inverse((2 * images - 1) * SHRINK)

    def bounded(self, w: Tensor) -> Tensor:
        """Return the images in [0, 1] at ``w``, same shape."""
        return (self.forward(w) + 1) / 2

    def chain(self, gradient: Tensor, w: Tensor) -> Tensor:
        """Return the gradient with respect to ``w`` of what has ``gradient`` with respect to the image."""
        return gradient * self.slope(w) / 2


SPACES = {
    "sine": Space(torch.sin, torch.asin, torch.cos),
    "tanh": Space(torch.tanh, torch.atanh, lambda w: 1 - torch.tanh(w).square()),
}


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
    batch_size: int | None = None,
) -> AttackResult:
    """Minimise the L2 norm of the perturbation and the shortfall of the margin, weighted by a searched constant.

    Every iterate that reaches the goal is a candidate, the one of smallest L2 is kept. Three things differ from
    the published code, each for a smaller distortion at fewer gradients: the change of variables
    (:class:`Space`); a learning rate that falls linearly to 0 within a search; and a first c and
    learning rate taken from the image. Were the model linear, with shortfall f at the clean image, the border would be
    d = f / abs(grad f) away and c = 2 f / abs(grad f)^2 would balance both terms there. Adam's first step moves n
    grey values by half the learning rate each, thus the image by sqrt(n)/2 times that: a rate of 0.01, usual for
    digits, carries a photograph of 224 pixels ten times farther than its border is away.

    Args:
        model, images, labels, target, batch_size: as in :mod:`xaicore.attacks`.
        confidence: margin to reach, in logits, at least 0.
        steps: Adam steps of one search.
        search_steps: searches: c is multiplied by 10 until the goal is held (or divided by 10 until it is not),
            then set to the geometric mean of the largest that failed and the smallest that worked. A c works if the
            last tenth of its steps saw the goal reached; an early overshoot says nothing about c.
        learning_rate: of Adam at the first step of a search; None: 2 d / sqrt(n) for each image, within 0.0001
            and 0.1.
        initial_const: first c, greater than 0; None: from each image's own gradient.
        abort_early: whether a search ends when a tenth of its steps has lowered the loss by less than 0.01 %.
        space: ``"sine"``, or ``"tanh"`` as in the paper, which freezes pixels that are exactly 0 or 1; at
            the end of a tensor PyTorch rounds tanh otherwise, so the last bits of an image depend on its batch there.

    Returns:
        The result; a failed image carries the iterate of largest margin. ``info["constant"]`` (N,) float32 is the
        smallest c that worked, inf where none did; ``info["zero_gradient"]`` (N,) bool marks images with no usable
        gradient to start from, which stay as they are.

    References:
        Carlini & Wagner (2017), Towards evaluating the robustness of neural networks, Sec. V and VI-A.
    """
    search = _ConstantSearch(
        confidence=checks.not_negative("confidence", confidence),
        steps=checks.integer("steps", steps, least=1),
        searches=checks.integer("search_steps", search_steps, least=1),
        learning_rate=None if learning_rate is None else checks.positive("learning_rate", learning_rate),
        constant=None if initial_const is None else checks.positive("initial_const", initial_const),
        abort_early=checks.flag("abort_early", abort_early),
        space=SPACES[checks.one_of("space", space, SPACES)],
    )
    return run(search, model, images, labels, target=target, batch_size=batch_size)


class _Search(NamedTuple):
    """A search at one c."""

    w: Tensor  # (n, C, H, W), where it is
    adam: Adam
    at: Tensor  # (n,) int64, steps made
    lowest: Tensor  # (n,), the loss at the last look
    recent: Tensor  # (n,), the least loss since
    found: Tensor  # (n,) bool, the goal was reached since


class _State(NamedTuple):
    search: _Search
    constant: Tensor  # (n,), its c
    rate: Tensor  # (n,), Adam's learning rate at its start
    low: Tensor  # (n,), largest c that failed; 0 before any did
    high: Tensor  # (n,), smallest c that worked; inf before any did
    searches: Tensor  # (n,) int64, searches ended
    best: Best
    queries: Tensor  # (n,) int64
    zero_gradient: Tensor  # (n,) bool
    done: Tensor  # (n,) bool


@dataclass(frozen=True)
class _ConstantSearch(Iteration[_State]):
    confidence: float
    steps: int
    searches: int
    learning_rate: float | None
    constant: float | None
    abort_early: bool
    space: Space

    def start(self, victim: Victim, batch: Batch) -> _State:
        """Look at the clean image: its gradient tells where to begin with c."""
        images = batch.images
        shortfall, gradient, _, margin = self._shortfall(victim, images, batch.goal)
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
        unbounded = torch.full_like(constant, torch.inf)
        return _State(
            search=self._first(images),
            constant=constant,
            rate=rate,
            low=torch.zeros_like(constant),
            high=unbounded,
            searches=torch.zeros_like(batch.labels),
            best=Best(images, unbounded, margin.nan_to_num(-torch.inf)),
            queries=torch.ones_like(batch.labels),
            zero_gradient=nothing,
            done=nothing,
        )

    def advance(self, victim: Victim, batch: Batch, state: _State) -> _State:
        """Evaluate the iterate, keep it if it is the best so far, take a step; a search that ends sets c anew."""
        search, constant = state.search, state.constant
        candidate = self.space.bounded(search.w)
        shortfall, gradient, reached, margin = self._shortfall(victim, candidate, batch.goal)
        change = candidate - batch.images
        squared = change.square().flatten(1).sum(dim=1)
        best, _ = state.best.updated(candidate, squared.sqrt(), margin, reached)
        found = search.found | reached

        at = search.at + 1
        loss = squared + constant * shortfall
        look = at % max(1, math.ceil(self.steps / CHECKS)) == 0
        recent = torch.minimum(search.recent, loss)
        stalled = look & (recent > 0.9999 * search.lowest) if self.abort_early else torch.zeros_like(look)
        rate = state.rate * (1 - (at - 1) / self.steps)
        slope = self.space.chain(2 * change + rows(constant, change) * gradient, search.w)
        update, adam = search.adam.update(slope, at, rate)
        lowest = torch.minimum(search.lowest, recent).where(look, search.lowest)
        ended = stalled | (at >= self.steps)
        search = _Search(search.w - update, adam, at, lowest, recent.where(~look, torch.inf), found & ~look)
        if ended.any():
            search = select(ended, self._first(batch.images), search)

        low = torch.where(ended & ~found, torch.maximum(state.low, constant), state.low)
        high = torch.where(ended & found, torch.minimum(state.high, constant), state.high)
        searches = state.searches + ended
        return state._replace(
            search=search,
            constant=_next_constant(constant, low, high).where(ended, constant),
            low=low,
            high=high,
            searches=searches,
            best=best,
            queries=state.queries + 1,
            done=searches >= self.searches,
        )

    def finish(self, victim: Victim, batch: Batch, state: _State) -> Attempt:
        info = {"constant": state.high, "zero_gradient": state.zero_gradient}
        return Attempt(state.best.images, state.queries, info)

    def _shortfall(self, victim: Victim, images: Tensor, goal: Goal) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return max(confidence - margin, 0) (n,), its gradient, whether the goal is reached, and the margin."""

        def objective(logits: Tensor, part: slice) -> Tensor:
            return (self.confidence - goal[part].margin(logits)).clamp(min=0)

        logits, gradient = victim.differentiate(images, objective)
        margin = goal.margin(logits)
        shortfall = (self.confidence - margin).clamp(min=0).nan_to_num(0, 0, 0)
        return shortfall, gradient.nan_to_num(0, 0, 0), goal.attained(logits, self.confidence), margin

    def _first(self, images: Tensor) -> _Search:
        none = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        unbounded, w = none + torch.inf, self.space.unbounded(images)
        return _Search(w, Adam.zero(images), none, unbounded, unbounded, none.bool())


def _next_constant(constant: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return c for the next search, all (n,): bracket first, then the geometric mean of the bracket."""
    within = torch.where(low == 0, high / FACTOR, (low * high).sqrt())
    return torch.where(high.isinf(), (constant * FACTOR).clamp(max=1e10), within)
