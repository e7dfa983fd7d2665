"""What enters the linear layer that gives the logits of a network: the features that several detectors look at."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xaicore.core.errors import UserError


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a model; UserError where it has none."""
    found = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not found:
        raise UserError("model must end in a linear layer, what enters it is asked for")
    return found


def entering(model: nn.Module, passed: Callable[[], Tensor]) -> tuple[Tensor, Tensor, nn.Linear]:
    """Return what enters the linear layer that gives the logits, while ``passed`` passes images through ``model``.

    The layer is known by its output, which is what the model returns: it need be neither the last one registered nor the
    last one run, and what else it is run on does not count.

    Returns:
        What enters the layer, (N, D) float64, the logits (N, K) that ``passed`` gives, both with slopes, and the layer.

    Raises:
        UserError: no linear layer gives the logits as they are, or not the same one in all passes.
    """
    run: list[tuple[nn.Linear, Tensor, Tensor]] = []
    kept: list[tuple[nn.Linear | None, Tensor]] = []

    def keep(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        run.append((layer, inputs[0].clone(), output.clone()))

    def ended(_: nn.Module, inputs: tuple[Tensor, ...], returned: object) -> None:
        giving = [(layer, entered) for layer, entered, output in run if _same(output, returned)]
        kept.append(giving[-1] if giving else (None, torch.empty(0)))
        run.clear()

    handles = [layer.register_forward_hook(keep) for layer in linear_layers(model)]
    handles.append(model.register_forward_hook(ended))
    try:
        logits = passed()
    finally:
        for handle in handles:
            handle.remove()
    layers = {layer for layer, _ in kept}
    layer = layers.pop() if len(layers) == 1 else None
    if layer is None:
        raise UserError(
            "model must end in a linear layer that gives the logits, with nothing behind it but a change of shape: "
            "wrap the network in a module that returns what this layer gives"
        )
    features = torch.cat([entered.reshape(-1, layer.in_features) for _, entered in kept])[: len(logits)]
    return features.double(), logits, layer


def _same(output: Tensor, returned: object) -> bool:
    """Return whether the output of a layer is what the model returned, but for its shape and rounding."""
    if not isinstance(returned, Tensor) or output.shape[-1:] != returned.shape[-1:]:
        return False
    if output.numel() != returned.numel():
        return False
    given = output.detach().reshape(returned.shape)
    return torch.allclose(given.double(), returned.detach().double(), equal_nan=True)
