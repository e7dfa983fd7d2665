"""What chapter 4 measures beside the defence itself: the paper's adaptive attack as it can be read, and its groups.

Where the text of Brama and Grinshpoun (2020) leaves a choice, each reading is measured (:func:`grid`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from xaicore import models
from xaicore.attacks import ATTACKS, AttackResult
from xaicore.core.batches import even_batch
from xaicore.defenses import HeatAndBlur, masked_attack, shown_to
from xaicore.metrics import ndcg, wilcoxon
from xaicore.studies.stored_images import ENLARGEMENTS, stored

if TYPE_CHECKING:
    from xaicore.run.store import Store

Array = NDArray[np.float64]

NORM_TITLES = {"linf": "L∞", "l2": "L2"}
MINIMAL = ("cw_l2",)
"""Attacks that look for the smallest perturbation and stop by themselves: they have no ε and no early stop, so that one
run without a bound serves every bound (:func:`inside`)."""


def logits_of(store: Store, model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (N, K) of images (N, C, H, W) in [0, 1], kept in the store."""
    size = even_batch(images, 8)
    return store.get_or_compute(
        "logits of the network",
        {"model": model, "images": images},
        lambda: {"logits": models.predict(model, images, batch_size=size)},
        code=models.predict,
    )["logits"]


def on_file(
    store: Store,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    result: AttackResult,
    *,
    bits: int | None,
    target: Tensor | None = None,
    enlarged: bool = True,
    batch_size: int | None = None,
) -> AttackResult:
    """Return an attack whose images are stored with ``bits`` (:func:`~xaicore.studies.stored_images.stored`).

    Args:
        store: keeps the result.
        model: what the images are shown to, which need not be what was attacked.
        images: (N, C, H, W) in [0, 1], labels: (N,) int64, result, target, batch_size: of the attack.
        bits: None leaves the images as they are; ``success`` is that of ``model`` all the same.
        enlarged: whether a perturbation that rounding undoes is enlarged.
    """
    if bits is None:
        return shown_to(model, images, labels, result, target=target, batch_size=batch_size)
    options: dict[str, Any] = {"bits": bits, "enlargements": ENLARGEMENTS if enlarged else (1.0,)}
    inputs = {"model": model, "images": images, "labels": labels, "target": target, "options": options}
    kept = store.get_or_compute(
        f"stored with {bits} bits",
        {**inputs, "adversarial": result.adversarial, "success": result.success},
        lambda: stored(
            model, images, labels, result, target=target, batch_size=batch_size, **options
        ).arrays(),
        code=stored,
    )
    return AttackResult.from_arrays(kept, seconds=result.seconds)


@dataclass(frozen=True)
class Reading:
    """One reading of Algorithm 2: which attack, in which norm, how far, and whether it stops at the first success.

    Attributes:
        attack: the Att(·), of :data:`xaicore.attacks.ATTACKS`.
        norm: "linf" or "l2", what is bounded; of :data:`MINIMAL`, what is made small.
        eps: radius of the ball, for "l2" as the root mean square over the values of an image; None: no bound.
        early_stop: None for an attack that has no such choice.
    """

    attack: str
    norm: str
    eps: float | None
    early_stop: bool | None

    @property
    def identity(self) -> str:
        """The part of a record id: ``pgd.linf.eps_031.late``; ``cw_l2.free``."""
        if self.attack in MINIMAL:
            return f"{self.attack}.free"
        level = "free" if self.eps is None else f"eps_{round(1000 * self.eps):03d}"
        return f"{self.attack}.{self.norm}.{level}.{'late' if self.early_stop is False else 'early'}"

    @property
    def title(self) -> str:
        """The attack, its norm and when it stops, for a table."""
        stop = {None: "", True: ", stops early", False: ", all steps"}[self.early_stop]
        return f"{self.attack.split('_')[0].upper()}, {NORM_TITLES[self.norm]}{stop}"


def grid(
    attacks: Sequence[str], eps: Sequence[float], rms: Sequence[float], stops: Sequence[str]
) -> Iterator[Reading]:
    """Yield each attack in L∞ at each ``eps`` and in L2 at each ``rms``, early and late as ``stops`` says, and unbounded.

    One of :data:`MINIMAL` is yielded once, unbounded.
    """
    for attack in attacks:
        if attack in MINIMAL:
            yield Reading(attack, "l2", None, None)
            continue
        for norm, sizes in (("linf", eps), ("l2", rms)):
            yield from (Reading(attack, norm, size, stop == "early") for size in sizes for stop in stops)
        yield Reading(attack, "linf", None, True)


def inside(result: AttackResult, *, eps: Sequence[float], rms: Sequence[float]) -> Tensor:
    """Return where a result lies in the largest L∞ ball or in the largest L2 ball, (N,) bool.

    Args:
        result: the attack.
        eps: radii in L∞, rms: in L2 as root mean square over the values of an image; either may be empty.
    """
    small = result.linf <= max(eps, default=-1.0) + 1e-6  # float32, stored images
    return small | (result.l2 <= max(rms, default=-1.0) * result.adversarial[0].numel() ** 0.5 + 1e-6)


def algorithm_2(
    store: Store,
    defended: HeatAndBlur,
    images: Tensor,
    labels: Tensor,
    reading: Reading,
    *,
    rounds: int,
    steps: int,
    step_size: float = 2 / 255,
    seed: int = 0,
    bits: int | None = 8,
    batch_size: int | None = None,
) -> AttackResult:
    """Return Algorithm 2 by one reading, from the store where it is kept.

    Args:
        store: keeps the attack.
        defended, images, labels, batch_size: as in :func:`xaicore.defenses.masked_attack`.
        reading: which.
        rounds: of the algorithm, steps: of the attack in each.
        step_size: ε of each round's attack where the reading has no bound.
        seed: of an attack that draws at random.
        bits: with which its images are stored before they are judged.

    Returns:
        As :func:`xaicore.defenses.masked_attack`.
    """
    options: dict[str, Any] = {"steps": steps, "iterations": rounds, "bits": bits}
    size = step_size if reading.eps is None else reading.eps
    size *= images[0].numel() ** 0.5 if reading.norm == "l2" else 1.0
    if reading.attack in MINIMAL:
        options |= {"search_steps": 2, "bounded": False}
    else:
        options |= {"norm": reading.norm, "eps": size, "bounded": reading.eps is not None}
        options |= {"seed": seed, "early_stop": reading.early_stop is not False}

    def made() -> dict[str, Tensor]:
        attack = ATTACKS[reading.attack].function
        found = masked_attack(defended, images, labels, attack=attack, batch_size=batch_size, **options)
        return found.arrays()

    inputs = {"model": defended, "images": images, "labels": labels, "attack": reading.attack}
    found = store.get_or_compute("Algorithm 2", {**inputs, "options": options}, made, code=masked_attack)
    return AttackResult.from_arrays(found, seconds=found.seconds)


def answers(logits: Tensor, labels: Tensor, benign: Tensor, *, first: int = 5) -> tuple[Tensor, Tensor]:
    """Return how sure a network is of its answers, and whether they are neighbours of the true class.

    Args:
        logits: (N, K) of changed images.
        labels: (N,) int64 true classes.
        benign: (N, K) logits of the clean images.
        first: a class is a neighbour where it is among so many first of the clean image's.

    Returns:
        (N,) float64 probability of the answer; (N,) float64, 1 where the answer is a neighbour, NaN where it is the
        true class.
    """
    sure, answer = logits.double().softmax(1).max(1)
    near = (benign.topk(min(first, benign.shape[1]), dim=1).indices == answer[:, None]).any(1).double()
    return sure, near.masked_fill(answer == labels, torch.nan)


def ndcg_at(reference: Tensor, logits: Tensor, *, coverage: float, reading: str, most: int = 5) -> Array:
    """Return NDCG@1 to NDCG@``most`` (N, most) of logits (N, K), judged by those of the clean images."""
    each = [ndcg(reference, logits, coverage=coverage, k=k, reading=reading) for k in range(1, most + 1)]
    return np.asarray(torch.stack(each, 1))


def early_rise(curves: Array, others: Array | None = None) -> float:
    """Return which part of the mean rise from NDCG@1 to NDCG@K comes with the second class; NaN where there is no rise.

    Args:
        curves: (N, K), finite.
        others: (N, K) likewise; then it is that of ``curves`` minus that of these.
    """
    mean = curves.mean(0)
    part = float((mean[1] - mean[0]) / rise) if (rise := mean[-1] - mean[0]) > 0 else float("nan")
    return part if others is None else part - early_rise(others)


def spread(values: Array) -> float:
    """Return the standard deviation of the groups' means; ``values`` (N, groups), NaN where an image is in no group."""
    means = [column[np.isfinite(column)].mean() for column in values.T if np.isfinite(column).any()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def excess_spread(values: ArrayLike, members: ArrayLike) -> float:
    r"""Return by how much the means of groups differ beyond what drawing the groups at random would give.

    The groups are sets of the same images. Were each image's value given to another image at random, the group means
    :math:`m_g` would have the covariances :math:`S^2 (w_g \cdot w_h - 1/N)`, with :math:`S^2` the variance of the
    values and :math:`w_g` the groups' shares. A score that is 0 or 1 has a large :math:`S^2`, which is no sensitivity
    to the group.

    Args:
        values: (N,) of the images.
        members: (N, groups), true where an image is in a group; empty groups are left out.

    Returns:
        The variance of the group means less its expectation; NaN for fewer than two groups or images.
    """
    given, inside = np.asarray(values, dtype=float), np.asarray(members, dtype=float)
    inside = inside[:, inside.any(0)]
    n, groups = inside.shape
    if groups < 2 or n < 2:
        return float("nan")
    shares = (inside / inside.sum(0)).T
    covariances = shares @ shares.T - 1 / n
    expected = given.var(ddof=1) * (np.trace(covariances) - covariances.sum() / groups) / (groups - 1)
    return float((shares @ given).var(ddof=1) - expected)


def paired_p(before: ArrayLike, after: ArrayLike) -> float:
    """Return the p-value of Wilcoxon's test that images change; ``before`` and ``after`` are (N,) or (N, K).

    Several outcomes of an image count as their mean, NaN as none; 1 where no image has any.
    """
    one, other = (
        np.asarray(values, dtype=float).reshape(len(np.asarray(values)), -1) for values in (before, after)
    )
    there = np.isfinite(one).any(1)
    if not there.any():
        return 1.0
    return wilcoxon(np.nanmean(other[there], 1), np.nanmean(one[there], 1)).p_value


class _Products(TorchDispatchMode):
    """Counts as PyTorch's ``FlopCounterMode``, whose hooks do not bear gradients of single modules."""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if count := flop_registry.get(function._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def products(model: nn.Module, images: Tensor) -> int:
    """Return the floating-point operations of a model's matrix products and convolutions for images (N, C, H, W)."""
    with _Products() as counter:
        models.predict(model, images)
    return counter.total


def seconds_each(
    function: Callable[[Tensor], Any], images: Tensor, *, batch_size: int = 5, repeats: int = 3
) -> list[float]:
    """Return the seconds an image of ``function`` for each batch of images (N, C, H, W), the median of ``repeats``."""

    def once(batch: Tensor) -> float:
        started = time.perf_counter()
        function(batch)
        return (time.perf_counter() - started) / len(batch)

    batches = images.split(batch_size)
    once(batches[0])
    return [statistics.median(once(batch) for _ in range(repeats)) for batch in batches]
