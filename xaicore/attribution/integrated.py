r"""Gradients averaged on the way from a baseline: integrated gradients and GradientSHAP.

.. math:: (x - x^0) \odot \int_0^1 \frac{\partial z_t}{\partial x}\big(x^0 + \alpha (x - x^0)\big) \, d\alpha

Sundararajan et al., ICML 2017, Eq. 1, by Gauss-Legendre quadrature, as Captum does it. GradientSHAP is the expectation of
the integrand over random :math:`\alpha`, baselines and noise on x (Lundberg and Lee, NeurIPS 2017, as in the
package shap; Erion et al., Nature Machine Intelligence 3, 2021, Eq. 3), on random streams that depend on the
seed, the number of the image and of the sample alone. :func:`path_integral` adds up the points of either.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from xaicore.attribution.batches import batches, logits_of
from xaicore.attribution.gradients import slopes
from xaicore.attribution.inputs import check_baselines, check_call, chosen_logits, network_input, network_of
from xaicore.core import checks
from xaicore.core.randomness import normal, stream, uniform
from xaicore.core.undisturbed import undisturbed

NOISE, PLACE, ORDER = range(3)
"""Purposes of random draws."""


class Points(NamedTuple):
    """Points on the ways to images.

    Attributes:
        inputs: (R, C, H, W) the points.
        ways: (R, C, H, W) the whole way that each lies on, its end minus its beginning.
        weights: (R, 1, 1, 1) of their gradients.
    """

    inputs: Tensor
    ways: Tensor
    weights: Tensor


def path_integral(
    gradient: Callable[[Tensor, Tensor], Tensor],
    points: Callable[[Tensor, Tensor], Points],
    images: int,
    samples: int,
    batch_size: int,
) -> Tensor:
    r"""Return the maps :math:`\sum_k w_k (b_k - a_k) \odot g(a_k + \alpha_k (b_k - a_k))`, (images, C, H, W) on the CPU.

    Args:
        gradient: points (R, C, H, W) and the numbers (R,) of their images -> the gradients g there.
        points: numbers of images (R,) and of samples (R,) -> the points.
        images: number of images, at least 1.
        samples: points of each image.
        batch_size: most points R at once.
    """
    maps: Tensor | None = None
    for rows in torch.arange(images * samples).split(batch_size):
        number = rows // samples
        inputs, ways, weights = points(number, rows % samples)
        parts = weights * ways * gradient(inputs, number)
        if maps is None:
            maps = torch.zeros(images, *parts.shape[1:], dtype=parts.dtype)
        maps.index_add_(0, number, parts.cpu())
    assert maps is not None
    return maps


def quadrature(n: int) -> tuple[Tensor, Tensor]:
    """Return the nodes and the weights of Gauss and Legendre's quadrature on [0, 1], (n, 1, 1, 1) float64 each."""
    nodes, weights = (torch.from_numpy(each).view(-1, 1, 1, 1) for each in np.polynomial.legendre.leggauss(n))
    return (nodes + 1) / 2, weights / 2


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    baselines: float | Tensor | None = None,
    n_steps: int = 50,
    return_convergence_delta: bool = False,
    batch_size: int = 32,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the integrated gradients of the chosen logit on the straight way from a baseline.

    Errors are those of :func:`~xaicore.attribution.gradient`, also for baselines of a wrong kind or shape.

    Args:
        model, images, targets: as for :func:`~xaicore.attribution.gradient`.
        baselines: where the way starts, in the units of ``images``: a number, or a tensor broadcastable to
            (C, H, W) or to the images; None for black, 0.
        n_steps: points of the quadrature.
        return_convergence_delta: whether to return the completeness error too.
        batch_size: how many points are computed at once; memory grows with it, not with N or ``n_steps``.

    Returns:
        (N, C, H, W) on the device of ``images``; with ``return_convergence_delta`` also (N,), the sum of each
        map minus the difference of the logits between image and baseline.
    """
    indices = check_call(model, images, targets, batch_size)
    checks.integer("n_steps", n_steps, least=1)
    starts = check_baselines(baselines, images, paired=True)
    places, weights = quadrature(n_steps)

    def points(begins: Tensor, number: Tensor, sample: Tensor, seen: Callable[[Tensor], Tensor]) -> Points:
        ways = seen(images.detach()[number]) - begins
        return Points(begins + places[sample].to(ways) * ways, ways, weights[sample].to(ways))

    taken = (torch.arange(len(images)) % len(starts))[:, None].expand(-1, n_steps)
    maps, deltas = _along(model, images, indices, starts, taken, points, batch_size)
    return (maps, deltas) if return_convergence_delta else maps


def gradient_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    baselines: float | Tensor | None = None,
    n_samples: int = 50,
    std: float = 0.0,
    seed: int = 0,
    return_convergence_delta: bool = False,
    batch_size: int = 32,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return GradientSHAP (expected gradients) of the chosen logit.

    Each sample takes one of the baselines, a place on the way from it to the image drawn uniformly, and
    normal noise on the image. The baselines are gone through in random order, again and again, so each is
    taken as often as another where ``n_samples`` is a multiple of their number.

    Args:
        model, images, targets, return_convergence_delta, batch_size: as for :func:`integrated_gradients`, as are errors.
        baselines: the baselines of all images, in their units: (M, C, H, W), a tensor broadcastable to
            (C, H, W), or a number; None for black, 0.
        n_samples: samples of each image.
        std: standard deviation of the noise, in the units of ``images``; noisy images are not clipped.
        seed: of all draws, at least 0.

    Returns:
        (N, C, H, W) on the device of ``images``; with ``return_convergence_delta`` also (N,), the sum of each
        map minus the difference between the image's logit and the mean logit of the baselines it took.
    """
    indices = check_call(model, images, targets, batch_size)
    checks.integer("n_samples", n_samples, least=1)
    checks.integer("seed", seed, least=0)
    checks.not_negative("std", std)
    starts = check_baselines(baselines, images)

    def points(begins: Tensor, number: Tensor, sample: Tensor, seen: Callable[[Tensor], Tensor]) -> Points:
        ends = images.detach()[number]
        if std:
            ends = ends + std * normal(seed, number, sample, ends.shape[1:], purpose=NOISE).to(ends)
        places = uniform(seed, number, sample, (1, 1, 1), purpose=PLACE).to(begins)
        ends = seen(ends)
        return Points(torch.lerp(begins, ends, places), ends - begins, torch.full_like(places, 1 / n_samples))

    taken = _taken(seed, len(images), len(starts), n_samples)
    maps, deltas = _along(model, images, indices, starts, taken, points, batch_size)
    return (maps, deltas) if return_convergence_delta else maps


def _along(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    starts: Tensor,
    taken: Tensor,
    points: Callable[[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]], Points],
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Return the maps and their completeness errors.

    Args:
        taken: (N, samples) which of the baselines ``starts`` each way begins at.
        points: where the ways begin, the numbers of images and samples, and what turns images into what the network
            sees -> the points.
    """
    if not len(images):
        return torch.empty_like(images, requires_grad=False), images.new_empty(0)
    network = network_of(model)
    with undisturbed(model) as device:
        chosen, after = chosen_logits(_logits(model, images, batch_size), targets)
        before = _logits(model, starts, batch_size)[taken.to(device), chosen[:, None]].mean(1)

        def seen(given: Tensor) -> Tensor:
            return network_input(model, given.to(device))

        def along(number: Tensor, sample: Tensor) -> Points:
            return points(seen(starts[taken[number, sample]]), number, sample, seen)

        def gradient(inputs: Tensor, number: Tensor) -> Tensor:
            return slopes(network, inputs, chosen[number.to(device)])

        maps = path_integral(gradient, along, len(images), taken.shape[1], batch_size).to(images.device)
    return maps, maps.sum((1, 2, 3)) - (after - before).to(images.device)


def _taken(seed: int, images: int, baselines: int, n_samples: int) -> Tensor:
    """Return which baseline each sample of each image takes, (images, n_samples)."""
    rounds = -(-n_samples // baselines)
    taken = np.empty((images, n_samples), dtype=np.int64)
    for number, row in enumerate(taken):
        draws = stream(seed, number, purpose=ORDER)
        row[:] = np.concatenate([draws.permutation(baselines) for _ in range(rounds)])[:n_samples]
    return torch.from_numpy(taken)


def _logits(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    with torch.no_grad():
        parts = batches(model, images, None, batch_size)
        return torch.cat([logits_of(network_of(model), part.inputs) for part in parts])
