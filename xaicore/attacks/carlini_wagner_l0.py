"""The Carlini-Wagner L0 attack: the fewest pixels that reach the goal, by taking pixels away one share after another.

Carlini & Wagner (2017), Sec. VI-B. With A the pixels that may change, all of them at first::

    minimise |x' - x|^2 + c * max(confidence - margin(x'), 0),   x' in [0, 1], x' = x outside A,

with the margin by which the best wrong class leads the label (untargeted), or the target all others, in
logits. Once the goal is reached, the pixels of A with the least sum over channels of
abs(d margin / d x' * (x' - x)) get their original value back and leave A, and the search goes on from there. A pixel
counts once, with all its channels. Of the paper's three ways to stay in [0, 1] (Sec. V-B) this is the projection:
a pixel outside A is the original bit for bit, and one that is black or white is not frozen.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.iteration import Batch, Iteration, put, rows, rows_of, select
from xaicore.attacks.optimization import Adam, Schedule, Trial, look
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks

VISIBLE = 1 / 512
"""Half a grey level of 8 bits: pixels that changed by less in every channel leave A first, and all at once."""


def cw_l0(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    confidence: float = 0.0,
    steps: int = 100,
    learning_rate: float = 0.1,
    initial_const: float = 100.0,
    largest_const: float = 10000.0,
    const_factor: float = 100.0,
    share: float = 0.3,
    attempts: int = 5,
    patience: int = 10,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Take pixels away as long as the goal can be reached with those that are left.

    Every iterate that reaches the goal is a candidate; the one of fewest changed pixels is kept and, among these,
    the one of smallest L2 norm. The published code frees up to 0.3 * sqrt(len(A)) pixels at a time and ends at the
    first failure. Here a share of A leaves at a time; when the goal cannot be reached without them, the image goes
    back to its last success and the share is halved for good, down to a single pixel. When a single pixel cannot
    be spared, the next least important is tried instead. One gradient is one query.

    Args:
        model, images, labels, target, batch_size: as in :mod:`xaicore.attacks`.
        confidence: margin to reach, in logits, at least 0.
        steps: Adam steps for one A and c at most.
        learning_rate: of Adam, in [0, 1] units of the image.
        initial_const: first c for each A, greater than 0.
        largest_const: beyond it, c is not raised any further and A has failed; at least ``initial_const``.
        const_factor: by which c grows when the goal is not reached, at least 1.01.
        share: of the pixels of A, how many leave at a time to begin with, in (0, 1]; at least one leaves.
        attempts: single pixels tried in turn from one A before the search ends.
        patience: steps without a progress of 1 % after which c is raised.

    Returns:
        The result; a failed image carries the iterate of largest margin. ``info["constant"]`` (N,) float32 is
        the c of the image handed back, inf where the goal was never reached; ``info["removals"]`` (N,) int64
        counts how often pixels were taken away and the goal was still reached; ``info["zero_gradient"]`` (N,) bool
        marks images where no usable gradient was found, at the start (they stay as they are) or later.

    References:
        Carlini & Wagner (2017), Towards evaluating the robustness of neural networks, Sec. VI-B.
    """
    search = _Elimination(
        schedule=Schedule(initial_const, largest_const, const_factor, steps, patience),
        confidence=checks.not_negative("confidence", confidence),
        learning_rate=checks.positive("learning_rate", learning_rate),
        share=checks.positive("share", share, most=1),
        attempts=checks.integer("attempts", attempts, least=1),
    )
    return run(search, model, images, labels, target=target, batch_size=batch_size)


class _Pixels(NamedTuple):
    """Which pixels of n images may change, and what is needed to go back."""

    x: Tensor  # (n, C, H, W), where the search is
    allowed: Tensor  # (n, H, W) bool, A
    base: Tensor  # (n, C, H, W), the image at the last success
    needed: Tensor  # (n, H, W) bool, the pixels it changes
    importance: Tensor  # (n, H, W), by which they are ranked; inf where not needed
    share: Tensor  # (n,), of them, that leaves at a time
    leave: Tensor  # (n,) int64, how many were taken away last
    spared: Tensor  # (n,) int64, how many, first in the ranking, have been tried alone, in vain
    done: Tensor  # (n,) bool, no pixel is left to try


class _Fewest(NamedTuple):
    """The iterate to hand back: of fewest pixels, then of least norm; before one attains the goal, of largest margin."""

    images: Tensor  # (n, C, H, W)
    l0: Tensor  # (n,) int64, more than there are pixels until the goal is attained
    l2: Tensor  # (n,), inf until then
    constant: Tensor  # (n,), its c; inf until then
    margin: Tensor  # (n,), in logits


class _State(NamedTuple):
    pixels: _Pixels
    adam: Adam
    trial: Trial
    best: _Fewest
    successes: Tensor  # (n,) int64
    queries: Tensor  # (n,) int64
    zero_gradient: Tensor  # (n,) bool

    @property
    def done(self) -> Tensor:
        return self.pixels.done


@dataclass(frozen=True)
class _Elimination(Iteration[_State]):
    schedule: Schedule
    confidence: float
    learning_rate: float
    share: float
    attempts: int

    def start(self, victim: Victim, batch: Batch) -> _State:
        """Begin at the clean image with every pixel allowed."""
        images, none = batch.images, torch.zeros_like(batch.labels)
        zero, never = torch.zeros_like(images[:, 0]), none.bool()
        everywhere = torch.ones_like(zero, dtype=torch.bool)
        share = torch.full_like(zero[:, 0, 0], self.share)
        unbounded = torch.full_like(share, torch.inf)
        pixels = images.shape[2] * images.shape[3]
        return _State(
            _Pixels(images, everywhere, images, everywhere, zero, share, none, none, never),
            Adam.zero(images),
            self.schedule.begin(batch.labels),
            _Fewest(images, none + pixels + 1, unbounded, unbounded, -unbounded),
            successes=none,
            queries=none,
            zero_gradient=never,
        )

    def advance(self, victim: Victim, batch: Batch, state: _State) -> _State:
        """Evaluate the iterate, keep it if it is the best so far, and step, raise c or take pixels away."""
        images, x, allowed, best = batch.images, state.pixels.x, state.pixels.allowed[:, None], state.best
        gradient, margin, attained = look(victim, x, batch.goal, self.confidence)
        change, constant = x - images, state.trial.constant
        l0 = (change != 0).any(dim=1).flatten(1).sum(dim=1)
        squared = change.square().flatten(1).sum(dim=1)
        l2 = squared.sqrt()
        never = best.l2.isinf()
        fewer = (l0 < best.l0) | ((l0 == best.l0) & (l2 < best.l2))
        better = torch.where(attained, fewer, never & (margin > best.margin))
        there = _Fewest(x, l0, l2, constant, margin)
        short = best._replace(images=x, margin=margin)

        loss = squared + constant * (self.confidence - margin).where(~attained, 0)
        trial, stalled, failed = self.schedule.judge(state.trial, loss, attained)
        useless = (gradient == 0).flatten(1).all(dim=1) & ~attained
        slope = (rows(constant, x) * gradient + 2 * change).where(allowed, 0)
        update, adam = state.adam.update(slope, state.trial.tried + 1, self.learning_rate)

        found = ~never | attained
        done = ~found & (failed | (useless & (l0 == 0)))
        pixels = state.pixels._replace(x=(x - update).clamp(0, 1).where(allowed, images), done=done)
        judged = ((attained | failed) & found).nonzero().squeeze(1)
        if len(judged):
            effect = (gradient * change)[judged]
            part = rows_of(state.pixels, judged)
            pixels = put(judged, self._take_away(images[judged], part, attained[judged], effect), pixels)
        return _State(
            pixels,
            select(attained | stalled, Adam.zero(x), adam),
            trial._replace(constant=trial.constant.where(~(attained | failed), self.schedule.first)),
            select(better, select(attained, there, short), best),
            state.successes + attained,
            state.queries + 1,
            state.zero_gradient | useless,
        )

    def finish(self, victim: Victim, batch: Batch, state: _State) -> Attempt:
        removals = (state.successes - 1).clamp(min=0)
        info = {"constant": state.best.constant, "removals": removals, "zero_gradient": state.zero_gradient}
        return Attempt(state.best.images, state.queries, info)

    def _take_away(self, images: Tensor, pixels: _Pixels, success: Tensor, effect: Tensor) -> _Pixels:
        """Return what is allowed after a success or, where ``success`` (n,) is False, a failure of A.

        ``effect`` (n, C, H, W) is gradient times change at ``pixels.x``.
        """
        size = (pixels.x - images).abs().amax(dim=1)
        needed = select(success, pixels.allowed & (size > 0), pixels.needed)
        base = select(success, pixels.x, pixels.base)
        worth = effect.abs().sum(dim=1).where(size >= VISIBLE, -1).where(needed, torch.inf)
        importance = select(success, worth, pixels.importance)

        left = needed.flatten(1).sum(dim=1)
        single = pixels.leave == 1
        share = torch.where(success | single, pixels.share, pixels.leave / (2 * left))
        invisible = (worth == -1).flatten(1).sum(dim=1).where(success, 0)
        leave = torch.maximum((share * left).long(), invisible).clamp(min=1).minimum((left - 1).clamp(min=1))
        spared = torch.where(success, 0, pixels.spared + single)
        rank = importance.flatten(1).argsort(dim=1, stable=True).argsort(dim=1)
        leaving = (rank >= spared[:, None]) & (rank < (spared + leave)[:, None])
        allowed = needed & ~leaving.view_as(needed)
        x = base.where(allowed[:, None], images)
        done = (left <= 1) | (spared >= left.clamp(max=self.attempts))
        return _Pixels(x, allowed, base, needed, importance, share, leave, spared, done)
