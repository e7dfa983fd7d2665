r"""Gradients averaged on the way from a baseline: integrated gradients and GradientSHAP.

.. math:: (x - x^0) \odot \int_0^1 \frac{\partial z_t}{\partial x}\big(x^0 + \alpha (x - x^0)\big) \, d\alpha

Sundararajan et al., ICML 2017, Eq. 1, by Captum's Gauss-Legendre quadrature. GradientSHAP is the expectation of
the integrand over random :math:`\alpha`, baselines and noise on x (Lundberg and Lee, NeurIPS 2017, as in the
package shap; Erion et al., Nature Machine Intelligence 3, 2021, Eq. 3), on random streams that depend on the
seed, the number of the image and of the sample alone.
"""

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from xaicore.attribution.baselines import check_baselines, check_one_or_each
from xaicore.attribution.batches import batches, logits_at, logits_of, resolved_targets, target_logits
from xaicore.attribution.gradients import slopes
from xaicore.attribution.inputs import (
    check_call,
    network_input,
    network_of,
)
from xaicore.core import checks
from xaicore.core.randomness import normal, stream, uniform
from xaicore.core.undisturbed import undisturbed

NOISE, PLACE, ORDER = range(3)
"""Purposes of random draws."""


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

    Raises:
        ValueError: an argument is out of range or does not fit the model.
        TypeError: ``images``, ``targets`` or ``baselines`` is of a wrong kind.
    """
    indices = check_call(model, images, targets, batch_size)
    checks.integer("n_steps", n_steps, least=1)
    starts = check_baselines(baselines, images)
    check_one_or_each(starts, len(images))
    network = network_of(model)
    explainer = _quadrature()(lambda inputs: network(inputs.clone()))
    with undisturbed(model) as device:
        maps, deltas = torch.empty_like(images, requires_grad=False), images.new_empty(len(images))
        for batch in batches(model, images, indices, batch_size):
            start = network_input(model, (starts if len(starts) == 1 else starts[batch.rows]).to(device))
            with torch.no_grad():
                chosen, values = target_logits(network, batch.inputs, batch.targets)
                before = logits_at(logits_of(network, start), chosen)
            result = explainer.attribute(
                batch.inputs,
                start.expand_as(batch.inputs),
                target=chosen,
                n_steps=n_steps,
                internal_batch_size=batch_size,
            )
            maps[batch.rows] = result.to(images.device)
            deltas[batch.rows] = (result.sum((1, 2, 3)) - (values - before)).to(images.device)
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
        model, images, targets: as for :func:`~xaicore.attribution.gradient`.
        baselines: the baselines of all images, in their units: (M, C, H, W), a tensor broadcastable to
            (C, H, W), or a number; None for black, 0.
        n_samples: samples of each image.
        std: standard deviation of the noise, in the units of ``images``; noisy images are not clipped.
        seed: of all draws, at least 0.
        return_convergence_delta: whether to return the completeness error too.
        batch_size: how many samples are computed at once; memory grows with it, not with N or
            ``n_samples``.

    Returns:
        (N, C, H, W) on the device of ``images``; with ``return_convergence_delta`` also (N,), the sum of each
        map minus the difference between the image's logit and the mean logit of the baselines it took.

    Raises:
        ValueError: an argument is out of range or does not fit the model.
        TypeError: ``images``, ``targets`` or ``baselines`` is of a wrong kind.
    """
    indices = check_call(model, images, targets, batch_size)
    checks.integer("n_samples", n_samples, least=1)
    checks.integer("seed", seed, least=0)
    checks.not_negative("std", std)
    starts = check_baselines(baselines, images)
    network = network_of(model)
    with undisturbed(model) as device:
        maps, deltas = torch.empty_like(images, requires_grad=False), images.new_empty(len(images))
        chosen = resolved_targets(model, images, indices, batch_size)
        before = _logits(model, starts, batch_size)
        for batch in batches(model, images, chosen, batch_size):
            numbers = torch.arange(batch.rows.start, batch.rows.stop)
            taken = _taken(seed, numbers, len(starts), n_samples)
            total = torch.zeros_like(batch.inputs)
            at_once = batch_size // len(numbers)
            for samples in torch.arange(n_samples).split(at_once):
                number, sample = numbers.repeat(len(samples)), samples.repeat_interleave(len(numbers))
                ends = images.detach()[number]
                if std:
                    ends = ends + std * normal(seed, number, sample, ends.shape[1:], purpose=NOISE).to(ends)
                begins = starts[taken[number - batch.rows.start, sample]]
                begins, ends = (network_input(model, points.to(device)) for points in (begins, ends))
                places = uniform(seed, number, sample, (1, 1, 1), purpose=PLACE).to(ends)
                points = torch.lerp(begins, ends, places)
                rates = slopes(network, points, chosen[batch.rows].repeat(len(samples)))
                total += (rates * (ends - begins)).unflatten(0, (len(samples), -1)).sum(0)
            maps[batch.rows] = (total / n_samples).to(images.device)
            with torch.no_grad():
                _, after = target_logits(network, batch.inputs, batch.targets)
            change = after - before[taken.to(device), chosen[batch.rows, None]].mean(1)
            deltas[batch.rows] = ((total / n_samples).sum((1, 2, 3)) - change).to(images.device)
    return (maps, deltas) if return_convergence_delta else maps


def _quadrature() -> type:
    """Import Captum, which takes a second and warns in a notebook that has no progress widgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.attr import IntegratedGradients
    found: type = IntegratedGradients
    return found


def _taken(seed: int, numbers: Tensor, baselines: int, n_samples: int) -> Tensor:
    """Return which baseline each sample of each image takes, (images, n_samples)."""
    rounds = -(-n_samples // baselines)
    rows = []
    for number in numbers.tolist():
        draws = stream(seed, number, purpose=ORDER)
        rows.append(np.concatenate([draws.permutation(baselines) for _ in range(rounds)])[:n_samples])
    return torch.from_numpy(np.stack(rows))


def _logits(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    with torch.no_grad():
        return torch.cat(
            [logits_of(network_of(model), b.inputs) for b in batches(model, images, None, batch_size)]
        )
