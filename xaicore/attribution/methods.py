r"""Every explanation by name, called alike, and SmoothGrad: the mean of any of them over noisy copies of the image.

.. math:: \frac{1}{n} \sum_{k=1}^{n} M(x + \epsilon_k), \qquad \epsilon_k \sim \mathcal{N}(0, \sigma^2)

Smilkov et al., ICML workshop 2017, Eq. 1 of Sec. 3. The noise depends on the seed, the number of the image and
of the sample alone.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.attribution.batches import resolved_targets
from xaicore.attribution.contrastive import clrp, sglrp
from xaicore.attribution.deep_lift import deep_lift
from xaicore.attribution.gradients import gradient, input_times_gradient
from xaicore.attribution.guided import enlarged_grad_cam, guided_backprop, guided_grad_cam
from xaicore.attribution.inputs import check_call
from xaicore.attribution.integrated import gradient_shap, integrated_gradients
from xaicore.attribution.relevance import lrp
from xaicore.core import checks
from xaicore.core.randomness import normal
from xaicore.core.undisturbed import undisturbed


def smooth_grad(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    method: str | Callable[..., Tensor] = "gradient",
    n_samples: int = 50,
    std: float = 0.15,
    seed: int = 0,
    batch_size: int = 32,
    **options: Any,
) -> Tensor:
    """Return the mean of ``method`` over noisy copies of each image.

    Args:
        model, images, targets: as for :func:`~xaicore.attribution.gradient`, as are errors; None for the arg max of the
            logits of the images without noise.
        method: a name in :data:`~xaicore.attribution.METHODS`, or a function that is called as
            ``method(model, images, targets, batch_size=…, **options)``. One that draws numbers itself gets
            ``seed`` plus the number of the sample, from 1, as its own seed.
        n_samples: noisy copies of each image.
        std: standard deviation of the noise in the units of ``images``; the paper takes 10 to 20 % of the
            image's range. Noisy images are not clipped.
        seed: of the noise, at least 0.
        batch_size: how many noisy images are computed at once; memory grows with it, not with
            ``n_samples``.
        options: further arguments of ``method``.

    Returns:
        What ``method`` returns, (N, C, H, W), on the device of ``images``.
    """
    indices = check_call(model, images, targets, batch_size)
    checks.integer("n_samples", n_samples, least=1)
    checks.integer("seed", seed, least=0)
    checks.not_negative("std", std)
    explain = METHODS[checks.one_of("method", method, METHODS)] if isinstance(method, str) else method
    if not callable(explain):
        raise TypeError(f"method must be a name or a function, not {method!r}")
    with undisturbed(model):
        chosen = resolved_targets(model, images, indices, batch_size)
    draws = "seed" in inspect.signature(explain).parameters
    at_once = 1 if draws else max(1, batch_size // max(1, len(images)))
    numbers, clean = torch.arange(len(images)), images.detach()
    total: Tensor | None = None
    for samples in torch.arange(n_samples).split(at_once):
        number, sample = numbers.repeat(len(samples)), samples.repeat_interleave(len(images))
        noise = normal(seed, number, sample, images.shape[1:]).to(images)
        seeded = {"seed": seed + 1 + int(samples[0])} if draws else {}  # not the noise once more
        maps = explain(
            model,
            clean[number] + std * noise,
            chosen.repeat(len(samples)),
            batch_size=batch_size,
            **seeded,
            **options,
        )
        part = maps.unflatten(0, (len(samples), len(images))).sum(0)
        total = part if total is None else total + part
    assert total is not None
    return total / n_samples


METHODS: dict[str, Callable[..., Any]] = {
    "gradient": gradient,
    "input_times_gradient": input_times_gradient,
    "integrated_gradients": integrated_gradients,
    "deep_lift": deep_lift,
    "gradient_shap": gradient_shap,
    "smooth_grad": smooth_grad,
    "guided_backprop": guided_backprop,
    "grad_cam": enlarged_grad_cam,
    "guided_grad_cam": guided_grad_cam,
    "lrp": lrp,
    "clrp": clrp,
    "sglrp": sglrp,
}
"""Name to function (model, images, targets=None, *, batch_size) -> maps (N, C, H, W).

Each with its defaults: LRP with preset-a-flat. ``grad_cam`` is that of the last convolution or attention whose
map has more than one cell, enlarged bilinearly to (N, 1, H, W).
"""
