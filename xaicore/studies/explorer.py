"""The cases of the explorer page: images, attacks on them, noise as large as each attack, and explanations of all.

Every attack at every size has its control beside it: Gaussian noise with the mean and the standard deviation of its
perturbation, made larger by what clipping takes (:mod:`xaicore.studies.matched_noise`). Where the prediction changed
there are two explanations, of the new prediction and of the true class; a map that changes only with the former has
changed because the question did.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from xaicore import metrics, models
from xaicore.attacks import ATTACKS
from xaicore.attribution import METHODS
from xaicore.studies import steps
from xaicore.studies.map_shift import compare
from xaicore.studies.matched_noise import noise_of_equal_size
from xaicore.studies.subjects import Subject

if TYPE_CHECKING:
    from xaicore.run.engine import Engine

SMALLEST = "smallest"
"""The size of an attack that has none given: the smallest that it finds."""

ANSWER, TRUE = "answer", "true"
"""The class that a map explains: the predicted one, or the true one."""

SHIFTS = ("nissim", "cosine", "rank", "iou", "entropy")
"""What :func:`~xaicore.studies.map_shift.compare` measures."""


class Variant(NamedTuple):
    """One version of all images.

    Attributes:
        attack: a name of :data:`xaicore.attacks.ATTACKS`.
        size: ε as a text such as ``8/255`` or ``0.15``, or ``smallest``.
        kind: ``attack``, or ``noise`` of its size.
        images: (N, C, H, W) in [0, 1].
    """

    attack: str
    size: str
    kind: str
    images: Tensor


class Explored(NamedTuple):
    """All versions of a subject's images, what the network predicts, and the maps.

    Attributes:
        versions: V of them; the clean images are not among them.
        probabilities: (V + 1, N, K) float64, those of the clean images first.
        maps: explanation to (version, image, class explained) to (H, W); version 0 is the clean image, version k
            ``versions[k - 1]``. A map of the true class is there where the prediction is another.
    """

    versions: list[Variant]
    probabilities: Tensor
    maps: dict[str, dict[tuple[int, int, str], Tensor]]


def size_text(eps: float) -> str:
    """Return ε as people write it: ``8/255``, or three digits where it is no multiple of 1/255."""
    levels = eps * 255
    if abs(levels - round(levels)) < 1e-6 and Fraction(round(levels), 255).denominator > 5:
        return f"{round(levels)}/255"
    return f"{eps:.3g}"


def explore(
    engine: Engine,
    subject: Subject,
    *,
    attacks: Sequence[str],
    eps: Sequence[float],
    explanations: Sequence[str],
    iterations: int = 10,
    cw_steps: int = 20,
    cw_searches: int = 2,
    samples: int = 10,
    batch_size: int = 16,
    seed: int = 0,
) -> Explored:
    """Attack, add noise and explain the images of a subject, each step kept in the store of ``engine``.

    Args:
        engine: and ``batch_size``: see :mod:`xaicore.studies.steps`.
        subject: a network and images that it classifies correctly.
        attacks: names; ``cw_l2`` looks for the smallest perturbation, the others are run at each ε, every step.
        eps: sizes, largest change of a value.
        explanations: names of :data:`xaicore.attribution.METHODS`, or of a preset for relevance propagation with it.
        iterations: steps of the attacks that iterate; ``cw_steps`` those of CW in one search of ``cw_searches``.
        samples: steps of integrated gradients.
        seed: of the noise and of what an attack draws at random.
    """
    model, clean, labels = subject.model, subject.images, subject.labels
    common: dict[str, Any] = {"batch_size": batch_size, "rows": batch_size, "seed": seed}
    iterated = {"steps": iterations, "early_stop": False}
    versions: list[Variant] = []
    for name in attacks:
        sizes: dict[str, dict[str, Any]] = {SMALLEST: {"steps": cw_steps, "search_steps": cw_searches}}
        if (accepts := ATTACKS[name].accepts)("eps"):
            of_size = {key: value for key, value in iterated.items() if accepts(key)}
            sizes = {size_text(value): {"eps": value, **of_size} for value in eps}
        for size, parameters in sizes.items():
            hit = steps.attacked(engine, name, model, clean, labels, **parameters, **common).adversarial
            noise, _ = noise_of_equal_size(
                engine, model, clean, labels, hit, batch_size=batch_size, seed=seed, step=f"noise like {name}"
            )
            versions += [Variant(name, size, "attack", hit), Variant(name, size, "noise", noise.adversarial)]
    everything = torch.stack([clean, *(version.images for version in versions)])
    logits = models.predict(model, everything.flatten(0, 1), batch_size=batch_size)
    probabilities = logits.double().softmax(dim=1).unflatten(0, everything.shape[:2])
    explained = [  # version, image, which class, and that class
        (version, image, kind, target)
        for version, predictions in enumerate(probabilities.argmax(dim=2).tolist())
        for image, (predicted, label) in enumerate(zip(predictions, labels.tolist(), strict=True))
        for kind, target in {ANSWER: predicted, TRUE: label}.items()
        if kind == ANSWER or predicted != label
    ]
    images = torch.stack([everything[version, image] for version, image, *_ in explained])
    targets = torch.tensor([target for *_, target in explained], device=everything.device)
    maps = {}
    for name in explanations:
        options: dict[str, Any] = {"method": name} if name in METHODS else {"preset": name}
        if name == "integrated_gradients":
            options["n_steps"] = samples
        options |= {"batch_size": batch_size, "step": f"{name} for the explorer"}
        found = steps.explained(engine, model, images, targets, **options)
        maps[name] = {
            (v, image, kind): heat
            for (v, image, kind, _), heat in zip(explained, found.sum(dim=1), strict=True)
        }
    return Explored(versions, probabilities, maps)


def comparisons(explored: Explored, subject: Subject) -> pd.DataFrame:
    """Return every case with its numbers, one row for each image, version, explanation and class explained.

    The columns: ``image`` (its number), ``class`` (the true one), ``attack``, ``size``, ``kind``, ``answer``,
    ``fooled``, ``l2``, ``linf``, ``explanation``, ``explained`` (``answer`` or ``true``) and :data:`SHIFTS`.
    """
    frames = []
    for number, version in enumerate(explored.versions, start=1):
        lengths = metrics.norms(version.images - subject.images)
        predictions = explored.probabilities[number].argmax(dim=1).tolist()
        for explanation, maps in explored.maps.items():
            keys = [(image, explained) for at, image, explained in maps if at == number]
            before = torch.stack([maps[0, image, ANSWER] for image, _ in keys])
            after = torch.stack([maps[number, image, explained] for image, explained in keys])
            described = [
                {
                    "image": image,
                    "class": subject.names[int(subject.labels[image])],
                    "attack": version.attack,
                    "size": version.size,
                    "kind": version.kind,
                    "answer": subject.names[predictions[image]],
                    "fooled": predictions[image] != int(subject.labels[image]),
                    "l2": float(lengths.l2[image]),
                    "linf": float(lengths.linf[image]),
                    "explanation": explanation,
                    "explained": explained,
                }
                for image, explained in keys
            ]
            shifts = {name: values.tolist() for name, values in compare(before, after).items()}
            frames.append(pd.DataFrame(described).assign(**shifts))
    return pd.concat(frames, ignore_index=True)
