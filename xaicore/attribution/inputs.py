"""What every attribution shares: checks at the door, the network in a classifier, leaving no trace."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from xaicore.core.errors import UserError
from xaicore.core.outputs import look_like_probabilities


def check_images(images: Tensor, model: nn.Module) -> None:
    """Check that ``images`` is a finite (N, C, H, W) tensor of the floating type of the model's parameters.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong number of dimensions, NaN or infinite values, or another type than the model's.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError("images must be a floating-point tensor (N, C, H, W)")
    if images.ndim != 4:
        raise ValueError(f"images must have the shape (N, C, H, W), not {tuple(images.shape)}")
    if not bool(torch.isfinite(images).all()):
        raise ValueError("images must be finite: NaN or infinity found")
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    if images.dtype != dtype:
        raise ValueError(f"images must have the type of the model's parameters, {dtype}, not {images.dtype}")


def check_targets(targets: Tensor | int | None, n: int) -> Tensor | None:
    """Return ``targets`` as an int64 tensor (N,), or None.

    Raises:
        TypeError: not an integer, a tensor of integers or None.
        ValueError: not one target per image, or negative.
    """
    if targets is None:
        return None
    if isinstance(targets, bool) or not isinstance(targets, (int, Tensor)):
        raise TypeError("targets must be None, an integer or an integer tensor (N,)")
    tensor = torch.as_tensor(targets)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"targets must be integers, not {tensor.dtype}")
    if tensor.ndim == 0:
        tensor = tensor.expand(n)
    if tensor.shape != (n,):
        raise ValueError(f"targets must have the shape ({n},), one per image, not {tuple(tensor.shape)}")
    if n and int(tensor.min()) < 0:
        raise UserError(f"targets must not be negative: {int(tensor.min())} found")
    return tensor.to(torch.int64)


def chosen_logits(logits: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the indices (N,) of the chosen neurons (None: the arg max) and their logits (N,).

    Warns where the logits (N, K) seem to be probabilities.

    Raises:
        ValueError: the logits are not finite, or a target is not below K.
    """
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("model returns logits that are NaN or infinite")
    if len(logits) and logits.shape[1] > 1 and look_like_probabilities(logits.detach()):
        warnings.warn(
            "the model seems to return probabilities; its softmax becomes part of what is explained, and "
            "saturates: leave it out for an explanation of the logits",
            stacklevel=2,
        )
    chosen = logits.argmax(1) if targets is None else targets.to(logits.device).clone()
    if len(chosen) and int(chosen.max()) >= logits.shape[1]:
        raise UserError(
            f"targets must be below {logits.shape[1]}, the number of classes: {int(chosen.max())} found"
        )
    return chosen, logits.gather(1, chosen[:, None])[:, 0]


def check_batch_size(batch_size: int) -> None:
    """Raise ValueError unless ``batch_size`` is a positive integer."""
    check_count(batch_size, "batch_size")


def check_count(count: int, name: str) -> None:
    """Raise ValueError unless ``count`` is a positive integer."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be a positive integer, not {count!r}")


def check_call(
    model: nn.Module, images: Tensor, targets: Tensor | int | None, batch_size: int
) -> Tensor | None:
    """Check what every attribution is given; return the targets as an int64 tensor (N,), or None."""
    check_images(images, model)
    check_batch_size(batch_size)
    return check_targets(targets, len(images))


def check_draws(seed: int, std: float) -> None:
    """Raise ValueError unless ``seed`` is an integer of at least 0 and ``std`` a finite number of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, not {seed!r}")
    if isinstance(std, bool) or not isinstance(std, (int, float)) or not 0 <= std < math.inf:
        raise ValueError(f"std must be a finite number of at least 0, not {std!r}")


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
        raise ValueError(
            f"images must have {normalised.shape[1]} channels for this model, not {images.shape[1]}"
        )
    return normalised


@contextmanager
def naming_images(shape: torch.Size) -> Iterator[None]:
    """Turn torch's complaint about sizes within the block into a ValueError that names ``images``."""
    try:
        yield
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        if isinstance(error, torch.OutOfMemoryError) or not re.search("shape|size|channel", line):
            raise
        raise ValueError(f"images of shape {tuple(shape)} do not fit the model: {line}") from error
