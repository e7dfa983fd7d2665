"""Gaussian noise with the mean and standard deviation of a perturbation: what strength alone does to a model.

Renkhoff et al. (2022), Eq. 2, set beside each adversarial perturbation N_a the noise::

    N_g ~ Normal(mean(N_a), std(N_a)^2),   x' = clip(x + scale * N_g, 0, 1)

A draw of D values misses mean and deviation by about 1/sqrt(D) of the latter. Here it is standardised first, so
that the noise has both moments exactly and a comparison with N_a is not one of strengths.
"""

import math

import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import rows
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks, randomness
from xaicore.core.errors import UserError

STD = 8 / 255
"""Standard deviation of noise that is like nothing, the ``eps`` of the sign attacks."""


def gaussian(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    like: Tensor | None = None,
    mean: float | Tensor | None = None,
    std: float | Tensor | None = None,
    scale: float = 1.0,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Add Gaussian noise with the moments of ``like``, image by image, or with given ones.

    Moments run over all values of an image, channels included; the deviation divides by their number. They
    hold in the noise; clipping to [0, 1] then takes some of it away where the image is near black or white,
    and ``info`` says what is left. An image of a single value has no deviation and gets the mean alone.

    Args:
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`; ``model`` is only measured,
            never used. The draw depends on seed and index alone: other moments move and stretch the same noise.
        like: (N, C, H, W), a perturbation ``adversarial - images`` of each image; then without ``mean`` and
            ``std``.
        mean: of the noise before ``scale``, a number or (N,); None: 0.
        std: of the noise before ``scale``, a number or (N,), at least 0; None: 8/255.
        scale: factor of the noise, so of both moments; greater than 0.

    Returns:
        The result. ``queries`` is 0: the noise needs no model. ``info["mean"]`` and ``info["std"]`` (N,)
        float32 are those of ``adversarial - images``, after clipping.

    Raises:
        ValueError: also if ``like`` is given together with ``mean`` or ``std``.

    References:
        Renkhoff et al. (2022), Exploring adversarial attacks on neural networks: an explainable approach,
        Sec. III-A.
    """
    checks.images(images)
    scale = checks.positive("scale", scale)
    seed = checks.integer("seed", seed, least=0)
    if like is not None:
        if mean is not None or std is not None:
            raise UserError("like must be given without mean and std: it has its own")
        if checks.tensor("like", like).shape != images.shape:
            sizes = f"{tuple(images.shape)}, not {tuple(like.shape)}"
            raise UserError(f"like must have the shape of images, {sizes}")
        means, stds = _moments(checks.finite("like", like))
    else:
        means = _numbers("mean", 0.0 if mean is None else mean, len(images), least=-math.inf)
        stds = _numbers("std", STD if std is None else std, len(images), least=0)

    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor, extras: dict[str, Tensor]) -> Attempt:
        noise = _standard_draws(seed, index, images.shape[1:])
        noise.mul_(rows(scale * extras["std"], noise)).add_(rows(scale * extras["mean"], noise))
        adversarial = noise.add_(images).clamp_(0, 1)
        mean, std = _moments(adversarial - images)
        return Attempt(adversarial, torch.zeros_like(index), {"mean": mean, "std": std})

    extras = {"mean": means, "std": stds}
    return run(step, model, images, labels, target=target, index=index, batch_size=batch_size, extras=extras)


def noise_like(perturbation: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
    """Return Gaussian noise with the mean and standard deviation of each perturbation, before any clipping.

    It is the noise that :func:`gaussian` adds for the same ``like``, ``seed`` and ``index``.

    Args:
        perturbation: (N, C, H, W) floating point, finite, such as ``adversarial - images``.
        seed, index: as in :mod:`xaicore.attacks`.

    Returns:
        (N, C, H, W) float32 on the device of ``perturbation``.
    """
    noise = checks.finite("perturbation", perturbation).float()
    seed = checks.integer("seed", seed, least=0)
    count = len(noise)
    index = torch.arange(count) if index is None else checks.integers("index", index, count)
    means, stds = _moments(noise)
    drawn = _standard_draws(seed, index.to(noise.device), noise.shape[1:])
    return drawn.mul_(rows(stds, drawn)).add_(rows(means, drawn))


def _standard_draws(seed: int, index: Tensor, shape: torch.Size) -> Tensor:
    """Return noise (n, *shape) with mean 0 and standard deviation 1 in each row, on the device of ``index``."""
    noise = randomness.normal(seed, index, torch.zeros_like(index), shape)
    mean, _ = _moments(noise)
    noise.sub_(rows(mean, noise))
    _, std = _moments(noise)
    return noise.div_(rows(std.masked_fill(std == 0, 1), noise))


def _moments(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (n,) of each of ``batch`` (n, ...), float32 on its device.

    One row at a time, as a row of a long sum is split among threads only where it is alone.
    """
    pairs = [torch.std_mean(row.double(), correction=0) for row in batch.cpu()]
    std, mean = torch.tensor(pairs, dtype=torch.float64).view(-1, 2).float().to(batch.device).unbind(1)
    return mean, std


def _numbers(name: str, value: object, count: int, least: float) -> Tensor:
    """Return a number or (count,) tensor as a float32 tensor (count,), finite and at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        raise TypeError(f"{name} must be a number or a torch.Tensor, not {type(value).__name__}")
    numbers = value.detach() if isinstance(value, Tensor) else torch.full((count,), float(value))
    if numbers.shape != (count,):
        raise UserError(f"{name} must have shape ({count},), one for each image, not {tuple(numbers.shape)}")
    if not numbers.is_floating_point() or not numbers.isfinite().all() or (numbers < least).any():
        bound = f" of at least {least:g}" if math.isfinite(least) else ""
        raise UserError(f"{name} must hold finite numbers{bound}")
    return numbers.float()
