"""The checks of arguments: each is checked before any work starts, and the message names it.

A value that cannot be used raises :class:`~xaicore.core.errors.UserError`, which is a ``ValueError``; an argument of
another kind, such as an array for a tensor, ``TypeError``.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from xaicore.core.errors import UserError

Choice = TypeVar("Choice", bound=str)

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
IMAGES = ("(N, C, H, W)",)
MAPS = ("(N, C, H, W)", "(N, H, W)")


def module(name: str, value: Any) -> nn.Module:
    """Return ``value`` if it is an ``nn.Module``; raise TypeError if not."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, not {type(value).__name__}")
    return value


def model(value: Any) -> nn.Module:
    """Return ``value`` if it is a float32 module that can be called with other tensors for its parameters.

    Raises:
        TypeError: it is not an ``nn.Module``.
        UserError: it computes in another precision, or it or a part of it is parallel, scripted or traced, or has
            statistics of the batch in eval mode, too.
    """
    whole = module("model", value)
    for name, part in whole.named_modules():
        what, inside = ("model", "model") if part is whole else (f"model.{name}", f"its part {name!r}")
        if isinstance(part, PARALLEL):
            raise UserError(
                f"{inside} must not be {type(part).__name__}: pass the network in it, {what}.module"
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise UserError(
                f"{inside} must not be scripted or traced: pass the module that torch.jit was given"
            )
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise UserError(
                f"{inside} normalises by the images of its batch (track_running_stats=False), so no image has an answer "
                "of its own: replace it with one that has statistics"
            )
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in whole.parameters()):
        raise UserError("model must have float32 parameters: attacks do not run in reduced precision")
    return whole


def tensor(name: str, value: Any) -> Tensor:
    """Return ``value`` if it is a tensor; raise TypeError if not."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}")
    return value


def images(value: Any, name: str = "images") -> Tensor:
    """Return a non-empty float32 (N, C, H, W) tensor in [0, 1] without NaN.

    Raises:
        TypeError: it is not a tensor.
        UserError: its shape, type or range is wrong.
    """
    given = tensor(name, value)
    if given.ndim != 4 or given.numel() == 0:
        raise UserError(
            f"{name} must have the shape (N, C, H, W) with at least one image, not {tuple(given.shape)}"
        )
    if given.dtype != torch.float32:
        raise UserError(f"{name} must be float32 in [0, 1], not {given.dtype}")
    within(name, given, 1, hint="; normalisation belongs in the model")
    return given


def floating(name: str, value: Any, shapes: Sequence[str] = IMAGES) -> Tensor:
    """Return a floating-point tensor of one of the shapes, such as (N, H, W), without its graph; raise TypeError for
    another type, UserError for another number of dimensions, or nothing in one other than the first.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor {' or '.join(shapes)}")
    if value.ndim not in [shape.count(",") + 1 for shape in shapes] or 0 in value.shape[1:]:
        raise UserError(f"{name} must have the shape {' or '.join(shapes)}, not {tuple(value.shape)}")
    return value.detach()


def finite(name: str, value: Any, shapes: Sequence[str] = IMAGES) -> Tensor:
    """Return what :func:`floating` does; raise UserError for NaN or infinite values too."""
    given = floating(name, value, shapes)
    _finite_extremes(name, given)
    return given


def within(name: str, value: Tensor, high: float, *, slack: float = 0.0, hint: str = "") -> None:
    """Raise UserError, its message ending with ``hint``, unless all values lie in [0, high], give or take ``slack``."""
    least, most = _finite_extremes(name, value)
    if least < -slack or most > high + slack:
        raise UserError(f"{name} must lie in [0, {high:g}], not between {least:g} and {most:g}{hint}")


def _finite_extremes(name: str, value: Tensor) -> tuple[float, float]:
    """Return the least and the greatest value, 0 and 0 of none; NaN or infinity, which would show there, is refused."""
    least, most = (each.item() for each in value.detach().aminmax()) if value.numel() else (0.0, 0.0)
    if not (math.isfinite(least) and math.isfinite(most)):
        raise UserError(f"{name} must be finite: NaN or infinity found")
    return least, most


def same_shape(names: str, a: Tensor, b: Tensor) -> None:
    """Raise UserError unless ``a`` and ``b``, together called ``names``, have one shape."""
    if a.shape != b.shape:
        raise UserError(f"{names} must have the same shape, not {tuple(a.shape)} and {tuple(b.shape)}")


def booleans(name: str, value: Any) -> Tensor:
    """Return masks (N, H, W) as they are; raise TypeError unless they are booleans, UserError for another shape."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        raise TypeError(f"{name} must be a boolean tensor (N, H, W)")
    if value.ndim != 3 or 0 in value.shape[1:]:
        raise UserError(f"{name} must have the shape (N, H, W), not {tuple(value.shape)}")
    return value


def integers(name: str, value: Any, count: int) -> Tensor:
    """Return ``value`` if it is an int64 (count,) tensor; raise TypeError if it is no tensor, else UserError."""
    given = tensor(name, value)
    if given.dtype != torch.int64:
        raise UserError(f"{name} must be int64, not {given.dtype}")
    if given.shape != (count,):
        raise UserError(
            f"{name} must have the shape ({count},), one for each image, not {tuple(given.shape)}"
        )
    return given


def targets(value: Any, count: int) -> Tensor | None:
    """Return the neuron to explain of each image, (count,) int64, from one index, or a tensor (); None stays None.

    Raises:
        TypeError: it is neither an integer nor a tensor of integers.
        UserError: its shape is wrong, or an index is negative.
    """
    if value is None:
        return None
    given = torch.tensor(int(value)) if _integral(value) else value
    if not isinstance(given, Tensor) or given.is_floating_point() or given.is_complex():
        raise TypeError("targets must be None, an integer or an integer tensor (N,)")
    if given.dtype == torch.bool:
        raise TypeError("targets must be integers, not booleans")
    chosen = integers("targets", (given.expand(count) if given.ndim == 0 else given).long(), count)
    if count and int(chosen.min()) < 0:
        raise UserError(f"targets must not be negative; found {int(chosen.min())}")
    return chosen


def target(value: Any, labels: Tensor) -> Tensor | None:
    """Return the target class of each image, (N,) int64, from a class number or a tensor; None stays None.

    Raises:
        TypeError: it is neither a tensor nor an integer.
        UserError: its shape or type is wrong, or a target is the label itself.
    """
    if value is None:
        return None
    if _integral(value):
        classes = torch.full_like(labels, int(value))
    else:
        classes = integers("target", value, len(labels)).to(labels.device)
    same = classes == labels
    if same.any():
        raise UserError(f"target must differ from the label; it does not for image {int(same.nonzero()[0])}")
    return classes


def classes_in_range(name: str, value: Tensor, count: int) -> None:
    """Raise UserError unless the classes ``value`` (N,) lie in 0..count-1."""
    outside = (value < 0) | (value >= count)
    if outside.any():
        raise UserError(f"{name} must lie in 0..{count - 1} for this model; found {int(value[outside][0])}")


def number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """Return ``value`` as a float if it is a finite number within the bounds; raise UserError if not."""
    real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not real or not (above < float(value) < below and least <= float(value) <= most):
        words = {"greater than": above, "at least": least, "less than": below, "at most": most}
        bounds = " and ".join(f"{word} {bound:g}" for word, bound in words.items() if math.isfinite(bound))
        raise UserError(f"{name} must be a finite number{bounds and ', ' + bounds}, not {value!r}")
    return float(value)


def positive(name: str, value: Any, most: float = math.inf) -> float:
    """Return ``value`` as a float if it is a finite number in (0, most]; raise UserError if not."""
    return number(name, value, above=0, most=most)


def not_negative(name: str, value: Any, most: float = math.inf) -> float:
    """Return ``value`` as a float if it is a finite number in [0, most]; raise UserError if not."""
    return number(name, value, least=0, most=most)


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int if it is an integer in least..most; raise UserError if not."""
    if not _integral(value) or value < least or (most is not None and value > most):
        limit = f" and at most {most}" if most is not None else ""
        raise UserError(f"{name} must be an integer of at least {least}{limit}, not {value!r}")
    return int(value)


def _integral(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False; raise UserError if not."""
    if not isinstance(value, bool):
        raise UserError(f"{name} must be True or False, not {value!r}")
    return value


def one_of(name: str, value: Any, choices: Iterable[Choice]) -> Choice:
    """Return ``value`` if it is one of ``choices``; raise UserError if not."""
    known = list(choices)
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    return known[known.index(value)]
