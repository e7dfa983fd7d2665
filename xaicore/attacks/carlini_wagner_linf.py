"""The Carlini-Wagner L-infinity attack: the smallest bound on the change of any value, by a falling threshold.

Carlini & Wagner (2017), Sec. VI-C::

    minimise c * max(confidence - margin(x'), 0) + sum_i max(abs(x'_i - x_i) - tau, 0),   x' in [0, 1],

with the margin by which the best wrong class leads the label (untargeted), or the target all others, in
logits. Whenever the goal is reached within tau, tau falls below the change found; where it is not, c grows. The
search goes on from where it is. Of the paper's three ways to stay in [0, 1] (Sec. V-B) this is the
projection: the objective is a smooth term plus one that separates over the values, so each Adam step on the
first is followed by the exact minimiser (proximal map) of the second and the box. A gradient step on both, as
in the published code, makes values jump around tau and leaves them inside it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.iteration import Batch, Iteration, rows, select
from xaicore.attacks.optimization import BETA_2, EPSILON, Adam, Best, Schedule, Trial, look
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks

FINEST = 0.01
"""The search ends when a fall of tau by this share or less fails."""

SMALLEST_TAU, ROUNDING = 1e-4, 2e-7
"""The least tau to begin with; and by what a change of tau may exceed it in float32."""


def cw_linf(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    confidence: float = 0.0,
    steps: int = 200,
    learning_rate: float = 3.0,
    initial_const: float = 1.0,
    largest_const: float = 20.0,
    const_factor: float = 20.0,
    decrease_factor: float = 0.9,
    patience: int = 10,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Let the threshold tau fall as long as the goal can be reached within it.

    Every iterate that reaches the goal is a candidate, the one of smallest L-infinity norm is kept. Three
    things differ from the published code. First, tau starts where the goal would be were the model linear, at
    (confidence - margin) / sum abs(grad margin), and doubles until the goal is reached. Second, when tau
    falls too far (no constant reaches the goal), its fall is halved, and the search goes on from the best
    candidate; it ends when a fall of less than 1 % fails, where the published code is content with 10 %.
    Third, an iterate that reaches the goal outside tau is drawn back to tau, and the step length falls with
    tau and its fall. One gradient is one query.

    Args:
        model, images, labels, target, batch_size: as in :mod:`xaicore.attacks`.
        confidence: margin to reach, in logits, at least 0.
        steps: Adam steps for one tau and c at most.
        learning_rate: of Adam, in units of tau, as long as tau falls by ``1 - decrease_factor``; it is halved
            when that fall is. Adam's steps are about that long in every value: at the default a value may
            cross the whole range that tau leaves it, which finds smaller changes than short steps do.
        initial_const: first c, greater than 0. A value leaves tau only where c times its gradient exceeds 1.
        largest_const: beyond it, c is not raised any further and tau has failed; at least ``initial_const``.
        const_factor: by which c grows when the goal is not reached, at least 1.01.
        decrease_factor: tau becomes this share of the change found, in (0, 0.99].
        patience: steps without a progress of 1 % after which c is raised.

    Returns:
        The result; a failed image carries the iterate of largest margin. ``info["constant"]`` (N,) float32 is
        the c at which the goal was last reached within tau, inf where it never was; ``info["zero_gradient"]``
        (N,) bool marks images where no usable gradient was found, at the start (they stay as they are)
        or later.

    References:
        Carlini & Wagner (2017), Towards evaluating the robustness of neural networks, Sec. VI-C.
        Parikh & Boyd (2014), Proximal algorithms, Sec. 4.2.
    """
    search = _FallingThreshold(
        schedule=Schedule(initial_const, largest_const, const_factor, steps, patience),
        confidence=checks.not_negative("confidence", confidence),
        learning_rate=checks.positive("learning_rate", learning_rate),
        decrease=checks.positive("decrease_factor", decrease_factor, most=1 - FINEST),
    )
    return run(search, model, images, labels, target=target, batch_size=batch_size)


class _State(NamedTuple):
    x: Tensor  # (n, C, H, W), where the search is
    adam: Adam
    at: Tensor  # (n,) int64, Adam steps since m and v were 0
    tau: Tensor  # (n,), the threshold
    fall: Tensor  # (n,), the share by which it falls next
    trial: Trial  # what happens at this tau and c
    worked: Tensor  # (n,), the c at which the goal was last reached within tau; inf before
    best: Best
    queries: Tensor  # (n,) int64
    zero_gradient: Tensor  # (n,) bool
    done: Tensor  # (n,) bool


@dataclass(frozen=True)
class _FallingThreshold(Iteration[_State]):
    schedule: Schedule
    confidence: float
    learning_rate: float
    decrease: float

    def start(self, victim: Victim, batch: Batch) -> _State:
        """Look at the clean image: its gradient gives the first tau and the first candidate."""
        images = batch.images
        gradient, margin, _ = look(victim, images, batch.goal, self.confidence)
        steepness = gradient.abs().flatten(1).sum(dim=1)
        nothing = steepness == 0
        tau = ((self.confidence - margin) / steepness).nan_to_num(1, 1, 1).clamp(SMALLEST_TAU, 1)
        none, unbounded = torch.zeros_like(batch.labels), torch.full_like(tau, torch.inf)
        return _State(
            x=(images - rows(tau, images) * gradient.sign()).clamp(0, 1),
            adam=Adam.zero(images),
            at=none,
            tau=tau,
            fall=torch.full_like(tau, 1 - self.decrease),
            trial=self.schedule.begin(batch.labels),
            worked=unbounded,
            best=Best(images, unbounded, margin),
            queries=none + 1,
            zero_gradient=nothing,
            done=nothing,
        )

    def advance(self, victim: Victim, batch: Batch, state: _State) -> _State:
        """Evaluate the iterate, keep it if it is the best so far, and step, or set tau or c anew."""
        images, x, tau, constant = batch.images, state.x, state.tau, state.trial.constant
        gradient, margin, attained = look(victim, x, batch.goal, self.confidence)
        change = (x - images).abs()
        linf = change.flatten(1).amax(dim=1)
        excess = (change - rows(tau, x)).clamp(min=0).flatten(1).sum(dim=1)
        loss = constant * (self.confidence - margin).where(~attained, 0) + excess

        best, better = state.best.updated(x, linf, margin, attained)
        within = attained & better & (linf <= tau + ROUNDING)
        worked = constant.where(within, state.worked)
        trial, stalled, failed = self.schedule.judge(state.trial, loss, within)
        again = worked.where(~worked.isinf(), self.schedule.first)
        too_far = failed & best.found
        fall = torch.where(too_far, state.fall / 2, state.fall)
        lower = best.size * (1 - fall)
        new_tau = torch.where(within | too_far, lower, torch.where(failed, 2 * tau, tau)).clamp(max=1)

        at = state.at + 1
        stepped, adam = self._step(images, state, torch.where(rows(attained, x), 0, gradient), at)
        kept = select(too_far, best.images, x)
        drawn = torch.minimum(torch.maximum(kept, images - rows(new_tau, x)), images + rows(new_tau, x))
        return _State(
            x=select(attained | too_far, drawn.clamp(0, 1), stepped),
            adam=select(stalled, Adam.zero(x), adam),
            at=at.where(~stalled, 0),
            tau=new_tau,
            fall=fall,
            trial=trial._replace(constant=torch.where(failed, again, trial.constant)),
            worked=worked,
            best=best,
            queries=state.queries + 1,
            zero_gradient=state.zero_gradient | (~attained & (gradient == 0).flatten(1).all(dim=1)),
            done=failed & torch.where(best.found, state.fall <= FINEST, tau >= 1),
        )

    def finish(self, victim: Victim, batch: Batch, state: _State) -> Attempt:
        info = {"constant": state.worked, "zero_gradient": state.zero_gradient}
        return Attempt(state.best.images, state.queries, info)

    def _step(self, images: Tensor, state: _State, gradient: Tensor, at: Tensor) -> tuple[Tensor, Adam]:
        """Return x after an Adam step on the margin's term and the proximal map of the others; and the optimiser.

        Adam divides by s_i, the root mean square of the gradient in value i, and is blind to the factor c; it is
        given the gradient without. A step at rate r is then one of length r / (c s_i) on the whole term, and by
        as much the proximal map brings a value outside tau back, at most to tau.
        """
        rate = self.learning_rate * state.tau * state.fall / (1 - self.decrease)
        update, adam = state.adam.update(gradient, at, rate)
        steepness = (adam.v / rows(1 - BETA_2**at, update)).sqrt() + EPSILON
        back = rows(rate / state.trial.constant, update) / steepness
        change = proximal(state.x - images - update, rows(state.tau, update), back, images)
        return (images + change).clamp(0, 1), adam


def proximal(change: Tensor, tau: Tensor, length: Tensor, images: Tensor) -> Tensor:
    """Return the u, elementwise, that minimises (u - change)^2 / 2 + length * max(abs(u) - tau, 0).

    Among those with ``images + u`` in [0, 1]; in one dimension that is the free minimiser brought into the range.

    Args:
        change: any shape, where a gradient step leads.
        tau: greater than 0, to broadcast.
        length: of the gradient step per unit of slope, at least 0, to broadcast.
        images: in [0, 1], of the shape of ``change``.
    """
    size = torch.minimum(change.abs(), torch.maximum(change.abs() - length, tau))
    return torch.minimum(torch.maximum(change.sign() * size, -images), 1 - images)
