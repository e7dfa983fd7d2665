"""How well a score tells adversarial images from clean ones: ROC, its area, and the rate at a fixed false-alarm rate.

A higher score is more suspicious; adversarial images are the positives. Intervals draw the clean and the adversarial
images independently of each other (percentile bootstrap, as in :mod:`xaicore.metrics.intervals`). Where the groups
separate wholly, the interval of the area is the point 1: the bootstrap cannot know what it has not seen.

Scores are finite numbers, (n,) of the clean images and (m,) of the adversarial ones, at least one each. What are no
numbers raises TypeError; another shape, no score, NaN or infinite scores, or another argument out of range ValueError.
Intervals take the confidence ``level``, between 0 and 1, the number of draws ``n_resamples`` and the ``seed`` of the
generators of the draws, one for each group.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.metrics.checks import sample
from xaicore.metrics.intervals import Array, Interval, percentiles, proportion_ci, resampled


class RocCurve(NamedTuple):
    """The rates at every threshold, from none flagged to all.

    Attributes:
        false_positive_rate: (T,) share of the clean images flagged, ascending from 0 to 1.
        true_positive_rate: (T,) share of the adversarial images flagged, ascending from 0 to 1.
        thresholds: (T,) descending from infinity; an image is flagged where its score is at least the threshold.
    """

    false_positive_rate: Array
    true_positive_rate: Array
    thresholds: Array


class OperatingPoint(NamedTuple):
    """A detector at one threshold.

    Attributes:
        true_positive_rate: share of the adversarial images flagged.
        false_positive_rate: share of the clean images flagged, at most what was allowed.
        threshold: an image is flagged where its score is greater; minus infinity where all are.
    """

    true_positive_rate: float
    false_positive_rate: float
    threshold: float


def roc_curve(scores_clean: ArrayLike | Tensor, scores_adversarial: ArrayLike | Tensor) -> RocCurve:
    """Return the receiver operating characteristic, with a point for every distinct score."""
    from sklearn import metrics  # a second to import

    clean, adversarial = _scores(scores_clean, scores_adversarial)
    labels = np.repeat([0, 1], [len(clean), len(adversarial)])
    return RocCurve(*metrics.roc_curve(labels, np.concatenate([clean, adversarial]), drop_intermediate=False))


def auroc(scores_clean: ArrayLike | Tensor, scores_adversarial: ArrayLike | Tensor) -> float:
    """Return the area under the ROC curve: how often an adversarial image scores higher than a clean one.

    Returns:
        The area, in [0, 1]; a tie counts one half. 0.5 is chance; below it the score is the wrong way round.

    References:
        Hanley and McNeil, Radiology 143, 1982.
    """
    clean, adversarial = _levels(scores_clean, scores_adversarial)
    return float(_areas(clean[None], adversarial[None])[0])


def auroc_ci(
    scores_clean: ArrayLike | Tensor,
    scores_adversarial: ArrayLike | Tensor,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of :func:`auroc`."""
    groups = zip(_levels(scores_clean, scores_adversarial), _generators(seed), strict=True)
    return percentiles(resampled(_areas, *groups, n_resamples=n_resamples), level)


def tpr_at_fpr(
    scores_clean: ArrayLike | Tensor, scores_adversarial: ArrayLike | Tensor, *, fpr: float = 0.05
) -> OperatingPoint:
    """Return the detector with the lowest threshold that flags no more than a share of the clean images.

    With n clean images, floor(fpr·n) may be flagged. The threshold is the highest clean score after these, and only
    what is greater is flagged: where clean scores tie with it, fewer than allowed are.

    Args:
        scores_clean: from which alone the threshold comes.
        scores_adversarial: of which the rate is.
        fpr: the share of clean images that may be flagged, in [0, 1].
    """
    clean, adversarial = _scores(scores_clean, scores_adversarial)
    threshold = float(_thresholds(clean[None], _allowed(fpr, len(clean)))[0])
    return OperatingPoint(
        float((adversarial > threshold).mean()), float((clean > threshold).mean()), threshold
    )


def tpr_at_fpr_ci(
    scores_clean: ArrayLike | Tensor,
    scores_adversarial: ArrayLike | Tensor,
    *,
    fpr: float = 0.05,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of the true-positive rate of :func:`tpr_at_fpr`.

    The threshold is chosen anew in every draw, so the interval holds its uncertainty too.

    Returns:
        The interval; Wilson's for the m adversarial images where no draw differs from 0, or none from 1.
    """
    groups = _scores(scores_clean, scores_adversarial)
    allowed = _allowed(fpr, len(groups[0]))

    def rates(clean: Array, adversarial: Array) -> Array:
        return np.asarray((adversarial > _thresholds(clean, allowed)[:, None]).mean(1))

    drawn = resampled(rates, *zip(groups, _generators(seed), strict=True), n_resamples=n_resamples)
    if drawn.min() == drawn.max() and drawn[0] in (0.0, 1.0):
        return proportion_ci(int(drawn[0]) * len(groups[1]), len(groups[1]), level=level)
    return percentiles(drawn, level)


def separation(scores: ArrayLike, events: ArrayLike) -> float:
    """Return how well scores rank cases with an event above those without: the AUROC.

    Args:
        scores: any shape; NaN where undefined, which is left out.
        events: of the same shape, 1 with the event, 0 without; NaN where it does not apply, left out.

    Returns:
        The AUROC in [0, 1], ties counting one half; NaN where there is no case of either kind.

    Raises:
        UserError: the shapes differ.
    """
    score, event = np.asarray(scores, dtype=np.float64), np.asarray(events, dtype=np.float64)
    if score.shape != event.shape:
        raise UserError(f"scores and events must have one shape, not {score.shape} and {event.shape}")
    with_event, without = (score[np.isfinite(score) & (event == kind)] for kind in (1, 0))
    return auroc(without, with_event) if len(with_event) and len(without) else float("nan")


def _generators(seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2)]


def _scores(clean: ArrayLike | Tensor, adversarial: ArrayLike | Tensor) -> tuple[Array, Array]:
    return sample("scores_clean", clean), sample("scores_adversarial", adversarial)


def _levels(
    scores_clean: ArrayLike | Tensor, scores_adversarial: ArrayLike | Tensor
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each score's rank, from 0, among the distinct scores of both groups."""
    clean, adversarial = _scores(scores_clean, scores_adversarial)
    levels = np.unique(np.concatenate([clean, adversarial]), return_inverse=True)[1]
    return levels[: len(clean)], levels[len(clean) :]


def _areas(clean: NDArray[np.int64], adversarial: NDArray[np.int64]) -> Array:
    """Return the area (rows,) of levels (rows, n) and (rows, m): the mean share of clean scores below, ties half."""
    distinct = 1 + max(clean.max(), adversarial.max())
    counts = []
    for levels in (clean, adversarial):
        offsets = np.arange(len(levels))[:, None] * distinct
        counts.append(np.bincount((levels + offsets).ravel(), minlength=len(levels) * distinct))
    of_clean, of_adversarial = (count.reshape(-1, distinct) for count in counts)
    twice_below = 2 * of_clean.cumsum(1) - of_clean
    wins = np.einsum("ij,ij->i", twice_below, of_adversarial)
    return wins / (2 * clean.shape[1] * adversarial.shape[1])


def _allowed(fpr: float, n: int) -> int:
    checks.not_negative("fpr", fpr, most=1)
    return math.floor(fpr * n + 1e-9)  # 0.29 * 100 is a little less than 29


def _thresholds(clean: Array, allowed: int) -> Array:
    """Return the highest score (rows,) of clean ones (rows, n) after the ``allowed`` highest."""
    rows, n = clean.shape
    if allowed >= n:
        return np.full(rows, -np.inf)
    return np.asarray(np.partition(clean, n - 1 - allowed, axis=1)[:, n - 1 - allowed])
