"""Reasons to doubt results of attacks: signs that they measure a broken gradient and not a robust model.

A defence can stop gradient attacks without being robust, by zero, shattered or random gradients (Athalye,
Carlini & Wagner 2018, Sec. 3.1, name signs of it); AutoAttack (Croce & Hein 2020) warns of such signs in its
own runs. A suspicion is a reason to look, not a verdict.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from xaicore.attacks.auto_attack import BLACK_BOX
from xaicore.attacks.base import success_after_uint8
from xaicore.attacks.registry import ATTACKS, Attack
from xaicore.attacks.result import AttackResult
from xaicore.core import checks
from xaicore.core.batched_model import BatchedModel
from xaicore.core.devices import device_of
from xaicore.core.errors import UserError
from xaicore.core.outputs import look_like_probabilities

Kind = Literal[
    "zero-gradient",
    "nonfinite",
    "black-box-wins",
    "clean-disagreement",
    "clean-accuracy",
    "probabilities",
    "random-model",
    "uint8-rounding",
]

CLEARLY_SMALLER = 0.9
"""Of two minimum-norm attacks that both succeed, either may come out ahead by some percent. This share of the
white-box attack's norm is no such chance."""


@dataclass(frozen=True)
class Suspicion:
    """One reason to doubt.

    Attributes:
        kind: which check found it.
        attack: the name of the attack it is about; None if it is about the model.
        count: images it concerns.
        n: images it was looked for in.
        message: a sentence to read.
    """

    kind: Kind
    attack: str | None
    count: int
    n: int
    message: str


def suspicions(
    results: Mapping[str, AttackResult],
    *,
    model: nn.Module | None = None,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    target: int | Tensor | None = None,
    clean_accuracy: float | None = None,
    budgets: Mapping[str, float] | None = None,
    attacks: Mapping[str, Attack] = ATTACKS,
) -> list[Suspicion]:
    """Look for signs that the results of attacks on the same images do not mean what they seem to.

    The checks, by ``kind``:

    - ``zero-gradient``: images where an attack had no usable gradient.
    - ``nonfinite``: images where the model gave NaN or infinite logits, clean or attacked.
    - ``black-box-wins``: images where an attack without gradients succeeds within the budget of one with
      gradients that failed. The perturbation is measured in the norm of the latter. The budget is the one in
      ``budgets``, or else the largest norm the attack spent on any image, which is too little if no image
      had a gradient. A minimum-norm attack that fails had no limit; one that succeeds is beaten by less than
      0.9 of the norm it found. Of AutoAttack also: images that its part without gradients fooled, Square, after those
      with gradients had failed.
    - ``clean-disagreement``: images that one attack took for misclassified and another did not.
    - ``clean-accuracy``: the number of images classified correctly before the attack is not that of
      ``clean_accuracy``.
    - ``probabilities``: the model's outputs for these images are at least 0 and sum to 1, as if its softmax were
      inside, where attacks by gradients or scores are weaker (needs ``model`` and ``images``).
    - ``random-model``: images whose logits differ between two passes in eval mode (needs ``model`` and
      ``images``, or results of AutoAttack, which looks for it itself).
    - ``uint8-rounding``: successes lost when the image is stored with 8 bits per channel (needs ``model`` and
      ``labels``).

    Args:
        results: by name of attack, all on the same N images in the same order, with the same target.
        model, images, labels, target: as in :mod:`xaicore.attacks`; ``images`` are the clean ones.
        clean_accuracy: share of these N images that the model classifies correctly, as known from elsewhere.
        budgets: by name, the largest norm that an attack was allowed, its ``eps``.
        attacks: what each name in ``results`` stands for; with ``{**ATTACKS, "pgd_l2": replace(ATTACKS["pgd"],
            norm="l2")}`` (``dataclasses.replace``) the results may hold an entry "pgd_l2".

    Returns:
        The suspicions, in the order above, those that AutoAttack notes together; empty if there are none.

    Raises:
        ValueError: also if a name is not in ``attacks``, or results are of different length.

    References:
        Athalye, Carlini & Wagner (2018), Obfuscated gradients give a false sense of security, Sec. 3.1; Croce
        & Hein (2020), Reliable evaluation of adversarial robustness with an ensemble of diverse attacks.
    """
    budgets = {
        name: checks.positive(f"the budget of {name}", value) for name, value in (budgets or {}).items()
    }
    _check(results, attacks, budgets, images)
    found = [
        *_of_results(results),
        *_black_box_wins(results, attacks, budgets),
        *_of_autoattack(results),
        *_clean_disagreements(results),
    ]
    if clean_accuracy is not None:
        found += _clean_accuracy(results, checks.not_negative("clean_accuracy", clean_accuracy, most=1))
    if model is not None and images is not None:
        found += _model_itself(checks.model(model), checks.images(images))
    if model is not None and labels is not None:
        found += _lost_by_rounding(results, model, labels, target)
    return [suspicion for suspicion in found if suspicion.count]


def _check(
    results: Mapping[str, AttackResult],
    attacks: Mapping[str, Attack],
    budgets: Mapping[str, float],
    images: Tensor | None,
) -> None:
    for name, result in results.items():
        if not isinstance(result, AttackResult):
            raise TypeError(f"results must hold AttackResults, not {type(result).__name__} for {name!r}")
        if name not in attacks:
            raise UserError(f"results must go by names of attacks; {name!r} is not among them")
    lengths = {name: len(result) for name, result in results.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"results must be for the same images, but their numbers differ: {lengths}")
    if unknown := set(budgets) - set(results):
        raise UserError(f"budgets must be for attacks in results, not {sorted(unknown)[0]!r}")
    if images is not None and results and len(checks.images(images)) not in lengths.values():
        raise UserError(f"images must be the {max(lengths.values())} of the results, not {len(images)}")


def _attacked(result: AttackResult) -> Tensor:
    return ~result.info["initially_wrong"].cpu()


def _of_results(results: Mapping[str, AttackResult]) -> Iterator[Suspicion]:
    for name, result in results.items():
        n, count = int(_attacked(result).sum()), int(result.info.get("zero_gradient", torch.zeros(1)).sum())
        text = f"{name} had no usable gradient for {count} of {n} images: its failures say little"
        yield Suspicion("zero-gradient", name, count, n, text)
    for name, result in results.items():
        n, count = len(result), int(result.info["nonfinite"].sum())
        text = f"the model gave NaN or infinite logits for {count} of {n} images of {name}"
        yield Suspicion("nonfinite", name, count, n, text)


def _black_box_wins(
    results: Mapping[str, AttackResult], attacks: Mapping[str, Attack], budgets: Mapping[str, float]
) -> Iterator[Suspicion]:
    for name, white in results.items():
        norm = attacks[name].norm
        if attacks[name].access != "gradients" or norm is None:
            continue
        limit = _beaten_by(white, norm, attacks[name].minimal, budgets.get(name))
        for rival, black in results.items():
            if attacks[rival].access == "gradients":
                continue
            both = _attacked(white) & _attacked(black)
            wins = both & black.success.cpu() & (getattr(black, norm).cpu().double() <= limit)
            count, n = int(wins.sum()), int(both.sum())
            text = (
                f"{rival}, without gradients, beats {name} on {count} of {n} images within its {norm} budget: "
                "the gradients may mislead"
            )
            yield Suspicion("black-box-wins", name, count, n, text)


def _beaten_by(white: AttackResult, norm: str, minimal: bool, budget: float | None) -> Tensor:
    """Return the norm (N,) float64 up to which a success of another attack beats ``white``."""
    spent, success = getattr(white, norm).cpu().double(), white.success.cpu()
    if minimal:
        return torch.where(success, CLEARLY_SMALLER * spent, torch.inf)
    if budget is None:
        budget = float(spent[_attacked(white)].max()) if _attacked(white).any() else 0.0
    return torch.full_like(spent, budget * (1 + 1e-6)).masked_fill(success, -torch.inf)


def _of_autoattack(results: Mapping[str, AttackResult]) -> Iterator[Suspicion]:
    """Look at what AutoAttack notes of itself."""
    for name, result in results.items():
        n = int(_attacked(result).sum())
        if "part" in result.info:
            count = int((result.info["part"] == BLACK_BOX).sum())
            text = (
                f"Square, without gradients, fools {count} of {n} images that the parts of {name} with gradients before "
                "it did not: the gradients may mislead"
            )
            yield Suspicion("black-box-wins", name, count, n, text)
        if "random" in result.info:
            count = int(result.info["random"].sum())
            text = f"the model is random: {name} had other logits in a second pass for {count} of {n} images"
            yield Suspicion("random-model", name, count, n, text)


def _clean_disagreements(results: Mapping[str, AttackResult]) -> Iterator[Suspicion]:
    for name, result in results.items():
        other = next(iter(results))
        n, count = len(result), int((_attacked(result) != _attacked(results[other])).sum())
        text = f"{other} and {name} disagree for {count} of {n} images whether the model was right"
        yield Suspicion("clean-disagreement", name, count, n, text)


def _clean_accuracy(results: Mapping[str, AttackResult], accuracy: float) -> Iterator[Suspicion]:
    for name, result in results.items():
        n, right = len(result), int(_attacked(result).sum())
        text = f"{name} found {right} of {n} clean images classified correctly, not {accuracy:.4g} of them"
        yield Suspicion("clean-accuracy", name, abs(round(accuracy * n) - right), n, text)


def _model_itself(model: nn.Module, images: Tensor) -> Iterator[Suspicion]:
    device, n = device_of(model), len(images)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda), BatchedModel.of(model, images) as batched:
        first, second = (batched.logits(images).nan_to_num(0, 0, 0) for _ in range(2))
    text = "the model seems to return probabilities, where attacks by gradients or scores are weaker"
    yield Suspicion("probabilities", None, n * look_like_probabilities(first), n, text)
    gap = (first - second).abs().amax(dim=1)
    count = int((gap > 1e-5 * first.abs().amax(dim=1)).sum())
    text = f"the model is random: its logits differ between two passes for {count} of {n} images"
    yield Suspicion("random-model", None, count, n, text)


def _lost_by_rounding(
    results: Mapping[str, AttackResult], model: nn.Module, labels: Tensor, target: int | Tensor | None
) -> Iterator[Suspicion]:
    for name, result in results.items():
        after = success_after_uint8(model, result.adversarial, labels, target=target).cpu()
        won = _attacked(result) & result.success.cpu()
        n, count = int(won.sum()), int((won & ~after).sum())
        text = f"{name} loses {count} of {n} successes when its images are stored with 8 bits"
        yield Suspicion("uint8-rounding", name, count, n, text)
