"""What every attribution shares: the checks of a call, the logits it explains, the network in a classifier."""

from typing import Any

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.core.outputs import naming_images
from xaicore.core.undisturbed import undisturbed
from xaicore.models.classifier import Classifier


def check_call(
    model: nn.Module, images: Tensor, targets: Tensor | int | None, batch_size: int
) -> Tensor | None:
    """Check what every attribution is given; return the targets as an int64 tensor (N,), or None.

    Raises:
        TypeError: ``images`` are no floating-point tensor, or ``targets`` are no integers.
        UserError: a shape, another type than that of the model's parameters, NaN or infinite images, negative targets,
            a ``batch_size`` below 1, or a model that is no classifier and is taken for one; see :func:`network_of`.
    """
    checks.finite("images", images)
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    if images.dtype != dtype:
        raise UserError(f"images must have the type of the model's parameters, {dtype}, not {images.dtype}")
    checks.integer("batch_size", batch_size, least=1)
    given = checks.targets(targets, len(images))
    if len(images) and network_of(model) is not model and type(model).forward is not Classifier.forward:
        _check_classifier(model, images[:1])
    return given


def _check_classifier(model: nn.Module, image: Tensor) -> None:
    """Raise UserError where a model with a network and a normalisation does not compute one after the other."""
    with undisturbed(model) as device, torch.no_grad():
        image = image.detach().to(device).clone()
        inputs = network_input(model, image)
        with naming_images(image.shape):
            inner, whole = network_of(model)(inputs), model(image)
    if not _alike(inner, whole):
        raise UserError(
            f"{type(model).__name__} has the attributes network and normalize, as a classifier has, but does not "
            "compute network(normalize(images)), which would be explained: give one of them another name"
        )


def _alike(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other)  # no logits: refused where they are taken
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, equal_nan=True)


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
    """Return the network that works on normalised images: that of a classifier, or the model itself.

    A classifier is what has a module ``network`` and a method ``normalize``, and computes
    ``network(normalize(images))``; :func:`check_call` refuses what computes something else.
    """
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
