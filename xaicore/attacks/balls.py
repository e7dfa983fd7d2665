"""Staying in a ball around an image: norms, directions and bounds that hold in float32 to the last bit.

A projection computed in float32 can end a rounding outside its ball. Here such values go one float back towards
the image, so that the perturbation as a reader measures it, ``adversarial - images``, keeps the budget.
"""

import torch
from torch import Tensor

from xaicore.attacks.iteration import rows


def bound(images: Tensor, shift: float | Tensor) -> Tensor:
    """Return ``images + shift`` in [0, 1], one float nearer to them where rounding took it beyond ``shift``."""
    bounds = (images + shift).clamp_(0, 1)
    beyond = (bounds - images).abs_() > (shift.abs() if isinstance(shift, Tensor) else abs(shift))
    return torch.where(beyond, bounds.nextafter(images), bounds)


def project(points: Tensor, images: Tensor, eps: float, low: Tensor | None, high: Tensor | None) -> Tensor:
    """Return ``points`` (N, C, H, W) projected in place on a ball around ``images`` and on [0, 1].

    Args:
        points: changed in place.
        images: centres.
        eps: radius of an L2 ball.
        low, high: bounds of an L-infinity ball, as :func:`bound` gives them; None for an L2 ball.
    """
    if low is not None:
        return points.clamp_(low, high)
    shift = points.sub_(images)
    shrink = (eps / length(shift, 2)).clamp_(max=1)
    return shift.mul_(rows(shrink, shift)).add_(images).clamp_(0, 1)


def no_further(points: Tensor, images: Tensor, eps: float) -> Tensor:
    """Return ``points``, drawn towards ``images`` where rounding took them out of the L2 ball."""
    shift = points - images
    far = length(shift, 2)
    shift.mul_(rows(eps / far, shift))
    nearer = images + shift
    beyond = (nearer - images).abs_() > shift.abs_()
    nearer = torch.where(beyond, nearer.nextafter(images), nearer)
    return torch.where(rows(far > eps, points), nearer, points)


def normalised(vectors: Tensor, order: float) -> Tensor:
    """Divide each of ``vectors`` (n, C, H, W) by its norm, in place; zero stays zero.

    Each is divided by its largest value first: squares of values under 1e-23 or over 1e19 are no floats.
    """
    peak = vectors.abs().amax(dim=(1, 2, 3))
    vectors.div_(rows(peak.masked_fill_(peak == 0, 1), vectors))
    far = length(vectors, order)
    return vectors.div_(rows(far.masked_fill_(far == 0, 1), vectors))


def length(vectors: Tensor, order: float) -> Tensor:
    """Return the norms (n,) of (n, C, H, W), by lines first.

    A single long sum would be split among threads where it is the only one, and come out otherwise than
    beside others.
    """
    lines = torch.linalg.vector_norm(vectors, ord=order, dim=3).flatten(1)
    return torch.linalg.vector_norm(lines, ord=order, dim=1)
