"""An attack that knows the detector: gradient descent on the network's margin and the detector's score at once.

A detector is worth what it stops of an attacker who knows it (Carlini and Wagner, Adversarial Examples Are Not Easily
Detected, 2017; Tramèr et al., On Adaptive Attacks, 2020). Gradient descent has two ends here, a wrong answer and
a score at most the limit, and their gradients may point against each other. Restarts take turns with three ways to join
them, the last two of Bryniarski, Hingun, Pachuca, Wang and Carlini (Evading Adversarial Example Detection Defenses with
Orthogonal Projected Gradient Descent, ICLR 2022, Sec. 3):

- *sum*: both gradients, each of length one; an end that is reached is left out;
- *selective*: the network's while the answer is right, the detector's while it is wrong;
- *orthogonal*: as selective, less its component along the other gradient.
"""

from functools import partial

import torch
from torch import Tensor

from xaicore.attacks.balls import bound, normalised
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import rows as as_rows
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks, randomness
from xaicore.detectors.base import Detector
from xaicore.detectors.surrogates import differentiable_score

STRATEGIES = ("sum", "selective", "orthogonal")
"""In the order in which restarts take them."""
LARGEST, SMALLEST = 0.25, 0.01
"""Of a step, from the first to the last, in radii of the ball."""


def adaptive_attack(
    detector: Detector,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 0.3,
    steps: int = 50,
    restarts: int = 3,
    limit: float | None = None,
    follow: bool = True,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Fool the detector's network within an L-infinity ball and bring the detector's score down to its limit.

    Each restart begins at a random point of the ball and takes sign steps that shrink. An image is done as soon as it
    fools the network and the detector itself gives it a score of at most the limit; of those that never do, the least
    suspicious point that fools the network is returned. Until its first wrong answer a point follows the network's
    gradient alone.

    Args:
        detector: fitted as far as its score needs it, with a surrogate (:mod:`xaicore.detectors.surrogates`).
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, the true classes.
        eps: largest change of a value, in (0, 1].
        steps: gradient steps of a restart.
        restarts: number of random starts; image by image as many as it takes.
        limit: the score at or below which an image is left alone; None: the limit of the detector's own rule.
        follow: the detector's gradient. False is the control: the same starts, steps and questions to the detector, but
            of gradients the network's alone, also where the answer is wrong; no surrogate is needed.
        target: class to reach, or (N,) int64 of them; None to leave the true class.
        seed: with ``index``, the source of all randomness.
        index: (N,) int64, number of each image in its set; None counts from 0.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Returns:
        The result; ``success`` is that over the network alone. ``queries`` counts gradients of the network, not the
        passes within the detector. In ``info``: ``score`` (N,) float64, the detector's, of the image returned, infinite
        where no point fooled the network; ``evaded`` (N,) bool, where the network is fooled and the score is at most
        the limit.

    Raises:
        UserError: the detector has no surrogate, and its gradient is to be followed.
    """
    if not isinstance(detector, Detector):
        raise TypeError(f"detector must be a Detector, not {type(detector).__name__}")
    step = partial(
        _search,
        detector=detector,
        eps=checks.positive("eps", eps, most=1),
        steps=checks.integer("steps", steps, least=1),
        restarts=checks.integer("restarts", restarts, least=1),
        limit=detector.limit if limit is None else float(limit),
        follow=checks.flag("follow", follow),
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
    restarts: int,
    limit: float,
    follow: bool,
    seed: int,
) -> Attempt:
    """The attack as a step of the base: keeps the least suspicious point found for each image so far."""
    best, queries = images.clone(), torch.zeros_like(goal.labels)
    least = torch.full(goal.labels.shape, torch.inf, dtype=torch.float64, device=images.device)
    evaded = torch.zeros_like(goal.labels, dtype=torch.bool)
    low, high = bound(images, -eps), bound(images, eps)
    for restart in range(restarts):
        rows = (~evaded).nonzero()[:, 0]
        shares = randomness.uniform(seed, index[rows], torch.full_like(rows, restart), images.shape[1:])
        points = (low[rows] + (high - low)[rows] * shares).clamp_(low[rows], high[rows])
        met = torch.zeros_like(rows, dtype=torch.bool)
        for done in range(steps + 1):
            if not len(rows):
                break
            wanted = goal[rows]

            def towards(logits: Tensor, part: slice, wanted: Goal = wanted) -> Tensor:
                return wanted[part].score(logits)

            logits, upwards = victim.differentiate(points, towards)
            queries.index_add_(0, rows, torch.ones_like(rows))
            fooled = wanted.attained(logits)
            scores, downwards = torch.full_like(least[rows], torch.inf), torch.zeros_like(points)
            if follow:
                met |= fooled
                scores[met], slopes = _scored(detector, points[met], victim.batch_size)
                downwards[met] = -slopes
            elif fooled.any():
                scores[fooled] = detector.score(points[fooled]).to(scores)
            better = fooled & (scores < least[rows])
            best[rows[better]], least[rows[better]] = points[better], scores[better]
            quiet = fooled & (scores <= limit)
            if (
                follow and quiet.any()
            ):  # the surrogate's value can differ from the detector's in the last bits
                quiet[quiet.clone()] = (detector.score(points[quiet]) <= limit).to(quiet.device)
            best[rows[quiet]], evaded[rows[quiet]] = points[quiet], True
            if done < steps:
                way = upwards
                if follow:
                    strategy = STRATEGIES[restart % len(STRATEGIES)]
                    way = _joined(strategy, upwards, downwards, fooled, scores <= limit)
                size = eps * (LARGEST + (SMALLEST - LARGEST) * done / steps)
                points = (points + size * way.sign()).clamp_(low[rows], high[rows])
            rows, points, met = rows[~quiet], points[~quiet], met[~quiet]
    fooled = least.isfinite()
    if fooled.any():
        least[fooled] = detector.score(best[fooled]).to(least)
    return Attempt(best, queries, {"score": least, "evaded": fooled & (least <= limit)})


def _joined(strategy: str, network: Tensor, detector: Tensor, fooled: Tensor, quiet: Tensor) -> Tensor:
    """Return where to go (n, C, H, W) from the directions to a wrong answer and to a lower score.

    Args:
        strategy: one of :data:`STRATEGIES`.
        network: changed in place, as ``detector``.
        detector: see ``network``.
        fooled: (n,) where the answer is wrong already.
        quiet: (n,) where the score is at most the limit already.
    """
    network, detector = normalised(network, 2), normalised(detector, 2)
    if strategy == "sum":
        return network * as_rows(~fooled, network) + detector * as_rows(~quiet, detector)
    along = (
        (network * detector).sum((1, 2, 3)) if strategy == "orthogonal" else torch.zeros_like(fooled).float()
    )
    return torch.where(
        as_rows(fooled, network),
        detector - as_rows(along, network) * network,
        network - as_rows(along, network) * detector,
    )


def _scored(detector: Detector, images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return scores (n,) float64 and their slopes (n, C, H, W), in batches of exactly ``size``."""
    scores, slopes = [torch.empty(0, dtype=torch.float64, device=images.device)], [images[:0]]
    filled = torch.cat([images, images.new_zeros(-len(images) % size, *images.shape[1:])])
    for part in filled.split(size) if len(images) else ():
        with torch.enable_grad():
            found = differentiable_score(detector, part.requires_grad_())
            known = found.requires_grad
            slopes.append(torch.autograd.grad(found.sum(), part)[0] if known else torch.zeros_like(part))
        scores.append(found.detach().double())
    return torch.cat(scores)[: len(images)], torch.cat(slopes)[: len(images)].nan_to_num_()
