"""What pages call the explanations of :data:`xaicore.attribution.METHODS`, with their defaults, and of the detectors.

They stand apart from the explanations themselves: another title must not change the address of what was computed.
"""

TITLES = {
    "gradient": "gradient",
    "input_times_gradient": "input × gradient",
    "integrated_gradients": "integrated gradients",
    "deep_lift": "DeepLIFT",
    "gradient_shap": "GradientSHAP",
    "smooth_grad": "SmoothGrad",
    "guided_backprop": "guided backpropagation",
    "grad_cam": "Grad-CAM",
    "guided_grad_cam": "Guided Grad-CAM",
    "lrp": "LRP preset-a-flat",
    "clrp": "CLRP",
    "sglrp": "SGLRP",
    "smooth_ig": "IG + SmoothGrad",
    "shap": "SHAP",
}
