"""Chapter 3's analysis of an attack: its examples, and how similar the maps of every layer stay under them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xaicore.attacks import noise_like
from xaicore.core.batches import even_batch
from xaicore.core.devices import device_of
from xaicore.studies import steps
from xaicore.studies.layer_similarity import needed, versions_of

if TYPE_CHECKING:
    from xaicore.run.engine import Engine
    from xaicore.studies.subjects import Subject


class Compared(NamedTuple):
    """The similarity of an attack's K examples' maps, adversarial and with Gaussian noise, to the clean ones.

    Attributes:
        layers: names of the L layers.
        perturbation: (K, C, H, W), what the attack changed in its examples.
        adversarial: (K, S, L) similarities, by strength.
        gaussian: (K, S, L), under noise like the perturbation.
    """

    layers: tuple[str, ...]
    perturbation: Tensor
    adversarial: NDArray[np.float64]
    gaussian: NDArray[np.float64]


def attacked(
    engine: Engine, subject: Subject, n: int, name: str, title: str, *, seed: int, **options: Any
) -> tuple[Tensor, Tensor]:
    """Attack a network's first images, ``n`` at most; return which succeeded, (N,) bool, and the images (N, C, H, W).

    Args:
        engine: where batches run.
        subject: the network and its images.
        n: images at most.
        name: an attack of :data:`xaicore.attacks.ATTACKS`, with its ``options``; progress lines have its ``title``.
        title: see ``name``.
        seed: of the attack.
        options: of the attack.
    """
    seeds, truth = subject.images[:n], subject.labels[:n]
    options |= {"batch_size": 64, "step": title, "seed": seed}
    result = steps.attacked(engine, name, subject.model, seeds, truth, **options)
    return result.success, result.adversarial


def compared(
    engine: Engine,
    subject: Subject,
    success: Tensor,
    adversarial: Tensor,
    title: str,
    *,
    strengths: Sequence[float],
    seed: int,
) -> Compared | None:
    """Compare the maps of an attack's examples; None for fewer than two of them.

    Args:
        engine: where batches run.
        subject: the network and its images, the first N of which were attacked.
        success: (N,) bool.
        adversarial: (N, C, H, W).
        title: of the attack, for progress lines.
        strengths: multiples of the perturbation.
        seed: of the noise.
    """
    found = success.nonzero().squeeze(1)
    if len(found) < 2:
        return None
    clean = subject.images[found]
    perturbation = adversarial[found] - clean
    similar = steps.similar(
        engine,
        subject.model,
        clean,
        perturbation,
        noise_like(perturbation, seed=seed, index=found),
        needed([versions_of(strengths)]),
        batch_size=even_batch(clean, device=device_of(subject.model)),
        step=f"similarity of the maps, {title}",
    )
    values = similar.similarity[:, :, :, 0, 0].numpy()
    return Compared(similar.layers, perturbation, values[:, : len(strengths)], values[:, len(strengths) :])
