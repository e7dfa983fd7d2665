"""Changes of the same size as an attack: the controls of every page that asks whether it is the attack that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xaicore.attacks import AttackResult
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.result import perturbation_norms
from xaicore.core import randomness
from xaicore.studies import steps

if TYPE_CHECKING:
    from xaicore.models import Classifier
    from xaicore.run.engine import Engine


def shuffled_pixels(perturbation: Tensor, *, seed: int = 0) -> Tensor:
    """Return perturbations (N, C, H, W) with the pixels of each in a random order of its own, channels together."""
    flat = perturbation.flatten(2)
    rows = [
        each[:, np.random.default_rng([seed, row]).permutation(flat.shape[2])]
        for row, each in enumerate(flat)
    ]
    return torch.stack(rows).view_as(perturbation)


def transplanted(perturbation: Tensor, *, seed: int = 0) -> Tensor:
    """Return for each perturbation (N, C, H, W) that of the image before it, the last for the first, at its own L2.

    It has all that an attack has, but for the image that it was made for. Nothing is drawn: ``seed`` is not used.
    """
    others = perturbation.roll(1, 0)
    own, theirs = (each.flatten(1).norm(dim=1).clamp(min=1e-12) for each in (perturbation, others))
    return others * (own / theirs).view(-1, 1, 1, 1)


def same_spectrum(perturbation: Tensor, *, seed: int = 0) -> Tensor:
    """Return noise (N, C, H, W) with the power spectrum of each perturbation, at random phases.

    All channels of an image are turned by the same phases, so that their cross-spectra stay, too. Mean and L2 are
    those of the perturbation; its shape in space is gone.

    References:
        Theiler et al. (1992), Testing for nonlinearity in time series: the method of surrogate data, Sec. 2.4; for
        several channels Prichard & Theiler (1994).
    """
    count, _, height, width = perturbation.shape
    index = torch.arange(count)
    noise = randomness.normal(seed, index, torch.zeros_like(index), torch.Size((1, height, width)))
    phases = torch.fft.rfft2(noise.double()).angle()
    phases[..., 0, 0] = 0  # the mean stays
    turned = torch.fft.rfft2(perturbation.double().cpu()) * torch.polar(torch.ones_like(phases), phases)
    return torch.fft.irfft2(turned, s=(height, width)).to(perturbation)


KINDS = {"shuffled": shuffled_pixels, "transplanted": transplanted, "spectrum": same_spectrum}
"""What can be made of an attack's own perturbations, beside Gaussian noise with their moments."""


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
    kind: str = "gaussian",
) -> tuple[AttackResult, float]:
    """Return a change without an aim, of the attack's median L2: by default Gaussian noise with its moments.

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
        kind: "gaussian", or of :data:`KINDS` what is made of the perturbations.

    Returns:
        The result, and the factor on the noise that gives it.
    """
    made = None if kind == "gaussian" else KINDS[kind](attacked - images, seed=seed)

    def noise(scale: float) -> AttackResult:
        if made is not None:
            arrays = {"images": images, "labels": labels, "perturbation": made}
            constants = {"model": model, "scale": scale}
            found = engine.map(step, _added, arrays, constants=constants, batch_size=batch_size)
            return AttackResult.from_arrays(found, seconds=found.seconds)
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


def _added(
    *, model: Classifier, images: Tensor, labels: Tensor, perturbation: Tensor, scale: float
) -> dict[str, Tensor]:
    """Add perturbations to images that the model gets right; return the arrays of the result."""

    def step(
        _victim: object, images: Tensor, _goal: object, index: Tensor, extras: dict[str, Tensor]
    ) -> Attempt:
        changed = (images + scale * extras["perturbation"]).clamp(0, 1)
        return Attempt(changed, torch.zeros_like(index), {})

    extras = {"perturbation": perturbation}
    return run(step, model, images, labels, target=None, index=None, batch_size=None, extras=extras).arrays()
