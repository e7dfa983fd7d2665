"""Chapter 3's analysis of an attack: its examples, and how similar the maps of every layer stay under them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xaicore.attacks import AttackResult, noise_like
from xaicore.core.batches import even_batch
from xaicore.core.devices import device_of
from xaicore.studies import steps
from xaicore.studies.layer_similarity import needed, versions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xaicore.run.engine import Engine
    from xaicore.studies.subjects import Subject


class Compared(NamedTuple):
    """An attack and the similarity of its K examples' maps, adversarial and with Gaussian noise, to the clean ones.

    Attributes:
        result: of the attack on all seeds.
        layers: names of the L layers.
        perturbation: (K, C, H, W), what the attack changed in its examples.
        adversarial: (K, S, L) similarities, by strength.
        gaussian: (K, S, L), under noise like the perturbation.
    """

    result: AttackResult
    layers: tuple[str, ...]
    perturbation: Tensor
    adversarial: NDArray[np.float64]
    gaussian: NDArray[np.float64]


def compared(
    engine: Engine,
    subject: Subject,
    n: int,
    name: str,
    title: str,
    *,
    strengths: Sequence[float],
    seed: int,
    **options: Any,
) -> tuple[AttackResult, Compared | None]:
    """Attack a network's first images and compare the maps of the examples; None for fewer than two examples.

    Args:
        engine: where batches run.
        subject: the network and its images, the first ``n`` of which, at most, are attacked.
        name: an attack of :data:`xaicore.attacks.ATTACKS`, with its ``options``; progress lines have its ``title``.
        strengths: multiples of the perturbation.
        seed: of the attack and of the noise.
    """
    model, seeds, truth = subject.model, subject.images[:n], subject.labels[:n]
    options |= {"batch_size": 64, "step": title, "seed": seed}
    result = steps.attacked(engine, name, model, seeds, truth, **options)
    found = result.success.nonzero().squeeze(1)
    if len(found) < 2:
        return result, None
    clean = seeds[found]
    perturbation = result.adversarial[found] - clean
    similar = steps.similar(
        engine,
        model,
        clean,
        perturbation,
        noise_like(perturbation, seed=seed, index=found),
        needed([versions_of(strengths)]),
        batch_size=even_batch(clean, device=device_of(model)),
        step=f"similarity of the maps, {title}",
    )
    values = similar.similarity[:, :, :, 0, 0].numpy()
    sides = values[:, : len(strengths)], values[:, len(strengths) :]
    return result, Compared(result, similar.layers, perturbation, *sides)
