"""Noise of the same size as an attack: the control of every page that asks whether it is the attack that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from xaicore.attacks import AttackResult
from xaicore.attacks.result import perturbation_norms
from xaicore.studies import steps

if TYPE_CHECKING:
    from xaicore.models import Classifier
    from xaicore.run.engine import Engine


def noise_of_equal_size(
    engine: Engine,
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    attacked: Tensor,
    *,
    batch_size: int,
    seed: int = 0,
    step: str = "noise of equal size",
) -> tuple[AttackResult, float]:
    """Return Gaussian noise with the moments of each image's perturbation and the attack's median L2.

    Clipping to [0, 1] makes noise smaller, on digits by a tenth and more, so it is made larger, twice, by what it lacks.

    Args:
        engine: runs the batches and keeps them.
        model: under attack.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64 true classes.
        attacked: (N, C, H, W), what an attack has made of these images.
        batch_size: images in a batch and in a pass.
        seed: of the noise.
        step: what the progress line says.

    Returns:
        The result, and the factor on the noise that gives it.
    """

    def noise(scale: float) -> AttackResult:
        return steps.attacked(
            engine,
            "gaussian",
            model,
            images,
            labels,
            batch_size=batch_size,
            rows=batch_size,
            per_image={"like": attacked - images},
            step=step,
            seed=seed,
            scale=scale,
        )

    size = perturbation_norms(images, attacked)[1].double().median()
    factor, found = 1.0, noise(1.0)
    for _ in range(2):
        factor *= (size / found.l2.double().median().clamp(min=1e-9)).item()
        found = noise(factor)
    return found, factor
