"""The door of every attack: each argument is checked before any work starts, and the message names it."""

import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.core.errors import UserError

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def model(value: Any) -> nn.Module:
    """Return ``value`` if it is a float32 module that can be called with other tensors for its parameters.

    Raises:
        TypeError: it is not an ``nn.Module``.
        UserError: it computes in another precision, or it or a part of it is parallel, scripted or traced.
    """
    if not isinstance(value, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(value).__name__}")
    for name, module in value.named_modules():
        what, inside = ("model", "model") if module is value else (f"model.{name}", f"its part {name!r}")
        if isinstance(module, PARALLEL):
            raise UserError(
                f"{inside} must not be {type(module).__name__}: pass the network in it, {what}.module"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(
                f"{inside} must not be scripted or traced: pass the module that torch.jit was given"
            )
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in value.parameters()):
        raise UserError("model must have float32 parameters: attacks do not run in reduced precision")
    return value


def images(value: Any, name: str = "images") -> Tensor:
    """Return ``value`` if it is a non-empty float32 (N, C, H, W) tensor in [0, 1] without NaN.

    Raises:
        TypeError: it is not a tensor.
        UserError: its shape, type or range is wrong.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}")
    if value.ndim != 4 or value.numel() == 0:
        raise UserError(
            f"{name} must have shape (N, C, H, W) with at least one image, not {tuple(value.shape)}"
        )
    if value.dtype != torch.float32:
        raise UserError(f"{name} must be float32 in [0, 1], not {value.dtype}")
    low, high = (bound.item() for bound in torch.aminmax(value.detach()))
    if math.isnan(low) or math.isnan(high):
        raise UserError(f"{name} must not contain NaN")
    if low < 0 or high > 1:
        raise UserError(
            f"{name} must lie in [0, 1], not in [{low:g}, {high:g}]; normalisation belongs in the model"
        )
    return value


def integers(name: str, value: Any, count: int) -> Tensor:
    """Return ``value`` if it is an int64 (count,) tensor.

    Raises:
        TypeError: it is not a tensor.
        UserError: its shape or type is wrong.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}")
    if value.dtype != torch.int64:
        raise UserError(f"{name} must be int64, not {value.dtype}")
    if value.shape != (count,):
        raise UserError(f"{name} must have shape ({count},), one for each image, not {tuple(value.shape)}")
    return value


def target(value: Any, labels: Tensor) -> Tensor | None:
    """Return the target class of each image, (N,) int64, from a class number or a tensor; None stays None.

    Raises:
        TypeError: it is neither a tensor nor an integer.
        UserError: its shape or type is wrong, or a target is the label itself.
    """
    if value is None:
        return None
    if isinstance(value, Integral) and not isinstance(value, bool):
        classes = torch.full_like(labels, int(value))
    else:
        classes = integers("target", value, len(labels)).to(labels.device)
    same = classes == labels
    if same.any():
        raise UserError(f"target must differ from the label; it does not for image {int(same.nonzero()[0])}")
    return classes


def classes_in_range(name: str, value: Tensor, count: int) -> None:
    """Check that the classes ``value`` (N,) lie in 0..count-1.

    Raises:
        UserError: one does not.
    """
    outside = (value < 0) | (value >= count)
    if outside.any():
        raise UserError(f"{name} must lie in 0..{count - 1} for this model; found {int(value[outside][0])}")


def positive(name: str, value: Any, most: float = math.inf) -> float:
    """Return ``value`` as a float if it is a finite number in (0, most].

    Raises:
        UserError: it is not.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not 0 < value <= most
    ):
        limit = f" and at most {most:g}" if math.isfinite(most) else ""
        raise UserError(f"{name} must be a number greater than 0{limit}, not {value!r}")
    return float(value)


def not_negative(name: str, value: Any, most: float = math.inf) -> float:
    """Return ``value`` as a float if it is a finite number in [0, most].

    Raises:
        UserError: it is not.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not 0 <= value <= most
    ):
        limit = f" and at most {most:g}" if math.isfinite(most) else ""
        raise UserError(f"{name} must be a number of at least 0{limit}, not {value!r}")
    return float(value)


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int if it is an integer in least..most.

    Raises:
        UserError: it is not.
    """
    integral = isinstance(value, Integral) and not isinstance(value, bool)
    if not integral or value < least or (most is not None and value > most):
        limit = f" and at most {most}" if most is not None else ""
        raise UserError(f"{name} must be an integer of at least {least}{limit}, not {value!r}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} must be True or False, not {value!r}")
    return value


def one_of(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        UserError: it is not.
    """
    known = list(choices)
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    return str(value)
