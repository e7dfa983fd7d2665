"""The operations of a network that relevance can be handed through, whether modules, functions or methods.

An operation is taken as the layer it is: ``functional.max_pool2d(x, 2)`` as ``nn.MaxPool2d(2)``. To know another one
is one entry here and, for a new kind, one branch in :mod:`xaicore.attribution.propagation`. Whatever is not
listed is refused by name, because ignoring it would give heatmaps that look plausible and are wrong.
"""

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from xaicore.attribution.reweighting import reweighted
from xaicore.errors import UserError


class Sum(nn.Module):
    """The sum of two tensors of equal shape."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return ``first + second``."""
        if first.shape != second.shape:
            raise UserError(
                f"lrp can only add tensors of equal shape, not {tuple(first.shape)} and {tuple(second.shape)}"
            )
        return first + second


class Concatenation(nn.Module):
    """The concatenation of tensors along a dimension other than the first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the tensors side by side."""
        return torch.cat(tensors, self.dim)


class SpatialMean(nn.Module):
    """The mean over height and width."""

    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, values: Tensor) -> Tensor:
        """Return the mean of (N, C, H, W), (N, C) or (N, C, 1, 1)."""
        return values.mean((2, 3), self.keepdim)


KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.Linear: "dense",
    nn.ReLU: "activation",
    nn.ReLU6: "activation",
    nn.MaxPool2d: "max-pool",
    nn.AdaptiveMaxPool2d: "max-pool",
    nn.AvgPool2d: "average-pool",
    nn.AdaptiveAvgPool2d: "average-pool",
    SpatialMean: "average-pool",
    nn.ZeroPad2d: "pad",
    nn.Flatten: "reshape",
    nn.Unflatten: "reshape",
    nn.Dropout: "identity",
    nn.Dropout2d: "identity",
    nn.Identity: "identity",
    Sum: "sum",
    Concatenation: "concatenation",
}
WITH_WEIGHTS = ("conv", "dense")
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    if training:
        raise UserError(
            "lrp has no rule for a dropout that is active in eval mode: pass training=self.training"
        )
    return nn.Identity()


def _max_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


def _mean(dim: Any = None, keepdim: bool = False) -> nn.Module:
    if not isinstance(dim, (tuple, list)) or sorted(d % 4 for d in dim) != [2, 3]:
        raise UserError("lrp has no rule for a mean over other dimensions than height and width, (2, 3)")
    return SpatialMean(keepdim)


OPERATIONS: dict[Any, Callable[..., nn.Module]] = {
    functional.relu: lambda inplace=False: nn.ReLU(),
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    functional.relu6: lambda inplace=False: nn.ReLU6(),
    functional.max_pool2d: _max_pool,
    functional.avg_pool2d: nn.AvgPool2d,
    functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    functional.dropout: _dropout,
    torch.mean: _mean,
    "mean": _mean,
}
"""What makes the layer of a function or, by name, of a method of a tensor, from its further arguments."""
SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
RESHAPES = (torch.flatten, torch.reshape, "flatten", "view", "reshape", "contiguous")


@dataclass(frozen=True)
class Operation:
    """An operation of a traced network.

    Attributes:
        kind: what propagation tells apart, a value of :data:`KINDS`.
        module: the layer that computes it, out of place; None for a reshape that the trace knows best.
        inputs: the nodes of the tensors that it takes.
    """

    kind: str
    module: nn.Module | None
    inputs: tuple[fx.Node, ...]


def operation(traced: fx.GraphModule, node: fx.Node) -> Operation:
    """Return what ``node`` computes.

    Raises:
        UserError: nothing that relevance can be handed through; the message names it.
    """
    if node.op == "call_module":
        module = _usable(str(node.target), traced.get_submodule(str(node.target)))
        return Operation(KINDS[type(module)], module, _tensors(node, node.args, node.kwargs))
    if node.op in ("call_function", "call_method"):
        if node.target in SUMS and len(node.args) == 2 and node.kwargs.get("alpha", 1) == 1:
            return Operation("sum", Sum(), _tensors(node, node.args, {}))
        if node.target in CONCATENATIONS:
            return _concatenation(node, *node.args, **node.kwargs)
        if node.target in RESHAPES:
            return Operation("reshape", None, _tensors(node, node.args[:1], {}))
        if node.target in OPERATIONS:
            others = {name: value for name, value in node.kwargs.items() if name != "input"}
            inputs = _tensors(node, node.args[:1] or (node.kwargs.get("input"),), {})
            if set(node.all_input_nodes) != set(inputs):
                raise UserError(
                    f"lrp has no rule for {name_of(node)!r} with options that depend on its input"
                )
            module = OPERATIONS[node.target](*node.args[1:], **others)
            return Operation(KINDS[type(module)], module, inputs)
    raise UserError(f"lrp has no rule for the {_what(node)} {name_of(node)!r}")


def _concatenation(node: fx.Node, tensors: Any, dim: Any = 0, **others: Any) -> Operation:
    dim = others.get("axis", dim)
    if not isinstance(tensors, (tuple, list)) or not isinstance(dim, int) or dim == 0:
        raise UserError(
            f"lrp has no rule for {name_of(node)!r} along the first dimension, that of the images"
        )
    return Operation("concatenation", Concatenation(dim), _tensors(node, tuple(tensors), {}))


def _usable(name: str, module: nn.Module) -> nn.Module:
    """Return a copy of a known layer that works out of place and on weights of its own."""
    kind = KINDS.get(type(module))
    if kind is None:
        raise UserError(f"lrp has no rule for the layer {name!r} ({type(module).__name__})")
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        raise UserError(f"lrp has no rule for the layer {name!r}: padding_mode must be 'zeros'")
    if kind == "activation":
        module = copy.copy(module)
        module.__dict__["inplace"] = False
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        if not set(dict(module.named_parameters())) <= {"weight", "bias"}:
            raise UserError(f"lrp has no rule for the layer {name!r}: its weight is made of other parameters")
        return reweighted(module, laid_out(module.weight), module.bias)
    return module


def laid_out(values: Tensor) -> Tensor:
    """Return ``values`` in the memory layout that convolutions are fastest with: on a CPU channels last."""
    if values.ndim == 4 and values.device.type == "cpu":
        return values.contiguous(memory_format=torch.channels_last)
    return values


def _tensors(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[fx.Node, ...]:
    found = (*args, *kwargs.values())
    if not found or not all(isinstance(item, fx.Node) and not is_size(item) for item in found):
        raise UserError(f"lrp has no rule for {name_of(node)!r} of anything but tensors")
    return found


def _what(node: fx.Node) -> str:
    return {"get_attr": "tensor", "placeholder": "second input"}.get(node.op, "function")


def name_of(node: fx.Node) -> str:
    """Return the name of a module in its network, or that of a function or method."""
    return str(getattr(node.target, "__name__", node.target))


def is_size(node: fx.Node) -> bool:
    """Whether a node only asks for the size of a tensor, as in ``x.view(x.size(0), -1)``."""
    if node.op == "call_method":
        return node.target == "size"
    if node.op != "call_function":
        return False
    name = name_of(node)
    if name == "getattr":
        return bool(node.args[1] == "shape")
    return name == "getitem" and isinstance(node.args[0], fx.Node) and bool(is_size(node.args[0]))
