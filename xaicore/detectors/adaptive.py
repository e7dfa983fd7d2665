"""An attack that knows the detector: it fools the network and then looks for the least suspicious way to do so.

A detector is worth what it stops of an attacker who knows it (Carlini and Wagner, Adversarial Examples Are Not Easily
Detected, 2017; Tramèr et al. 2020). The entropy of a histogram has no useful gradient and denoising has little more, so
none is taken through the detector here: from several successful starts the attack searches on at random, within the same
ball, and keeps a step where the network stays fooled and the score falls. That needs the detector's scores only, and so
serves against any :class:`~xaicore.detectors.Detector`.
"""

from functools import partial

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
    """
    if not isinstance(detector, Detector):
        raise TypeError(f"detector must be a Detector, not {type(detector).__name__}")
    step = partial(
        _search,
        detector=detector,
        eps=checks.positive("eps", eps, most=1),
        steps=checks.integer("steps", steps, least=1),
        starts=checks.integer("starts", starts, least=1),
        generations=checks.integer("generations", generations, least=0),
        candidates=checks.integer("candidates", candidates, least=1),
        limit=detector.limit if limit is None else float(limit),
        seed=checks.integer("seed", seed, least=0),
    )
    return run(step, detector.model, images, labels, target=target, index=index, batch_size=batch_size)


def _search(
    victim: Victim,
    images: Tensor,
    goal: Goal,
    index: Tensor,
    *,
    detector: Detector,
    eps: float,
    steps: int,
    starts: int,
    generations: int,
    candidates: int,
    limit: float,
    seed: int,
) -> Attempt:
    """The attack as a step of the base: keeps the least suspicious point found for each image so far."""
    best, fooled = images.clone(), torch.zeros_like(goal.labels, dtype=torch.bool)
    score = torch.full_like(goal.labels, torch.inf, dtype=torch.float64)
    queries, scored = torch.zeros_like(goal.labels), torch.zeros_like(goal.labels)

    def consider(rows: Tensor, points: Tensor) -> None:
        """Take over the ``points`` (m, C, H, W) that are better than those of the images ``rows`` (m,) have."""
        logits, wanted = victim.logits(points), goal[rows]
        fools = wanted.attained(logits) & wanted.reached(logits)
        queries.index_add_(0, rows, torch.ones_like(rows))
        unsuccessful = ~fooled[rows] & ~fools
        best[rows[unsuccessful]] = points[unsuccessful]
        which = fools.nonzero()[:, 0]
        if not len(which):
            return
        scores = detector.score(points[which]).to(score)
        scored.index_add_(0, rows[which], torch.ones_like(which))
        for row, place, value in zip(rows[which].tolist(), which.tolist(), scores.tolist(), strict=True):
            if value < score[row]:
                score[row], fooled[row], best[row] = value, True, points[place]

    for number in range(starts):
        radius = eps * (number + 1) / starts
        ascent = Ascent(
            eps=radius,
            steps=steps,
            step_size=2.5 * radius / steps,
            early_stop=number % 2 == 0,
            seed=seed + number,
            random_start=True,
        )
        attempt = ascent(victim, images, goal, index)
        queries += attempt.queries
        consider(torch.arange(len(images), device=images.device), attempt.adversarial)
    low, high = bound(images, -eps), bound(images, eps)
    for generation in range(generations):
        rows = (fooled & (score > limit)).nonzero()[:, 0].repeat_interleave(candidates)
        if not len(rows):
            break
        points = best[rows]
        for copy, row in enumerate(rows.tolist()):
            number = 1 + generation * candidates + copy % candidates
            draws = randomness.stream(seed, int(index[row]), number, purpose=2)
            share = np.exp(draws.uniform(*np.log(SHARES)))
            chosen = torch.from_numpy(draws.random(points.shape[2:]) < share).to(points.device)
            shift = 0.0 if draws.random() < 0.5 else eps * draws.uniform(-1, 1, tuple(points.shape[1:]))
            replacement = images[row] + torch.as_tensor(shift, dtype=points.dtype, device=points.device)
            points[copy] = torch.where(chosen, replacement, points[copy])
        consider(rows, points.clamp(low[rows], high[rows]))
    return Attempt(best, queries, {"score": score, "evaded": fooled & (score <= limit), "scored": scored})
