"""What pages call the explanations of :data:`xaicore.detectors.EXPLANATIONS`."""

from xaicore.attribution.titles import TITLES as METHOD_TITLES
from xaicore.detectors.explainer import EXPLANATIONS

TITLES = {
    **{name: METHOD_TITLES.get(name, name) for name in EXPLANATIONS},
    "smooth_ig": "IG + SmoothGrad",
    "shap": "SHAP",
    "guided_grad_cam": "Guided Grad-CAM",
}
