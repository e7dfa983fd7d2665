"""An attack that knows the detector: it fools the network and then looks for the least suspicious way to do so.

A detector is worth what it stops of an attacker who knows it (Carlini and Wagner, Adversarial Examples Are Not Easily
Detected, 2017; Tramèr et al. 2020). The entropy of a histogram has no useful gradient and denoising has little more, so
none is taken through the detector here: from several successful starts the attack searches on at random, within the same
ball, and keeps a step where the network stays fooled and the score falls. That needs the detector's scores only, and so
serves against any :class:`~xaicore.detectors.Detector`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xaicore.attacks.balls import bound
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iterated_sign import Ascent
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks, randomness
from xaicore.detectors.base import Detector

SHARES = (0.02, 0.3)
"""The least and the greatest share of the pixels that one step of the search changes."""


def adaptive_attack(
    detector: Detector,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 0.3,
    steps: int = 20,
    starts: int = 4,
    generations: int = 20,
    candidates: int = 4,
    limit: float | None = None,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Fool the detector's network within an L-infinity ball and lower the detector's score below its limit.

    First ``starts`` runs of projected gradient descent from random points, in balls that grow up to ``eps``, every
    other one of which stops at its first success; of those that fool the network the least suspicious is kept. Then, in
    each generation, an image that is still flagged gets ``candidates`` copies in which a random share of the pixels
    either goes back to the clean image or anywhere in the ball; the least suspicious that fools the network is kept if
    its score is lower.

    Args:
        detector: fitted as far as its score needs it.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, the true classes.
        eps: largest change of a value, in (0, 1].
        steps: gradient steps of a start.
        starts: number of starts.
        generations: most rounds of the search; 0 only chooses among the starts.
        candidates: copies of an image in each of them.
        limit: the score at or below which an image is left alone; None: the limit of the detector's own rule.
        target: class to reach, or (N,) int64 of them; None to leave the true class.
        seed: with ``index``, the source of all randomness.
        index: (N,) int64, number of each image in its set; None counts from 0.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Returns:
        The result; ``success`` is that over the network alone. ``queries`` counts the attack's own passes of the
        network, not those within the detector. In ``info``: ``score`` (N,) float64 of the image returned; ``evaded``
        (N,) bool, where the network is fooled and the score is at most the limit; ``scored`` (N,) int64, how often the
        detector was asked.

    Raises:
        TypeError: an argument is of the wrong kind.
        UserError: shape, type, range, labels or a parameter does not fit, or the detector was not fitted.
    """
    if not isinstance(detector, Detector):
        raise TypeError(f"detector must be a Detector, not {type(detector).__name__}")
    search = RandomSearch(
        detector=detector,
        eps=checks.positive("eps", eps, most=1),
        steps=checks.integer("steps", steps, least=1),
        starts=checks.integer("starts", starts, least=1),
        generations=checks.integer("generations", generations, least=0),
        candidates=checks.integer("candidates", candidates, least=1),
        limit=detector.limit if limit is None else float(limit),
        seed=checks.integer("seed", seed, least=0),
    )
    return run(search, detector.model, images, labels, target=target, index=index, batch_size=batch_size)


@dataclass(frozen=True)
class RandomSearch:
    """The attack as a step of the base; see :func:`adaptive_attack` for the fields."""

    detector: Detector
    eps: float
    steps: int
    starts: int
    generations: int
    candidates: int
    limit: float
    seed: int

    def __call__(self, victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        """Run on images (n, C, H, W)."""
        best = _Best(self.detector, victim, images, goal)
        low, high = bound(images, -self.eps), bound(images, self.eps)
        everyone = torch.arange(len(images), device=images.device)
        for number in range(self.starts):
            radius = self.eps * (number + 1) / self.starts
            ascent = Ascent(
                eps=radius,
                steps=self.steps,
                step_size=2.5 * radius / self.steps,
                early_stop=number % 2 == 0,
                seed=self.seed + number,
                random_start=True,
            )
            attempt = ascent(victim, images, goal, index)
            best.queries += attempt.queries
            best.consider(everyone, attempt.adversarial)
        for generation in range(self.generations):
            active = (best.fooled & (best.score > self.limit)).nonzero()[:, 0]
            if not len(active):
                break
            copies = active.repeat_interleave(self.candidates)
            order = torch.arange(len(copies), device=copies.device) % self.candidates
            changed = self._changed(best.point[copies], images[copies], index[copies], order, generation)
            best.consider(copies, changed.clamp(low[copies], high[copies]))
        evaded = best.fooled & (best.score <= self.limit)
        info = {"score": best.score, "evaded": evaded, "scored": best.scored}
        return Attempt(best.point, best.queries, info)

    def _changed(
        self, points: Tensor, images: Tensor, index: Tensor, order: Tensor, generation: int
    ) -> Tensor:
        """Return copies in which some pixels go back to the image or anywhere in the ball."""
        changed = torch.empty_like(points)
        for row, (number, copy) in enumerate(zip(index.tolist(), order.tolist(), strict=True)):
            step = 1 + generation * self.candidates + copy
            draws = randomness.stream(self.seed, number, step, purpose=2)
            share = np.exp(draws.uniform(*np.log(SHARES)))
            chosen = torch.from_numpy(draws.random(points.shape[2:]) < share).to(points.device)
            shift = 0.0 if draws.random() < 0.5 else self.eps * draws.uniform(-1, 1, tuple(points.shape[1:]))
            replacement = images[row] + torch.as_tensor(shift, dtype=points.dtype, device=points.device)
            changed[row] = torch.where(chosen, replacement, points[row])
        return changed


class _Best:
    """The least suspicious point found for each image so far."""

    def __init__(self, detector: Detector, victim: Victim, images: Tensor, goal: Goal) -> None:
        self.detector, self.victim, self.goal = detector, victim, goal
        self.point = images.clone()
        self.fooled = torch.zeros_like(goal.labels, dtype=torch.bool)
        self.score = torch.full_like(goal.labels, torch.inf, dtype=torch.float64)
        self.queries, self.scored = torch.zeros_like(goal.labels), torch.zeros_like(goal.labels)

    def consider(self, rows: Tensor, points: Tensor) -> None:
        """Take over the ``points`` (m, C, H, W) that are better than those of the images ``rows`` (m,) have."""
        logits, goal = self.victim.logits(points), self.goal[rows]
        fools = goal.attained(logits) & goal.reached(logits)
        self.queries.index_add_(0, rows, torch.ones_like(rows))
        unsuccessful = ~self.fooled[rows] & ~fools
        self.point[rows[unsuccessful]] = points[unsuccessful]
        which = fools.nonzero()[:, 0]
        if not len(which):
            return
        scores = self.detector.score(points[which]).to(self.score)
        self.scored.index_add_(0, rows[which], torch.ones_like(which))
        for row, place, score in zip(rows[which].tolist(), which.tolist(), scores.tolist(), strict=True):
            if score < self.score[row]:
                self.score[row], self.fooled[row], self.point[row] = score, True, points[place]
