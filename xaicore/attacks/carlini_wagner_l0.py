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

import torch
from torch import Tensor, nn

from xaicore.attacks.adam import adam
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.growing_constant import PROGRESS, schedule
from xaicore.attacks.lanes import State, goal, in_lanes, rows
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
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Take pixels away as long as the goal can be reached with those that are left.

    Every iterate that reaches the goal is a candidate; the one of fewest changed pixels is kept and, among these,
    the one of smallest L2 norm. The published code frees up to 0.3 * sqrt(len(A)) pixels at a time and ends at the
    first failure. Here a share of A leaves at a time; when the goal cannot be reached without them, the image goes
    back to its last success and the share is halved for good, down to a single pixel. When a single pixel cannot
    be spared, the next least important is tried instead. One gradient is one query.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits, K of at least 2.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, the true classes.
        confidence: margin to reach, in logits, at least 0.
        steps: Adam steps for one A and c at most.
        learning_rate: of Adam, in [0, 1] units of the image.
        initial_const: first c for each A, greater than 0.
        largest_const: beyond it, c is not raised any further and A has failed; at least ``initial_const``.
        const_factor: by which c grows when the goal is not reached, at least 1.01.
        share: of the pixels of A, how many leave at a time to begin with, in (0, 1]; at least one leaves.
        attempts: single pixels tried in turn from one A before the search ends.
        patience: steps without a progress of 1 % after which c is raised.
        target: class to reach, or (N,) int64 of them; None to leave the true class.
        seed: accepted so that all attacks can be called alike; nothing here is random.
        index: accepted so that all attacks can be called alike.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Returns:
        The result; a failed image carries the iterate of largest margin. ``info["constant"]`` (N,) float32 is
        the c of the image handed back, inf where the goal was never reached; ``info["removals"]`` (N,) int64
        counts how often pixels were taken away and the goal was still reached; ``info["zero_gradient"]`` (N,) bool
        marks images where no usable gradient was found, at the start (they stay as they are) or later.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shape, type, range, NaN, labels, target or a parameter do not fit.

    References:
        Carlini & Wagner (2017), Towards evaluating the robustness of neural networks, Sec. VI-B.
    """
    constant, largest, factor = schedule(initial_const, largest_const, const_factor)
    search = _Elimination(
        confidence=checks.not_negative("confidence", confidence),
        steps=checks.integer("steps", steps, least=1),
        learning_rate=checks.positive("learning_rate", learning_rate),
        constant=constant,
        largest=largest,
        factor=factor,
        share=checks.positive("share", share, most=1),
        attempts=checks.integer("attempts", attempts, least=1),
        patience=checks.integer("patience", patience, least=1),
    )
    checks.integer("seed", seed, least=0)

    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        return in_lanes(search, victim, images, goal, index)

    return run(step, model, images, labels, target=target, index=index, batch_size=batch_size)


@dataclass(frozen=True)
class _Elimination:
    """The attack as an iteration: one gradient per image and step.

    A is ``allowed`` (n, H, W). ``base``, ``needed`` (n, H, W) and ``importance`` (n, H, W; inf where not needed)
    are the image, its changed pixels and their ranking at the last success, to which a failure goes back.
    ``leave`` pixels were taken away last; the ``spared`` first in the ranking have been tried alone, in vain.
    """

    confidence: float
    steps: int
    learning_rate: float
    constant: float
    largest: float
    factor: float
    share: float
    attempts: int
    patience: int

    def start(self, victim: Victim, state: State) -> State:
        """Begin at the clean image with every pixel allowed."""
        images = state["images"]
        pixels = torch.ones_like(images[:, 0], dtype=torch.bool)
        nothing = torch.zeros_like(images)
        zero = torch.zeros(len(images), device=images.device)
        count = torch.zeros_like(state["labels"])
        return {
            "x": images,
            "m": nothing,
            "v": nothing,
            "allowed": pixels,
            "base": images,
            "needed": pixels,
            "importance": torch.zeros_like(images[:, 0]),
            "share": zero + self.share,
            "leave": count,
            "spared": count,
            "constant": zero + self.constant,
            "lowest": zero + torch.inf,
            "tried": count,
            "stuck": count,
            "best": images,
            "best_l0": count + images.shape[2] * images.shape[3] + 1,
            "best_l2": zero + torch.inf,
            "best_margin": zero - torch.inf,
            "worked": zero + torch.inf,
            "removals": count - 1,
            "queries": count,
            "zero_gradient": torch.zeros_like(state["done"]),
        }

    def advance(self, victim: Victim, state: State) -> State:
        """Evaluate the iterate, keep it if it is the best so far, and step, raise c or take pixels away."""
        images, x, constant, allowed = state["images"], state["x"], state["constant"], state["allowed"]
        logits, gradient = victim.differentiate(x, lambda rows, part: -goal(state)[part].margin(rows))
        gradient = gradient.nan_to_num(0, 0, 0)
        margin = goal(state).margin(logits).nan_to_num(-torch.inf, torch.inf, -torch.inf)
        attained = goal(state).attained(logits, self.confidence)

        change = x - images
        l0 = (change != 0).any(dim=1).flatten(1).sum(dim=1)
        squared = change.square().flatten(1).sum(dim=1)
        l2 = squared.sqrt()
        never = state["best_l2"].isinf()
        fewer = (l0 < state["best_l0"]) | ((l0 == state["best_l0"]) & (l2 < state["best_l2"]))
        better = torch.where(attained, fewer, never & (margin > state["best_margin"]))
        kept = attained & better
        found = ~never | attained

        loss = squared + constant * (self.confidence - margin).where(~attained, 0)
        progress = loss < (1 - PROGRESS) * state["lowest"]
        stuck = torch.where(progress, 0, state["stuck"] + 1)
        tried = state["tried"] + 1
        useless = (gradient == 0).flatten(1).all(dim=1) & ~attained
        stalled = ~attained & ((stuck >= self.patience) | (tried >= self.steps))
        failed = stalled & (constant * self.factor > self.largest)
        ended = attained | stalled

        slope = rows(constant, x) * gradient + 2 * change
        slope = slope.where(allowed[:, None], 0)
        update, m, v = adam(state["m"], state["v"], slope, tried, self.learning_rate)
        moved = {
            "x": (x - update).clamp(0, 1).where(allowed[:, None], images),
            "allowed": allowed,
            "done": ~found & (failed | (useless & (l0 == 0))),
        }
        judged = ((attained | failed) & found).nonzero().squeeze(1)
        if len(judged):
            part = {name: tensor[judged] for name, tensor in state.items()}
            taken = self._take_away(part, attained[judged], (gradient * change)[judged])
            for name, tensor in taken.items():
                moved[name] = moved.get(name, state[name]).clone()
                moved[name][judged] = tensor
        return {
            **moved,
            "m": m.where(rows(~ended, m), 0),
            "v": v.where(rows(~ended, v), 0),
            "constant": torch.where(stalled & ~failed, constant * self.factor, constant).where(
                ~(attained | failed), self.constant
            ),
            "lowest": torch.where(ended, torch.inf, loss.where(progress, state["lowest"])),
            "tried": tried.where(~ended, 0),
            "stuck": stuck.where(~ended, 0),
            "best": x.where(rows(better, x), state["best"]),
            "best_l0": l0.where(kept, state["best_l0"]),
            "best_l2": l2.where(kept, state["best_l2"]),
            "best_margin": margin.where(better, state["best_margin"]),
            "worked": constant.where(kept, state["worked"]),
            "removals": state["removals"] + attained,
            "queries": state["queries"] + 1,
            "zero_gradient": state["zero_gradient"] | useless,
        }

    def finish(self, victim: Victim, state: State) -> Attempt:
        """Return the candidate kept."""
        info = {
            "constant": state["worked"],
            "removals": state["removals"].clamp(min=0),
            "zero_gradient": state["zero_gradient"],
        }
        return Attempt(state["best"], state["queries"], info)

    def _take_away(self, state: State, success: Tensor, effect: Tensor) -> State:
        """Return the entries that change after a success or, where ``success`` (n,) is False, a failure of A.

        Args:
            state: of the images concerned, one of them at least.
            success: (n,) bool.
            effect: (n, C, H, W), gradient times change at ``state["x"]``.
        """
        images, x = state["images"], state["x"]
        size = (x - images).abs().amax(dim=1)
        needed = torch.where(rows(success, size), state["allowed"] & (size > 0), state["needed"])
        base = torch.where(rows(success, x), x, state["base"])
        worth = effect.abs().sum(dim=1).where(size >= VISIBLE, -1).where(needed, torch.inf)
        importance = torch.where(rows(success, worth), worth, state["importance"])

        left = needed.flatten(1).sum(dim=1)
        single = state["leave"] == 1
        share = torch.where(success | single, state["share"], state["leave"] / (2 * left))
        invisible = (worth == -1).flatten(1).sum(dim=1).where(success, 0)
        leave = torch.maximum((share * left).long(), invisible).clamp(min=1).minimum((left - 1).clamp(min=1))
        spared = torch.where(success, 0, state["spared"] + single)
        rank = importance.flatten(1).argsort(dim=1, stable=True).argsort(dim=1)
        leaving = (rank >= spared[:, None]) & (rank < (spared + leave)[:, None])
        allowed = needed & ~leaving.view_as(needed)
        return {
            "x": base.where(allowed[:, None], images),
            "allowed": allowed,
            "base": base,
            "needed": needed,
            "importance": importance,
            "share": share,
            "leave": leave,
            "spared": spared,
            "done": (left <= 1) | (spared >= left.clamp(max=self.attempts)),
        }
