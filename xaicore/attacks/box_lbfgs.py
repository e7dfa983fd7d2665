"""Box-constrained L-BFGS: the attack that first found adversarial examples (Szegedy et al. 2014, Sec. 4.1).

For a constant c it minimises, over perturbations r that keep the image in its range::

    |r|^2 + c * loss(x + r)    subject to    0 <= x + r <= 1 ,

and looks for the smallest c whose minimum reaches the goal: c is raised until it does, then bisected, image by
image. (The paper puts the constant at the norm; the minima are the same.) The loss is the cross-entropy of the
target, -log p_target; without a target it is -log(1 - p_label), which is bounded below, as -(-log p_label) would
not be. Both are softplus(-s), where s is the score of :class:`xaicore.attacks.goal.Goal`, the log-odds; computed in
float64 from the logits, they keep their gradient however far the goal is. A confidence shifts them:
softplus(confidence - s).

The minimiser is scipy's L-BFGS-B, one for each image, each in a thread of its own until it needs the model; when all
of them wait, one pass of the model serves them together. It sees r in units of rho = (confidence - margin) /
abs(gradient of s) at the image, the distance to the border if the logits were linear: the solution is then of length
about 1, for digits and photographs alike, and one tolerance serves all.
"""

import math
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks

Array = NDArray[np.float64]
Candidate = NDArray[np.float32]

SHORTEST = 1e-5
"""Least length of the first guess of a perturbation, as a share of the diagonal of the box."""

FACTOR = 4.0
"""By which c grows until the minimum reaches the goal, or shrinks until it does not."""

TOLERANCE = 1e-4
"""A minimisation ends when a step lowers the objective by less than this share. The loss comes from a float32
network, whose noise is some 1e-6 of it: a smaller share would have line searches follow the noise."""

LOSS_AT_BORDER = math.log(2)
"""The loss at log-odds of 0. It is taken off the objective: where logits differ by little, c is large, and c log 2
would swamp what a step changes, of which the tolerance is a share."""

ENOUGH = 0.01
"""The search ends when no other c can shorten the perturbation by more than this share."""


def lbfgs(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    initial_const: float | None = None,
    search_steps: int = 12,
    iterations: int = 100,
    confidence: float = 0.0,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Minimise the squared L2 norm of the perturbation plus a searched constant times the cross-entropy.

    Every point at which the model is evaluated lies in [0, 1]; every one that reaches the goal is a candidate, and
    the one of smallest L2 is kept. A minimisation starts where the last that reached the goal ended, or, before
    any did, where the last one ended. The minimum of a c that is too small is shorter than any perturbation that
    reaches the goal (if both minima are global): the search ends early when the best one found is at most 1 %
    longer than that.

    The model has the share of the time that its gradients cost; beside them L-BFGS-B spends, on a colour image of
    224 x 224, about as much as several gradients on one CPU core to set up each minimisation, also when the model
    is on a GPU, and holds 25 float64 copies of each image in work.

    Args:
        model, images, labels, target, batch_size: as in :mod:`xaicore.attacks`; of ``batch_size`` are also the threads.
        initial_const: first c tried, greater than 0. None takes it from the image: 2 rho / abs(gradient of s), at
            which the minimum would lie at the border if the loss were linear.
        search_steps: most constants tried for an image, those of raising c among them.
        iterations: most iterations of L-BFGS-B for one constant.
        confidence: least margin, in logits, by which the goal must be reached; at least 0.

    Returns:
        The result. An image that fails is the point of largest margin among those evaluated. ``queries`` counts
        the evaluations of the loss with its gradient. ``info``, each (N,): ``constant`` (float32) is the c in
        whose minimisation the result was found, NaN at failure; ``searches`` (int64) how many constants were
        tried; ``zero_gradient`` (bool) marks images with a point short of the goal where the gradient was zero
        or not finite everywhere; when this point is the image itself, it stays as it is.

    References:
        Szegedy, Zaremba, Sutskever, Bruna, Erhan, Goodfellow & Fergus (2014), Intriguing properties of neural
        networks, Sec. 4.1. Zhu, Byrd, Lu & Nocedal (1997), Algorithm 778: L-BFGS-B.
    """
    search = partial(
        _Search,
        initial_const=None if initial_const is None else checks.positive("initial_const", initial_const),
        search_steps=checks.integer("search_steps", search_steps, least=1),
        iterations=checks.integer("iterations", iterations, least=1),
        confidence=checks.not_negative("confidence", confidence),
    )

    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        ended = _together(victim, images, goal, search)
        found = [one.closest if one.nearest is None else one.nearest for one in ended]
        adversarial = torch.from_numpy(np.stack(found)).view(images.shape) if found else images
        info = {
            "constant": torch.tensor([one.constant for one in ended], dtype=torch.float32),
            "searches": torch.tensor([one.searches for one in ended], dtype=torch.int64),
            "zero_gradient": torch.tensor([one.zero_gradient for one in ended], dtype=torch.bool),
        }
        queries = torch.tensor([one.queries for one in ended], dtype=torch.int64)
        return Attempt(adversarial.to(images.device), queries, info)

    return run(step, model, images, labels, target=target, batch_size=batch_size)


class _Point(NamedTuple):
    """What the model says at a candidate. The gradient (C*H*W,) of the loss is 0 where it is not finite."""

    loss: float
    gradient: Candidate
    margin: float
    attained: bool


_Question = tuple[int, Candidate, "Future[_Point]"]
"""The row of an image under attack, the candidate (C*H*W,), and where the answer goes."""


def _together(victim: Victim, images: Tensor, goal: Goal, search: "partial[_Search]") -> list["_Search"]:
    """Attack each of ``images`` (n, C, H, W); only the caller's thread touches the model.

    ``victim.batch_size`` searches run at a time, and the model answers when all of these wait. A message is a question
    or, None, the end of a search.
    """
    messages: SimpleQueue[_Question | None] = SimpleQueue()
    pool = ThreadPoolExecutor(victim.batch_size)
    searches: list[Future[_Search]] = []
    asked: list[_Question] = []

    def ask(row: int, candidate: Candidate) -> _Point:
        answer: Future[_Point] = Future()
        messages.put((row, candidate, answer))
        return answer.result()

    try:
        for row, image in enumerate(images.flatten(1).cpu().numpy()):
            searches.append(pool.submit(lambda *given: search(*given).run(), partial(ask, row), image))
            searches[-1].add_done_callback(lambda _: messages.put(None))
        unfinished = len(searches)
        while unfinished:
            while len(asked) < min(victim.batch_size, unfinished):
                if (message := messages.get()) is None:
                    unfinished -= 1
                else:
                    asked.append(message)
            if asked:
                asked.sort(key=lambda question: question[0])
                for point in _evaluate(victim, images.shape[1:], goal, search.keywords["confidence"], asked):
                    asked.pop(0)[2].set_result(point)
        return [each.result() for each in searches]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        while not all(each.done() for each in searches):
            message = asked.pop() if asked else messages.get()
            if message is not None:
                with suppress(InvalidStateError):  # it was answered before the interrupt
                    message[2].set_exception(CancelledError())
        pool.shutdown()


def _evaluate(
    victim: Victim, shape: torch.Size, goal: Goal, confidence: float, asked: list[_Question]
) -> list[_Point]:
    """Answer questions, one for each of some images (C, H, W), in one pass."""
    wanted = goal[torch.tensor([row for row, _, _ in asked], device=victim.device)]
    batch = torch.from_numpy(np.stack([candidate for _, candidate, _ in asked]))

    def loss(logits: Tensor, part: slice) -> Tensor:
        return torch.nn.functional.softplus(confidence - wanted[part].score(logits.double()))

    logits, gradients = victim.differentiate(batch.view(-1, *shape).to(victim.device), loss)
    attained = wanted.attained(logits, confidence) & logits.isfinite().all(dim=1)
    losses, margins = loss(logits, slice(None)).tolist(), wanted.margin(logits).tolist()
    rows = gradients.nan_to_num(0, 0, 0).flatten(1).cpu().numpy()
    return list(map(_Point, losses, rows, margins, attained.tolist()))


class _End(NamedTuple):
    """Where a minimisation ended: r / rho there, the objective (half of it, by rho^2), the model's answer."""

    place: Array
    value: float
    point: _Point


@dataclass
class _Search:
    """The attack on one image, with the parameters of :func:`lbfgs`."""

    ask: Callable[[Candidate], _Point]
    closest: (
        Candidate  # (C*H*W,), first the image, then of the points short of the goal that of largest margin
    )
    initial_const: float | None
    search_steps: int
    iterations: int
    confidence: float
    margin: float = -math.inf  # of ``closest``
    nearest: Candidate | None = None  # of the points that reach the goal
    distance: float = math.inf  # of ``nearest`` from the image
    constant: float = math.nan  # the c that led to ``nearest``
    queries: int = 0
    searches: int = 0
    zero_gradient: bool = False

    def run(self) -> "_Search":
        """Raise, lower and bisect the constant."""
        self.image = self.closest.astype(np.float64)
        point = self._at(self.closest)
        slope = math.sqrt(point.gradient @ point.gradient.astype(np.float64))
        if slope == 0:
            return self
        slope /= -math.expm1(-point.loss)  # of the log-odds: softplus(u) has the slope 1 - exp(-softplus(u))
        diagonal = math.sqrt(self.image.size)
        rho = min(max((self.confidence - point.margin) / slope, SHORTEST * diagonal), diagonal)
        bounds = np.stack([-self.image, 1 - self.image], axis=1) / rho
        constant = 2 * rho / slope if self.initial_const is None else self.initial_const
        start = _End(np.zeros_like(self.image), 0.0, point)
        low, high, short = 0.0, math.inf, 0.0
        while self.searches < self.search_steps:
            self.searches += 1
            before = self.distance
            end = self._minimise(start, constant, rho, bounds)
            if self.distance < before:
                self.constant = constant
            if end.point.attained:
                high, start = constant, end
            else:
                low, short = constant, rho * math.sqrt(end.place @ end.place)
                start = start if high < math.inf else end
            if high < math.inf and self.distance <= (1 + ENOUGH) * short:
                break
            if high == math.inf:
                constant *= FACTOR
            elif low == 0:
                constant /= FACTOR
            else:
                constant = math.sqrt(low * high)
        return self

    def _minimise(self, start: _End, constant: float, rho: float, bounds: Array) -> _End:
        """Return the lowest point that L-BFGS-B finds from ``start``, however it comes to an end.

        Where the line search fails in the noise, scipy ends with a warning flag at a point as good as any near it.
        """
        weight = constant / rho**2
        worst = float(start.place @ start.place) + weight * abs(start.point.loss - LOSS_AT_BORDER) + 1
        lowest = _End(start.place, math.inf, start.point)

        def objective(place: Array) -> tuple[float, Array]:
            nonlocal lowest
            if np.array_equal(place, start.place):
                point = start.point
            else:
                point = self._at(np.clip(self.image + rho * place, 0, 1).astype(np.float32))
            if not math.isfinite(point.loss):
                return worst, place.copy()
            value = float(place @ place + weight * (point.loss - LOSS_AT_BORDER)) / 2
            if value < lowest.value:
                lowest = _End(place.copy(), value, point)
            return value, place + np.multiply(rho * weight / 2, point.gradient, dtype=np.float64)

        factr = TOLERANCE / np.finfo(np.float64).eps
        fmin_l_bfgs_b(objective, start.place, bounds=bounds, factr=factr, pgtol=0, maxiter=self.iterations)
        return lowest

    def _at(self, candidate: Candidate) -> _Point:
        point = self.ask(candidate)
        self.queries += 1
        if point.attained:
            distance = float(np.linalg.norm(candidate - self.image))
            if distance < self.distance:
                self.nearest, self.distance = candidate, distance
        else:
            self.zero_gradient |= not point.gradient.any()
            if point.margin > self.margin:
                self.closest, self.margin = candidate, point.margin
        return point
