"""The rescale rule of DeepLIFT, applied to the functions that a network calls while it runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from xaicore.attribution.calls import ELEMENTWISE, changes_in_place, name_of, names
from xaicore.core.errors import UserError

UNARY = ELEMENTWISE | {"clamp", "clamp_min", "clamp_max", "clip", "abs", "exp", "log", "sqrt", "square"}
"""Nonlinear functions of one value each."""

POOLS: dict[str, Callable[..., Any]] = {
    "max_pool2d": functional.max_pool2d,
    "adaptive_max_pool2d": functional.adaptive_max_pool2d,
}

LINEAR = names(
    "add radd iadd sub rsub isub subtract neg sum mean cumsum cat concat stack split chunk unbind narrow select "
    "getitem get index_select flip roll view reshape flatten unflatten squeeze unsqueeze permute transpose "
    "swapaxes movedim t contiguous expand expand_as repeat clone to float double type_as pixel_shuffle "
    "pixel_unshuffle channel_shuffle interpolate upsample pad avg_pool2d adaptive_avg_pool2d unfold fold"
)
"""Functions that are linear, but for a constant, in their tensors; ``get`` is an attribute such as ``.T``."""

MULTILINEAR = names(
    "mul rmul imul multiply div truediv itruediv divide matmul rmatmul mm bmm addmm einsum conv2d "
    "conv_transpose2d linear"
)
"""Functions that are linear where only one tensor depends on the images."""

BY_MODE = names("batch_norm dropout dropout2d feature_dropout alpha_dropout feature_alpha_dropout")
"""Functions that are linear when not training."""


class Recording(TorchFunctionMode):
    """Keeps what every nonlinear function is given, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = name_of(func)
        if _has_rule(name):
            self.given.append((name, _given(args, kwargs or {})[0].detach().clone()))
        return func(*args, **(kwargs or {}))


class Rescaling(TorchFunctionMode):
    """Makes every nonlinear function hand back its multiplier in place of its gradient.

    Args:
        references: what :class:`Recording` kept of the baseline, one row or as many as the images.
    """

    def __init__(self, references: Sequence[tuple[str, Tensor]]) -> None:
        super().__init__()
        self._references = list(reversed(references))

    def check_finished(self) -> None:
        """Raise UserError where the baseline called more functions than the images."""
        if self._references:
            raise _other_way(self._references[-1][0])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = name_of(func), kwargs or {}
        if not _has_rule(name):
            result = func(*args, **kwargs)
            _check_linear(name, args, kwargs, result)
            return result
        reference = self._next(name, _given(args, kwargs)[0])
        if not _depends(args) + _depends(list(kwargs.values())):
            return func(*args, **kwargs)
        values, others, options = _given(args, kwargs)
        if _depends([others, list(options.values())]):
            raise _no_rule(name)
        if name in POOLS:
            return _pooled(name, values, others, options, reference)
        result = _rescaled(func, values, others, options, reference)
        return values.copy_(result) if changes_in_place(func, kwargs) else result

    def _next(self, name: str, values: Tensor) -> Tensor:
        if not self._references:
            raise _other_way(name)
        before, reference = self._references.pop()
        if before != name or reference.shape[1:] != values.shape[1:]:
            raise _other_way(name)
        return reference


def _rescaled(
    func: Callable[..., Tensor], values: Tensor, others: Any, options: Mapping[str, Any], reference: Tensor
) -> Tensor:
    leaf = values.detach().clone().requires_grad_()
    with torch.enable_grad():
        result = func(leaf.clone(), *others, **options)
        (derivative,) = torch.autograd.grad(result.sum(), leaf)
    change = result.detach() - func(reference.clone(), *others, **options)
    # Both errors, of a quotient of rounded numbers and of a derivative for a quotient, are then of this order.
    close = torch.finfo(values.dtype).eps ** 0.5 * (leaf.detach().abs() + reference.abs())
    multiplier = _quotient(change, leaf.detach() - reference, derivative, close)
    return _with_slope(result.detach(), multiplier, values)


def _pooled(name: str, values: Tensor, others: Any, options: Mapping[str, Any], reference: Tensor) -> Tensor:
    if name == "adaptive_max_pool2d" and options.get("return_indices") is not False:
        raise _no_rule(name)
    options = {**options, "return_indices": True}
    reference = reference.expand_as(values)
    largest, place = POOLS[name](values.detach(), *others, **options)
    before, place_before = POOLS[name](reference, *others, **options)
    place = torch.where(largest >= before, place, place_before).flatten(2)
    chosen = values.flatten(2).gather(2, place).view_as(largest)
    step = chosen.detach() - reference.flatten(2).gather(2, place).view_as(largest)
    one = torch.ones_like(step)
    return _with_slope(largest, _quotient(largest - before, step, one, 0 * one), chosen)


def _quotient(change: Tensor, step: Tensor, derivative: Tensor, close: Tensor) -> Tensor:
    return torch.where(step.abs() <= close, derivative, change / step)


def _with_slope(result: Tensor, slope: Tensor, values: Tensor) -> Tensor:
    """Return ``result`` with the gradient ``slope`` with respect to ``values``."""
    return result + slope * (values - values.detach())


def _has_rule(name: str) -> bool:
    return name in UNARY or name in POOLS


def _given(args: Any, kwargs: Mapping[str, Any]) -> tuple[Tensor, Any, dict[str, Any]]:
    """Return the first argument of a call, the others and the keyword arguments without it."""
    if args:
        return args[0], args[1:], dict(kwargs)
    options = dict(kwargs)
    return options.pop("input"), (), options


def _check_linear(name: str, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
    if not _depends([result]):
        return
    linear = name in LINEAR
    if name in MULTILINEAR:
        linear = _depends([args, list(kwargs.values())]) == 1
        if name in ("div", "truediv", "itruediv", "divide"):
            linear = linear and _depends(args[:1]) == 1
    if name in BY_MODE:
        linear = kwargs.get("training") is False
    if not linear:
        raise _no_rule(name)


def _depends(values: Any) -> int:
    """Return how many tensors in nested sequences depend on the images: the weights are frozen."""
    if isinstance(values, Tensor):
        return int(values.requires_grad)
    return sum(map(_depends, values)) if isinstance(values, (tuple, list)) else 0


def _no_rule(name: str) -> UserError:
    return UserError(
        f"deep_lift has no rule for the function {name!r} in this network: it knows activations, max-pooling and "
        "linear functions"
    )


def _other_way(name: str) -> UserError:
    return UserError(f"deep_lift: from {name!r} on this network goes another way for the baseline")
