"""Every explanation by name, called alike: for pages that compare them and checks that they all undergo."""

from collections.abc import Callable
from typing import Any

from xaicore.attribution.contrastive import clrp, sglrp
from xaicore.attribution.deep_lift import deep_lift
from xaicore.attribution.gradients import gradient, input_times_gradient
from xaicore.attribution.guided import enlarged_grad_cam, guided_backprop, guided_grad_cam
from xaicore.attribution.integrated import gradient_shap, integrated_gradients
from xaicore.attribution.relevance import lrp
from xaicore.attribution.smoothing import smooth_grad

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

Each with its defaults: LRP with preset-a-flat. ``grad_cam`` is that of the last convolution, enlarged bilinearly
to (N, 1, H, W).
"""
