"""How two sides are timed fairly, what is measured of an attack, and when a goal is met.

Every library's images are judged alike, by a fresh pass of the model and by their distance from the clean
images; what a library says of its own success is not used. Times are those of the fastest of interleaved
repeats, so that a busy machine slows both sides alike.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import variance
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from xaicore.attacks.result import perturbation_norms

CHANGED = 1e-6
"""A pixel counts for l0 if a value changed by more; ART counts so itself."""
EQUAL_DISTORTION = 1.005
"""Median distortions within half a percent count as equal."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """What a call returned, and its wall-clock time in seconds."""

    result: Result
    seconds: float


def clocked(call: Callable[[], Result]) -> Timed[Result]:
    """Run ``call`` and time it."""
    started = time.perf_counter()
    result = call()
    return Timed(result, time.perf_counter() - started)


@dataclass(frozen=True)
class Outcome:
    """One timed run of an attack.

    Attributes:
        adversarial: (N, C, H, W).
        seconds: wall-clock time of the call.
        passes: images that went through the model per image attacked, those that only fill a batch included;
            forward and backward count one together.
    """

    adversarial: Tensor
    seconds: float
    passes: float


def timed(model: nn.Module, call: Callable[[], Any], count: int) -> Outcome:
    """Run ``call``, which attacks ``count`` images of ``model`` and returns images or an ``AttackResult``."""
    rows = 0

    def count_rows(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal rows
        rows += len(inputs[0])

    handle = model.register_forward_pre_hook(count_rows)
    try:
        done = clocked(call)
    finally:
        handle.remove()
    images = torch.as_tensor(getattr(done.result, "adversarial", done.result)).detach().float().contiguous()
    return Outcome(images, done.seconds, rows / count)


Run = TypeVar("Run", Outcome, Timed[Any])


def interleaved(
    works: Mapping[str, Callable[[], Run]], repeats: int, seconds: float = math.inf
) -> tuple[dict[str, Run], int]:
    """Run all works in turn, at least once, and return the fastest run of each, and how many turns there were.

    There are ``repeats`` turns at most, and no new one after so many ``seconds``.
    """
    best: dict[str, Run] = {}
    started, turns = time.perf_counter(), 0
    while turns == 0 or (turns < repeats and time.perf_counter() - started < seconds):
        for name, work in works.items():
            outcome = work()
            if name not in best or outcome.seconds < best[name].seconds:
                best[name] = outcome
        turns += 1
    return best, turns


@dataclass(frozen=True)
class Judged:
    """Whether each image fools the model, (N,) bool, and how far it is from the clean one, (N,) float."""

    fooled: Tensor
    distance: Tensor


def judge(model: nn.Module, images: Tensor, labels: Tensor, adversarial: Tensor, norm: str) -> Judged:
    """Judge what an attack made of ``images`` (N, C, H, W), all classified correctly.

    An image fools the model if the prediction of a fresh pass is not the label and the image is one: finite,
    within [0, 1], and not of a single value throughout (foolbox hands back black images where its
    Carlini-Wagner attack fails).
    """
    valid = adversarial.isfinite().flatten(1).all(dim=1)
    safe = adversarial.where(adversarial.isfinite(), 0)
    flat = safe.flatten(1)
    valid &= (flat.amin(dim=1) >= -1e-6) & (flat.amax(dim=1) <= 1 + 1e-6)
    valid &= flat.amax(dim=1) > flat.amin(dim=1)
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(dim=1) for part in safe.split(32)])
    cut = torch.where((safe - images).abs() > CHANGED, safe, images) if norm == "l0" else safe
    distances = dict(zip(("l0", "l2", "linf"), perturbation_norms(images, cut), strict=True))
    return Judged(valid & (predicted != labels), distances[norm].double())


def report(ours: Judged, peer: Judged) -> dict[str, Any]:
    """Return successes of both, and the medians of their distances over the images that both fooled."""
    both = ours.fooled & peer.fooled
    return {
        "ours": {"fooled": int(ours.fooled.sum()), "median_distance": _median(ours.distance[both])},
        "peer": {"fooled": int(peer.fooled.sum()), "median_distance": _median(peer.distance[both])},
        "both_fooled": int(both.sum()),
    }


def _median(values: Tensor) -> float | None:
    return float(values.quantile(0.5)) if len(values) else None


def chance(ours: Sequence[int], peer: Sequence[int]) -> float:
    """Return how far two means over draws may lie apart by chance: two standard errors of their difference."""
    if min(len(ours), len(peer)) < 2:
        return 0.0
    return 2 * math.sqrt(variance(ours) / len(ours) + variance(peer) / len(peer))


def misses(
    ratio: float,
    goal: float | None,
    success: tuple[float, float],
    distance: tuple[float | None, float | None],
) -> list[str]:
    """Return in what a comparison falls short of its goal, each with by how much; nothing where it is met.

    Pairs are of ours and the peer's. The ``ratio``, the peer's time over ours, must reach the ``goal``, if any; ours must
    not fool fewer images (``success``), nor have a larger median ``distance``, None where that does not apply.
    """
    found = []
    if goal is not None and not ratio >= goal:
        found.append(f"{ratio:.2f}x instead of {goal:g}x ({100 * (1 - ratio / goal):.0f} % short)")
    if success[0] < success[1]:
        found.append(f"{success[1] - success[0]:.3g} fewer fooled")
    ours, peer = distance
    if ours is not None and peer is not None and not ours <= peer * EQUAL_DISTORTION:
        larger = f"{100 * (ours / peer - 1):.1f} %" if peer else "infinitely"
        found.append(f"median distance larger by {larger}")
    return found


def versus(
    name: str,
    peer: str,
    subject: str,
    n: int,
    seconds: tuple[float, float],
    error: float,
    *,
    goal: float,
    note: str,
) -> dict[str, Any]:
    """Return a row of ours, called ``name``, beside a ``peer`` of equal output, on ``n`` of a ``subject``.

    Args:
        seconds: that ours and the peer took; the row has milliseconds.
        error: the largest difference of the outputs, relative to the largest value.
        goal: the least ratio of the peer's time to ours that is wanted.

    Returns:
        ``{name, peer, subject, n, ours_ms, peer_ms, ratio, goal, met, max_relative_error, note}``.
    """
    ours, theirs = seconds
    row = {
        "name": name,
        "peer": peer,
        "subject": subject,
        "n": n,
        "ours_ms": 1e3 * ours,
        "peer_ms": 1e3 * theirs,
    }
    ratio = {"ratio": theirs / ours, "goal": goal, "met": theirs / ours >= goal}
    return {**row, **ratio, "max_relative_error": float(error), "note": note}


def rounded(value: Any, digits: int = 5) -> Any:
    """Return ``value`` with its numbers rounded to significant ``digits``, through dicts and lists."""
    if isinstance(value, dict):
        return {name: rounded(entry, digits) for name, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry, digits) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
