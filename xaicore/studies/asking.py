"""The control of an attack that knows its detector: the same search, which asks the detector but does not follow it.

What :func:`xaicore.detectors.adaptive_attack` has over an attack on the network alone is of two kinds: a gradient of the
detector, and many points from several starts, of which the first that the detector lets pass is kept. Here is the latter
without the former.
"""

from functools import partial

import torch
from torch import Tensor

from xaicore.attacks.balls import bound
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import randomness
from xaicore.detectors import Detector
from xaicore.detectors.adaptive import LARGEST, SMALLEST


def asking_attack(
    detector: Detector,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int,
    restarts: int,
    limit: float,
    seed: int = 0,
    batch_size: int | None = None,
) -> AttackResult:
    """Follow the network's gradient alone, and ask the detector at each point that fools the network.

    Starts, ball, and number and sizes of the steps are those of :func:`xaicore.detectors.adaptive_attack`, as are the
    arguments, the result and the point that is returned. Where that attack turns to the detector, this one goes on.
    """
    step = partial(
        _search, detector=detector, eps=eps, steps=steps, restarts=restarts, limit=limit, seed=seed
    )
    return run(step, detector.model, images, labels, target=None, index=None, batch_size=batch_size)


def _search(
    victim: Victim,
    images: Tensor,
    goal: Goal,
    index: Tensor,
    *,
    detector: Detector,
    eps: float,
    steps: int,
    restarts: int,
    limit: float,
    seed: int,
) -> Attempt:
    best, queries = images.clone(), torch.zeros_like(goal.labels)
    least = torch.full(goal.labels.shape, torch.inf, dtype=torch.float64, device=images.device)
    evaded = torch.zeros_like(goal.labels, dtype=torch.bool)
    low, high = bound(images, -eps), bound(images, eps)
    for restart in range(restarts):
        rows = (~evaded).nonzero()[:, 0]
        shares = randomness.uniform(seed, index[rows], torch.full_like(rows, restart), images.shape[1:])
        points = (low[rows] + (high - low)[rows] * shares).clamp_(low[rows], high[rows])
        for done in range(steps + 1):
            if not len(rows):
                break
            wanted = goal[rows]

            def towards(logits: Tensor, part: slice, wanted: Goal = wanted) -> Tensor:
                return wanted[part].score(logits)

            logits, way = victim.differentiate(points, towards)
            queries.index_add_(0, rows, torch.ones_like(rows))
            fooled = wanted.attained(logits)
            scores = torch.full_like(least[rows], torch.inf)
            if fooled.any():
                scores[fooled] = detector.score(points[fooled]).to(scores)
            better = scores < least[rows]
            best[rows[better]], least[rows[better]] = points[better], scores[better]
            size = eps * (LARGEST + (SMALLEST - LARGEST) * done / steps)
            points = (points + size * way.sign()).clamp_(low[rows], high[rows])
            passed = fooled & (scores <= limit)
            evaded[rows[passed]] = True
            rows, points = rows[~passed], points[~passed]
    return Attempt(best, queries, {"score": least, "evaded": evaded})
