"""The operations of a network that relevance can be handed through, whether modules, functions or methods.

An operation is taken as the layer it is: ``functional.max_pool2d(x, 2)`` as ``nn.MaxPool2d(2)``. To know another one
is one entry here and, for a new kind, one branch in :mod:`xaicore.attribution.propagation`. Whatever is not
listed is refused by name, because ignoring it would give heatmaps that look plausible and are wrong.
"""

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.functional import normalize

from xaicore.core.errors import UserError

Layer = TypeVar("Layer", bound=nn.Module)


class Function(nn.Module):
    """A function of tensors as a layer.

    Attributes:
        kind: what propagation tells apart.
        dim: along which tensors are joined, of a concatenation.
    """

    def __init__(self, kind: str, function: Callable[..., Tensor], dim: int = 0) -> None:
        super().__init__()
        self.kind, self.function, self.dim = kind, function, dim

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the function of the tensors."""
        return self.function(*tensors)


def _sum(first: Tensor, second: Tensor) -> Tensor:
    if first.shape != second.shape:
        raise UserError(
            f"lrp can only add tensors of equal shape, not {tuple(first.shape)} and {tuple(second.shape)}"
        )
    return first + second


KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.Linear: "dense",
    nn.ReLU: "activation",
    nn.ReLU6: "activation",
    nn.LeakyReLU: "leaky-activation",
    nn.PReLU: "leaky-activation",
    nn.MaxPool2d: "max-pool",
    nn.AdaptiveMaxPool2d: "max-pool",
    nn.AvgPool2d: "average-pool",
    nn.AdaptiveAvgPool2d: "average-pool",
    nn.ZeroPad2d: "pad",
    nn.Upsample: "resize",
    nn.Flatten: "reshape",
    nn.Unflatten: "reshape",
    nn.Dropout: "identity",
    nn.Dropout2d: "identity",
    nn.Identity: "identity",
    transforms.Normalize: "affine",
    v2.Normalize: "affine",
}
WITH_WEIGHTS = ("conv", "dense")
"""Kinds of layers with weights."""
WITH_SHARES = ("nearest", "nearest-exact", "bilinear")
"""Ways of resizing whose weights are shares: none is negative, and those of a value sum to 1."""
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
    return Function("average-pool", lambda values: values.mean((2, 3), keepdim))


OPERATIONS: dict[Any, Callable[..., nn.Module]] = {
    functional.relu: lambda inplace=False: nn.ReLU(),
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    functional.relu6: lambda inplace=False: nn.ReLU6(),
    functional.leaky_relu: lambda negative_slope=0.01, inplace=False: nn.LeakyReLU(negative_slope),
    functional.max_pool2d: _max_pool,
    functional.avg_pool2d: nn.AvgPool2d,
    functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    functional.dropout: _dropout,
    normalize: transforms.Normalize,
    torch.mean: _mean,
    "mean": _mean,
}
"""What makes the layer of a function or, by name, of a method of a tensor, from its further arguments."""
AFFINE: dict[Any, Callable[..., Tensor]] = {
    name: function
    for function, names in (
        (operator.add, (operator.add, operator.iadd, torch.add, "add", "add_")),
        (operator.sub, (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_", "subtract")),
        (operator.mul, (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply")),
        (
            operator.truediv,
            (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_", "divide"),
        ),
        (operator.neg, (operator.neg, torch.neg, "neg", "neg_")),
    )
    for name in names
}
"""What computes a function or, by name, a method of a tensor, out of place: affine in one tensor, the others constant."""
CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
RESHAPES = (torch.flatten, torch.reshape, "flatten", "view", "reshape", "contiguous")


Operation = tuple[str, nn.Module | None, tuple[fx.Node, ...]]
"""Kind, the layer that computes it out of place (None for a reshape that the trace knows best), nodes of its inputs."""


def operation(traced: fx.GraphModule, node: fx.Node, constants: Mapping[fx.Node, Any]) -> Operation:
    """Return what ``node`` computes; ``constants`` are the values of nodes that do not depend on the input.

    Raises:
        UserError: nothing that relevance can be handed through; the message names it.
    """
    if node.op == "call_module":
        module = _usable(str(node.target), traced.get_submodule(str(node.target)))
        return _of(module, node, (*node.args, *node.kwargs.values()), constants)
    if node.op in ("call_function", "call_method"):
        if node.target in AFFINE:
            return _arithmetic(node, constants, *node.args, **node.kwargs)
        if node.target in CONCATENATIONS:
            return _concatenation(node, constants, *node.args, **node.kwargs)
        if node.target in RESHAPES:
            return "reshape", None, _tensors(node, node.args[:1], constants)
        if node.target in OPERATIONS:
            others = {name: value for name, value in node.kwargs.items() if name != "input"}
            inputs = node.args[:1] or (node.kwargs.get("input"),)
            if set(node.all_input_nodes) != set(inputs):
                raise UserError(
                    f"lrp has no rule for {name_of(node)!r} with options that depend on its input"
                )
            return _of(OPERATIONS[node.target](*node.args[1:], **others), node, inputs, constants)
    raise _no_rule(node)


def _of(module: nn.Module, node: fx.Node, inputs: Any, constants: Mapping[fx.Node, Any]) -> Operation:
    kind = module.kind if isinstance(module, Function) else KINDS[type(module)]
    return kind, module, _tensors(node, inputs, constants)


def _arithmetic(
    node: fx.Node, constants: Mapping[fx.Node, Any], *args: Any, alpha: Any = 1, **others: Any
) -> Operation:
    """Return a sum of two tensors, or an affine function of one."""
    arguments = [*args, *(others.pop(name) for name in ("input", "other") if name in others)]
    function, values = AFFINE[node.target], [constants.get(each, each) for each in arguments]
    variable = [place for place, value in enumerate(values) if isinstance(value, fx.Node)]
    if others or alpha != 1 or (function is operator.truediv and variable != [0]):
        raise _no_rule(node)
    if function is operator.add and variable == [0, 1]:
        return _of(Function("sum", _sum), node, arguments, constants)
    if len(variable) != 1 or not all(isinstance(value, (fx.Node, int, float, Tensor)) for value in values):
        raise _no_rule(node)
    (place,) = variable
    before, after = values[:place], values[place + 1 :]
    module = Function("affine", lambda tensor: function(*before, tensor, *after))
    return _of(module, node, arguments[place : place + 1], constants)


def batchnorm(norm: nn.modules.batchnorm._BatchNorm) -> Function:
    """Return what ``norm`` computes in eval mode."""
    mean, variance = norm.running_mean, norm.running_var
    return Function(
        "affine",
        lambda values: functional.batch_norm(values, mean, variance, norm.weight, norm.bias, eps=norm.eps),
    )


def _concatenation(
    node: fx.Node, constants: Mapping[fx.Node, Any], tensors: Any, dim: Any = 0, **others: Any
) -> Operation:
    dim = others.get("axis", dim)
    if not isinstance(tensors, (tuple, list)) or not isinstance(dim, int) or dim == 0:
        raise UserError(
            f"lrp has no rule for {name_of(node)!r} along the first dimension, that of the images"
        )
    return _of(Function("concatenation", lambda *parts: torch.cat(parts, dim), dim), node, tensors, constants)


def _usable(name: str, module: nn.Module) -> nn.Module:
    """Return a copy of a known layer that works out of place and on weights of its own."""
    kind = KINDS.get(type(module))
    if kind is None:
        raise UserError(f"lrp has no rule for the layer {name!r} ({type(module).__name__})")
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        raise UserError(f"lrp has no rule for the layer {name!r}: padding_mode must be 'zeros'")
    if isinstance(module, nn.Upsample) and module.mode not in WITH_SHARES:
        raise UserError(f"lrp has no rule for the layer {name!r}: its mode must be {', '.join(WITH_SHARES)}")
    if getattr(module, "inplace", False):
        module = copy.copy(module)
        module.__dict__["inplace"] = False
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        if not set(dict(module.named_parameters())) <= {"weight", "bias"}:
            raise UserError(f"lrp has no rule for the layer {name!r}: its weight is made of other parameters")
        return reweighted(module, laid_out(module.weight), module.bias)
    return module


def reweighted(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    """Return a copy of a convolution or linear layer with these weights, which need no gradient.

    It shares everything else with its layer, which is never touched.
    """
    twin = copy.copy(layer)
    twin._parameters = {
        "weight": nn.Parameter(weight.detach(), requires_grad=False),
        "bias": None if bias is None else nn.Parameter(bias.detach(), requires_grad=False),
    }
    return twin


def laid_out(values: Tensor) -> Tensor:
    """Return ``values`` in the memory layout that convolutions are fastest with: on a CPU channels last."""
    if values.ndim == 4 and values.device.type == "cpu":
        return values.contiguous(memory_format=torch.channels_last)
    return values


def _tensors(node: fx.Node, found: Any, constants: Mapping[fx.Node, Any]) -> tuple[fx.Node, ...]:
    if not found or not all(
        isinstance(item, fx.Node) and item not in constants and not is_size(item) for item in found
    ):
        raise UserError(
            f"lrp has no rule for {name_of(node)!r} of anything but tensors that depend on the images"
        )
    return tuple(found)


def _no_rule(node: fx.Node) -> UserError:
    what = "second input" if node.op == "placeholder" else "function"
    return UserError(f"lrp has no rule for the {what} {name_of(node)!r}")


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
