"""Attribution: heatmaps that say which pixels a decision rests on.

:func:`lrp` propagates relevance with the presets of :data:`PRESETS`; :func:`grad_cam` gives the maps of every
layer at once. :data:`METHODS` names every explanation; all take (model, images, targets) and return maps of the
shape of the images, on the input of the network (after normalisation). A network with one logit (N, 1) is explained as
it is, with target 0 or None: what speaks for a large logit, whichever class that stands for.
"""

from xaicore.attribution.contrastive import clrp, sglrp
from xaicore.attribution.deep_lift import deep_lift
from xaicore.attribution.grad_cam import GradCams, grad_cam
from xaicore.attribution.gradients import gradient, input_times_gradient
from xaicore.attribution.guided import guided_backprop, guided_grad_cam
from xaicore.attribution.integrated import gradient_shap, integrated_gradients
from xaicore.attribution.methods import METHODS, smooth_grad
from xaicore.attribution.presets import PRESETS, Preset
from xaicore.attribution.relevance import lrp
from xaicore.attribution.signature import signatures

__all__ = [
    "METHODS",
    "PRESETS",
    "GradCams",
    "Preset",
    "clrp",
    "deep_lift",
    "grad_cam",
    "gradient",
    "gradient_shap",
    "guided_backprop",
    "guided_grad_cam",
    "input_times_gradient",
    "integrated_gradients",
    "lrp",
    "sglrp",
    "signatures",
    "smooth_grad",
]
