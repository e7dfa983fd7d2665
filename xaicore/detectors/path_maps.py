r"""Maps that average gradients along ways to an image: integrated gradients, smoothed ones, GradientSHAP.

.. math:: M = \sum_k w_k (x + \epsilon_k - x^0_k) \odot \frac{\partial z_t}{\partial x}
          \Big|_{x^0_k + \alpha_k (x + \epsilon_k - x^0_k)}

Each of them is a list of :class:`Waypoint`. :func:`integrated` takes the points of a quadrature (Sundararajan et al.,
ICML 2017, Eq. 1). :func:`smoothed` takes each of them on the way to a noisy copy of its own: the expectation over
:math:`\epsilon` of integrated gradients, which SmoothGrad (Smilkov et al. 2017) estimates by a full quadrature for each
copy, at a fraction of the passes. :func:`expected` takes random ones between random clean images and the noisy image
(Lundberg and Lee, NeurIPS 2017). The noise is the same for all images, so that an image and its denoised version are
compared at the same points, and what comes out for an image does not depend on its number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from xaicore.core.batched_model import BatchedModel
from xaicore.core.randomness import stream

NOISE, ORDER, PLACE = range(3)
"""Purposes of random draws."""


@dataclass(frozen=True)
class Waypoint:
    """One point of a way, for every image.

    Attributes:
        start: (C, H, W) where the way begins, or 0 for black.
        noise: (C, H, W) what is added to the image, or 0.
        place: how far along the way, 0 at the start, 1 at the image.
        weight: of its gradient.
    """

    start: Tensor | float
    noise: Tensor | float
    place: float
    weight: float


def integrated(count: int) -> list[Waypoint]:
    """Return ``count`` points of a Gauss-Legendre quadrature of the way from black, as Captum takes them."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return [
        Waypoint(0.0, 0.0, float(node + 1) / 2, float(weight) / 2)
        for node, weight in zip(nodes, weights, strict=True)
    ]


def smoothed(shape: torch.Size, count: int, *, std: float, seed: int) -> list[Waypoint]:
    """Return the points of :func:`integrated`, each on the way to a noisy copy of its own.

    Args:
        shape: (C, H, W) of an image.
        count: number of points.
        std: standard deviation of the noise.
        seed: of the noise.
    """
    return [
        replace(point, noise=_noise(seed, place, shape, std)) for place, point in enumerate(integrated(count))
    ]


def expected(baselines: Tensor, count: int, *, std: float, seed: int) -> list[Waypoint]:
    """Return random points of GradientSHAP, one in each of ``count`` equal parts of the way.

    Args:
        baselines: (M, C, H, W) clean images; each is taken as often as another, as far as the number allows.
        count: number of points.
        std: standard deviation of the noise.
        seed: of all draws.
    """
    order = stream(seed, 0, purpose=ORDER).permutation(len(baselines))
    places = (np.arange(count) + stream(seed, 0, purpose=PLACE).random(count)) / count
    return [
        Waypoint(
            baselines[order[number % len(baselines)]],
            _noise(seed, number, baselines.shape[1:], std),
            float(place),
            1 / count,
        )
        for number, place in enumerate(places)
    ]


def path_maps(
    model: nn.Module, images: Tensor, targets: Tensor, points: Sequence[Waypoint], *, batch_size: int = 32
) -> Tensor:
    """Return the maps of the logits of ``targets`` along the ways, (N, C, H, W), in the units of ``images``.

    Every pass of the model has ``batch_size`` rows, so that the map of an image does not depend on the others.

    Args:
        model: (N, C, H, W) images to (N, K) logits.
        images: (N, C, H, W) float32.
        targets: (N,) int64.
        points: the points of the ways.
        batch_size: rows of a pass; memory grows with it, not with N or the points.
    """
    maps = torch.zeros(images.shape)
    with BatchedModel.of(model, images, batch_size) as batched:
        number = torch.arange(len(images)).repeat_interleave(len(points))
        which = torch.arange(len(points)).repeat(len(images))
        for rows in torch.arange(len(number)).split(batch_size):
            chosen = [points[at] for at in which[rows].tolist()]
            ends = images[number[rows]].cpu() + _stacked([point.noise for point in chosen], images)
            ways = ends - _stacked([point.start for point in chosen], images)
            places = torch.tensor([point.place for point in chosen], dtype=images.dtype).view(-1, 1, 1, 1)
            weights = torch.tensor([point.weight for point in chosen], dtype=images.dtype).view(-1, 1, 1, 1)
            wanted = targets[number[rows]].to(batched.device)

            def objective(logits: Tensor, part: slice, wanted: Tensor = wanted) -> Tensor:
                return logits.gather(1, wanted[part, None])[:, 0]

            _, rates = batched.differentiate((ends - (1 - places) * ways).to(batched.device), objective)
            maps.index_add_(0, number[rows], weights * ways * rates.cpu())
    return maps.to(images.device)


def _noise(seed: int, number: int, shape: torch.Size, std: float) -> Tensor:
    drawn = stream(seed, 0, number, purpose=NOISE).standard_normal(tuple(shape), dtype=np.float32)
    return std * torch.from_numpy(drawn)


def _stacked(values: Sequence[Tensor | float], images: Tensor) -> Tensor:
    """Return tensors (C, H, W) or numbers as (n, C, H, W)."""
    shape = images.shape[1:]
    return torch.stack([torch.as_tensor(value, dtype=images.dtype).expand(shape) for value in values])
