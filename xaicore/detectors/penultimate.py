"""What enters the last linear layer of a network: the features that several detectors look at."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xaicore.core.errors import UserError


def last_linear(model: nn.Module) -> nn.Linear:
    """Return the last linear layer of a model; UserError where it has none."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError("model must end in a linear layer, what enters it is asked for")
    return linear[-1]


def entering(layer: nn.Linear, passed: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Return what enters ``layer``, (N, D) float64, while ``passed`` gives the logits (N, K), and these; with slopes.

    Raises:
        UserError: the layer does not give the logits.
    """
    kept: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].clone()))
    try:
        logits = passed()
    finally:
        handle.remove()
    features = torch.cat(kept)[: len(logits)].double() if kept else torch.empty(0, 0)
    if features.ndim != 2 or logits.shape[1] != layer.out_features:
        raise UserError("model must end in a linear layer that gives the logits")
    return features, logits
