"""What every attribution shares: the checks of a call, the logits it explains, the network in a classifier."""

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.core.outputs import naming_images


def check_call(
    model: nn.Module, images: Tensor, targets: Tensor | int | None, batch_size: int
) -> Tensor | None:
    """Check what every attribution is given; return the targets as an int64 tensor (N,), or None.

    Raises:
        TypeError: ``images`` are no floating-point tensor, or ``targets`` are no integers.
        UserError: a shape, another type than that of the model's parameters, NaN or infinite images, negative targets,
            or a ``batch_size`` below 1.
    """
    checks.finite("images", images)
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    if images.dtype != dtype:
        raise UserError(f"images must have the type of the model's parameters, {dtype}, not {images.dtype}")
    checks.integer("batch_size", batch_size, least=1)
    return checks.targets(targets, len(images))


def check_baselines(baselines: float | Tensor | None, images: Tensor, *, paired: bool = False) -> Tensor:
    """Return ``baselines`` as (M, C, H, W) of the type and on the device of ``images``; None is black, 0.

    Raises:
        TypeError: no number and no floating-point tensor.
        ValueError: not finite, empty, not broadcastable to images of this size or, if ``paired``, neither one for all
            images nor one for each.
    """
    if baselines is None:
        baselines = 0.0
    number = isinstance(baselines, (int, float)) and not isinstance(baselines, bool)
    if not number and not (isinstance(baselines, Tensor) and baselines.is_floating_point()):
        raise TypeError("baselines must be None, a number or a floating-point tensor")
    tensor = torch.as_tensor(baselines).detach().to(images).clone()
    if not bool(torch.isfinite(tensor).all()):
        raise UserError("baselines must be finite: NaN or infinity found")
    count = len(tensor) if tensor.ndim == 4 else 1
    try:
        expanded = tensor.expand(count, *images.shape[1:])
    except RuntimeError as error:
        raise UserError(
            f"baselines of shape {tuple(tensor.shape)} do not fit images of shape {tuple(images.shape)}"
        ) from error
    if not count:
        raise UserError("baselines must hold at least one image")
    if paired and count not in (1, len(images)):
        raise UserError(f"baselines must be one for all images or one for each of {len(images)}, not {count}")
    return expanded


def chosen_logits(logits: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the indices (N,) of the chosen neurons (None: the arg max) and their logits (N,).

    Raises:
        ValueError: the logits are not finite, or a target is not below K.
    """
    if not bool(torch.isfinite(logits).all()):
        raise UserError("model returns logits that are NaN or infinite")
    chosen = logits.argmax(1) if targets is None else targets.to(logits.device).clone()
    checks.classes_in_range("targets", chosen, logits.shape[1])
    return chosen, logits.gather(1, chosen[:, None])[:, 0]


def network_of(model: nn.Module) -> nn.Module:
    """Return the network that works on normalised images: that of a classifier, or the model itself."""
    network = getattr(model, "network", None)
    if isinstance(network, nn.Module) and callable(getattr(model, "normalize", None)):
        return network
    return model


def network_input(model: nn.Module, images: Tensor) -> Tensor:
    """Return ``images`` as the network of ``model`` sees them: normalised for a classifier."""
    if network_of(model) is model:
        return images
    with naming_images(images.shape):
        normalised: Tensor = model.normalize(images)  # type: ignore[operator]
    if normalised.shape != images.shape:
        raise UserError(
            f"images must have {normalised.shape[1]} channels for this model, not {images.shape[1]}"
        )
    return normalised
