r"""What MOD measures: the shift of Grad-CAM maps taken apart by whether the answer stayed.

A Grad-CAM map is drawn for the predicted class (Chakraborty et al. 2022, Sec. 4.4, compare such maps), so an image whose
answer has changed has the map of another class. Beside each of these stands the *class alone*: the clean image's map for
the class that the attacked one was given. And beside all stand maps of two different people. Arrays have a row for each
image and a column for each attack size; NISSIM is in [0, 1], NaN where a map is empty or the case does not occur.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xaicore import attribution, metrics
from xaicore.metrics import shift
from xaicore.studies import steps

if TYPE_CHECKING:
    from xaicore.metrics import Estimate
    from xaicore.models import Classifier
    from xaicore.run.engine import Engine

Array = NDArray[np.float64]
BATCH = 64
"""Images whose maps are drawn at once."""


class Regions(NamedTuple):
    """Where the maps of several versions of each image lie, (N, V) float64 each; NaN where a map is empty.

    Attributes:
        area: share of the image above half of the map's maximum.
        middle: share of the map's sum in the middle half of height and width.
        rank: Spearman's correlation with the map of the first version.
    """

    area: Array
    middle: Array
    rank: Array


class Seen(NamedTuple):
    """What a network makes of V versions of each image, (N, V) each.

    Attributes:
        answer: int64, the predicted classes.
        changed: bool, whether they are others than that of the image itself.
        shift: NISSIM between the map of the image and that of the version, each drawn for its own answer.
        alone: the class alone, :func:`class_shift`; NaN where the answer stayed.
        held: NISSIM with both maps drawn for the answer to the image; None where not asked for.
    """

    answer: Tensor
    changed: NDArray[np.bool_]
    shift: Array
    alone: Array
    held: Array | None


def seen(
    engine: Engine,
    model: Classifier,
    images: Tensor,
    versions: Mapping[str, Tensor],
    *,
    layer: str,
    title: str,
    held: Collection[str] = (),
) -> dict[str, Seen]:
    """Return what a network makes of several kinds of ``versions`` (N, V, C, H, W) of images (N, C, H, W).

    Args:
        engine: see :mod:`xaicore.studies.steps`.
        model: whose maps of ``layer`` are compared.
        title: what progress lines call it.
        held: the kinds that are compared with the class held, too.
    """
    options: dict[str, Any] = {"layers": (layer,), "step": f"shift of the maps of {title}"}
    found = steps.shifted(engine, model, images, torch.cat(list(versions.values()), 1), **options)
    before, counts = found.targets, [stack.shape[1] for stack in versions.values()]
    alone = class_shift(
        engine, model, images, before, found.targets_after, layer=layer, step=f"class alone, {title}"
    )
    columns = zip(
        found.targets_after.split(counts, 1),
        found.dissimilarity[:, :, 0].split(counts, 1),
        torch.from_numpy(alone).split(counts, 1),
        strict=True,
    )
    results = {}
    for (kind, stack), (answer, moved, of_class) in zip(versions.items(), columns, strict=True):
        changed = answer != before[:, None]
        fixed = moved.clone() if kind in held else None
        if fixed is not None and changed.any():
            # With the class held, only images whose answer changed can have another map.
            some = changed.any(1)
            targets: dict[str, Any] = {"targets": before[some]}
            targets["targets_after"] = before[some, None].expand(-1, stack.shape[1])
            again = steps.shifted(engine, model, images[some], stack[some], **options, **targets)
            fixed[some] = again.dissimilarity[:, :, 0]
        of_held = None if fixed is None else fixed.numpy()
        results[kind] = Seen(answer, changed.numpy(), moved.numpy(), of_class.numpy(), of_held)
    return results


class Pooled(NamedTuple):
    """:class:`Seen` of versions of the same images from S sources, (N, S, V) float64 each; flags are 0 and 1.

    Attributes:
        right: whether the answer is the label.
        changed: ``shift``, ``alone``, ``held``: see :class:`Seen`.
    """

    right: Array
    changed: Array
    shift: Array
    alone: Array
    held: Array


def pooled(sources: Sequence[Seen], labels: Tensor) -> Pooled:
    """Put what a network makes of several sources side by side; ``labels`` (N,), the class held in all of them."""
    right = [(each.answer == labels[:, None]).numpy() for each in sources]
    rest = ([getattr(each, name) for each in sources] for name in Pooled._fields[1:])
    return Pooled(*(np.stack(each, 1).astype(np.float64) for each in (right, *rest)))


def beyond_answer(attacked: Pooled, noise: Pooled) -> dict[str, Array]:
    """Return what an attack moves the maps by beyond the change of answers, like ``attacked``; NaN elsewhere.

    ``kept``: minus noise of the same size, where neither changed the answer. ``changed``: minus the class alone, where
    the attack changed it.
    """
    same = (attacked.changed == 0) & (noise.changed == 0)
    return {
        "kept": np.where(same, attacked.shift - noise.shift, np.nan),
        "changed": attacked.shift - attacked.alone,
    }


def class_shift(
    engine: Engine, model: Classifier, images: Tensor, before: Tensor, after: Tensor, *, layer: str, step: str
) -> Array:
    """Return how far the map of a *clean* image moves when it is drawn for another class, NISSIM (N, V).

    Args:
        engine: and ``step``: see :mod:`xaicore.studies.steps`.
        model: whose maps of ``layer`` are compared.
        images: (N, C, H, W), clean.
        before: (N,) the class that each map is drawn for.
        after: (N, V) the others; where one is the same there is no value.
    """
    found = torch.full(after.shape, torch.nan, dtype=torch.float64)
    rows, columns = (after != before[:, None]).nonzero(as_tuple=True)
    if len(rows):
        pairs, place = torch.unique(torch.stack([rows, after[rows, columns]], 1), dim=0, return_inverse=True)
        which, classes = pairs.T
        targets = {"targets": before[which], "targets_after": classes[:, None]}
        moved = steps.shifted(
            engine, model, images[which], images[which][:, None], layers=(layer,), step=step, **targets
        )
        found[rows, columns] = moved.dissimilarity[:, 0, 0].cpu()[place]
    return found.numpy()


def another(labels: Tensor) -> Tensor:
    """Return for each image (N,) the number of one of another class, far off, so that few are taken twice."""
    count = len(labels)
    ahead = (torch.arange(count)[:, None] + count // 2 + torch.arange(count)) % count
    return ahead[torch.arange(count), (labels[ahead] != labels[:, None]).int().argmax(1)]


def between_people(
    engine: Engine, model: Classifier, images: Tensor, labels: Tensor, *, layer: str, step: str
) -> Array:
    """Return NISSIM (N,) between the map of each image and that of :func:`another` person's.

    The arguments are as for :func:`class_shift`; ``labels`` (N,) say who is shown, two people at least.
    """
    others = images[another(labels)][:, None]
    moved = steps.shifted(engine, model, images, others, layers=(layer,), step=step)
    return moved.dissimilarity[:, 0, 0].cpu().numpy()


def regions(model: Classifier, versions: Tensor, classes: Tensor, layer: str) -> Regions:
    """Measure the maps of versions (N, V, C, H, W) of images for their ``classes`` (N, V)."""
    parts = zip(versions.split(BATCH), classes.split(BATCH), strict=True)
    return Regions(*np.concatenate([_regions(model, *part, layer) for part in parts], 1))


def _regions(model: Classifier, versions: Tensor, classes: Tensor, layer: str) -> Array:
    size = (int(versions.shape[-2]), int(versions.shape[-1]))
    rows, columns = (slice(round(side / 4), round(3 * side / 4)) for side in size)
    maps = [
        attribution.grad_cam(model, image, label, layers=[layer])[layer]
        for image, label in zip(versions.unbind(1), classes.unbind(1), strict=True)
    ]
    large = [shift.comparable(each, size).double().cpu() for each in maps]
    measured = []
    for each in large:
        middle = each[:, rows, columns].sum((1, 2)) / each.sum((1, 2)).clamp(min=1e-30)
        found = (each > 0.5).double().mean((1, 2)), middle, metrics.rank_correlation(large[0], each)
        measured.append(torch.stack(found).masked_fill(~each.flatten(1).any(1), torch.nan))
    return torch.stack(measured, 2).numpy()


def split_by_answer(shifts: Array, changed: Array) -> dict[str, Array]:
    """Return the shifts (N, K) of the images whose answer is ``kept`` and ``changed``, NaN elsewhere."""
    return {
        "kept": np.where(changed, np.nan, shifts),
        "changed": np.where(changed, shifts, np.nan),
    }


def answer_regression(shifts: ArrayLike, changed: ArrayLike) -> Array:
    """Fit MOD = a + b · share of changed answers by least squares over cells: networks, kinds and sizes of attack.

    Args:
        shifts: (N, cells) NISSIM; NaN are left out of both means of their cell.
        changed: (N, cells) 1 where the answer changed, else 0.

    Returns:
        a, b and R², the share of the variance of MOD between the cells that the share of changed answers explains;
        NaN where fewer than three cells have values, or the share is the same in all.
    """
    values, events = np.asarray(shifts, dtype=np.float64), np.asarray(changed, dtype=np.float64)
    there = np.isfinite(values)
    counts = there.sum(0)
    used = counts > 0
    mod, share = (np.where(there, each, 0).sum(0)[used] / counts[used] for each in (values, events))
    if used.sum() < 3 or np.ptp(share) == 0 or np.ptp(mod) == 0:
        return np.full(3, np.nan)
    slope, intercept = np.polyfit(share, mod, 1)
    explained = 1 - ((mod - intercept - slope * share) ** 2).sum() / ((mod - mod.mean()) ** 2).sum()
    return np.array([intercept, slope, explained])


def answer_regressions(shifts: ArrayLike, held: ArrayLike, changed: ArrayLike) -> Array:
    """Return :func:`answer_regression` of NISSIM, that of NISSIM with the class held, and the first R² minus the second.

    The arguments are as there; ``held`` is of the shape of ``shifts``. Returns seven numbers.
    """
    own, fixed = (answer_regression(each, changed) for each in (shifts, held))
    return np.array([*own, *fixed, own[-1] - fixed[-1]])


def share_left(shifts: ArrayLike, held: ArrayLike, *, seed: int = 0) -> Estimate:
    """Return mean NISSIM with the class held over mean NISSIM, (N, K) each, where both are defined.

    It takes nothing apart: maps of one class may move further than those of each image's own answer, so it may exceed 1,
    and noise leaves a share as well. The interval draws images by ``seed``; NaN without a pair.
    """
    own, same = (np.asarray(each, dtype=np.float64) for each in (shifts, held))
    there = np.isfinite(own) & np.isfinite(same)
    above, below = (np.where(there, each, 0).sum(1) for each in (same, own))
    if not below.any():
        return metrics.Estimate(np.nan, np.nan, np.nan, len(below))
    return metrics.ratio(above, below, n_resamples=500, seed=seed)._replace(n=len(below))


def lost_gap(right: ArrayLike, first: int, *, floor: float) -> Estimate | None:
    """Return how much more of what they had right the ``first`` networks lose than the others, in parts of one.

    Args:
        right: (N, 2, networks) 1 where the answer to the clean and to the attacked image is right, else 0.
        first: how many networks are in the first group.
        floor: accuracy under attack that the mean of each group must exceed; else there is nothing to compare, None.
    """

    def gap(right: Array) -> float:
        kept = right.prod(1).sum(0) / np.maximum(right[:, 0].sum(0), 1)
        return float(kept[first:].mean() - kept[:first].mean())

    answers = np.asarray(right, dtype=np.float64)
    left = answers[:, 1].mean(0)
    if min(left[:first].mean(), left[first:].mean()) <= floor:
        return None
    return metrics.row_bootstrap(gap, answers, n_resamples=500)


def separation_within(scores: ArrayLike, events: ArrayLike) -> float:
    """Return the AUROC of scores (N, K) for events (N, K) among pairs of the same column, say of one attack size.

    It is :func:`xaicore.metrics.separation` of each column, weighted by its pairs with and without the event; NaN where
    no column has both. NaN scores and events are left out.
    """
    total = pairs = 0.0
    score, event = np.asarray(scores, dtype=np.float64), np.asarray(events, dtype=np.float64)
    for values, happened in zip(score.T, event.T, strict=True):
        there = np.isfinite(values)
        weight = float((there & (happened == 1)).sum()) * float((there & (happened == 0)).sum())
        if weight:
            total, pairs = total + weight * metrics.separation(values, happened), pairs + weight
    return total / pairs if pairs else float("nan")


def typical(values: ArrayLike) -> int | None:
    """Return which of the values (N,) is their median, the lower one of two; None where all are NaN."""
    given = np.asarray(values, dtype=np.float64)
    order = np.argsort(given, kind="stable")[: int(np.isfinite(given).sum())]
    return int(order[(len(order) - 1) // 2]) if len(order) else None


def region_events(found: Regions) -> dict[str, Array]:
    """Return which maps of each version after the first differ from the first, (N, V - 1) each: 1, 0, NaN where empty.

    ``grows`` and ``shrinks``: the area is over 1.25 or under 0.8 times the first's; ``leaves``: the middle's share is
    under 0.8 times; ``inverted``: the rank correlation is below -0.5.
    """
    area, middle = (each[:, 1:] / each[:, :1] for each in (found.area, found.middle))
    rank = found.rank[:, 1:]
    known = np.isfinite(area + middle + rank)
    events = {"grows": area > 1.25, "shrinks": area < 0.8, "leaves": middle < 0.8, "inverted": rank < -0.5}
    return {name: np.where(known, event, np.nan) for name, event in events.items()}


def accuracy_at_equal_shift(
    right: ArrayLike, shifts: ArrayLike, *, first: Sequence[int], second: Sequence[int]
) -> Array:
    """Return the accuracy of one group of networks minus that of another at equal NISSIM, for each source of the attack.

    The network on which the images were made is left out (:func:`xaicore.metrics.matched_difference` of the others).

    Args:
        right: (N, networks, sources, K) 1 where the answer is right, else 0.
        shifts: NISSIM, of the same shape; source k is network k.
        first: which networks are in the first group; ``second``: in the other.

    Returns:
        (sources,) in parts of one.
    """
    answers, moved = np.asarray(right, dtype=np.float64), np.asarray(shifts, dtype=np.float64)
    found = []
    for source in range(answers.shape[2]):
        cases = [
            each[:, [network for network in group if network != source], source]
            for group in (first, second)
            for each in (answers, moved)
        ]
        found.append(metrics.matched_difference(*cases))
    return np.array(found)
