"""Attribution: heatmaps that say which pixels a decision rests on.

:func:`lrp` propagates relevance with the presets of :data:`PRESETS`; :func:`gradient` and
:func:`input_times_gradient` are the plain gradient methods. All take (model, images, targets) and return
maps of the shape of the images, on the input of the network (after normalisation).
"""

from xaicore.attribution.gradients import gradient, input_times_gradient
from xaicore.attribution.presets import PRESETS, Preset
from xaicore.attribution.relevance import lrp

__all__ = ["PRESETS", "Preset", "gradient", "input_times_gradient", "lrp"]
