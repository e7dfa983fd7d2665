r"""Normalised discounted cumulative gain of a prediction (Brama and Grinshpoun, Heat and Blur, 2020, Sec. 4, Eq. 3-7).

Top-1 accuracy does not tell a tiger shark taken for a white shark from one taken for a broom. Here the prediction for
a benign image grades all classes, and a prediction for its adversarial or cleaned version is judged as a ranking of
graded results. Logits can be negative, and then so are the relevances of Eq. 3; :data:`READINGS` are four ways out. What
else the paper leaves open is decided so: relevances are divided by their sum over the graded classes; both sums of
NDCG@k end after k places, where Eq. 7 divides by the sum over all graded classes whatever k; equal logits rank in the
order of classes. The base of the logarithm cancels.

Logits are (N, classes), finite, of two classes or more; ``coverage``, the probability that the graded classes may have
together, lies in (0, 1]. What is no floating-point tensor raises TypeError, anything else that does not fit ValueError.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xaicore.core import checks
from xaicore.core.errors import UserError

READINGS = ("all", "graded", "cut", "probabilities")
"""What a class is graded by: its logit less the least of all classes, less the least of the graded ones, its logit with
negative ones set to 0, which is Eq. 3 itself where none is negative, or its probability."""

GRAIN = 1e-12
"""Rounding of a sum of probabilities, so that a coverage of exactly 0.95, or of 1, is one."""


class Relevances(NamedTuple):
    """How a benign prediction grades the classes.

    Attributes:
        values: (N, classes) float64, at least 0 and summing to 1 over the graded classes, 0 for the others.
        counts: (N,) int64, how many classes are graded: K1 of Eq. 3.
    """

    values: Tensor
    counts: Tensor


def relevances(logits: Tensor, *, coverage: float = 0.99, reading: str = "all") -> Relevances:
    r"""Return the relevance of each class according to a benign image's logits.

    .. math:: R_j = \frac{g_j}{\sum_{i \le K} g_i}\ (j \le K), \quad
              K = \max \{k : \textstyle\sum_{j \le k} p_j \le \text{coverage}\}, \text{ at least } 1

    with the classes in descending order of their softmax probability p and :math:`g_j = l_j - \min l`, or what else
    ``reading``, one of :data:`READINGS`, makes of the logits. So the first class is always graded, and alone where its
    probability exceeds the coverage, then with 1 (Eq. 3).

    Returns:
        The relevances and the number of graded classes. Where no graded class has a g above 0, each has 1 / K.
    """
    values = _logits(logits, "logits")
    checks.one_of("reading", reading, READINGS)
    order, counts = _ranking(values, coverage)
    ranks = torch.arange(values.shape[1], device=values.device)
    shifted = _grades(values.gather(1, order), counts, reading)
    shifted = shifted.where(shifted[:, :1] > 0, 1)
    shifted = shifted.where(ranks < counts[:, None], 0)
    shares = shifted / shifted.sum(1, keepdim=True)
    return Relevances(torch.zeros_like(values).scatter(1, order, shares), counts)


def ndcg(
    reference_logits: Tensor,
    logits: Tensor,
    *,
    coverage: float = 0.99,
    k: int | None = None,
    reading: str = "all",
) -> Tensor:
    r"""Return the normalised discounted cumulative gain of predictions, judged by those for the benign images.

    .. math:: \frac{\mathrm{DCG}(\text{logits})}{\mathrm{DCG}(\text{reference})}, \quad
              \mathrm{DCG} = \sum_j \frac{2^{R_j} - 1}{\log(1 + j)}

    j is the place of a class in the order of the prediction, R its relevance by :func:`relevances`. A prediction's
    sum ends with its own coverage (K2 of Eq. 4): a class that it ranks beyond gains nothing (Eq. 4-7).

    Args:
        reference_logits: of the benign images.
        logits: of the same images attacked, cleaned or otherwise changed.
        coverage: of both predictions.
        k: end both sums after k places as well (NDCG@k, as in Fig. 5); None: coverage alone ends them.
        reading: as for :func:`relevances`.

    Returns:
        (N,) float64 in [0, 1]: 1 where the graded classes stand in the benign order, 0 where none of them appears.
    """
    reference, values = _logits(reference_logits, "reference_logits"), _logits(logits, "logits")
    checks.same_shape("reference_logits and logits", reference, values)
    if k is not None:
        checks.integer("k", k, least=1)
    graded = relevances(reference, coverage=coverage, reading=reading).values
    values = values.to(graded.device)
    places = values.shape[1] if k is None else k
    gained, ideal = (_gain(graded, *_ranking(of, coverage), places) for of in (values, reference))
    return (gained / ideal).clamp(max=1)


def _grades(ranked: Tensor, counts: Tensor, reading: str) -> Tensor:
    """Return g (N, classes) of logits that stand in descending order, the first ``counts`` (N,) of them graded."""
    if reading == "probabilities":
        return ranked.softmax(1)
    if reading == "cut":
        return ranked.clamp(min=0)
    return ranked - (ranked[:, -1:] if reading == "all" else ranked.gather(1, counts[:, None] - 1))


def _gain(relevances: Tensor, order: Tensor, counts: Tensor, places: int) -> Tensor:
    """Return the discounted cumulative gain (N,) of rankings ``order`` (N, classes) that end after ``counts`` (N,)."""
    places = min(places, order.shape[1])
    ranks = torch.arange(places, device=order.device)
    gains = torch.expm1(relevances.gather(1, order[:, :places]) * math.log(2)) / torch.log(2 + ranks.double())
    return gains.where(ranks < counts[:, None], 0).sum(1)


def _ranking(logits: Tensor, coverage: float) -> tuple[Tensor, Tensor]:
    """Return the classes (N, classes) in descending order, and how many of them (N,) the coverage takes in."""
    checks.positive("coverage", coverage, most=1)
    order = logits.argsort(dim=1, descending=True, stable=True)
    reached = logits.gather(1, order).softmax(1).cumsum(1)
    return order, (reached <= coverage + GRAIN).sum(1).clamp(min=1)


def _logits(values: Any, name: str) -> Tensor:
    logits = checks.finite(name, values, ("(N, classes)",)).double()
    if logits.shape[1] < 2:
        raise UserError(f"{name} must have at least two classes")
    return logits
