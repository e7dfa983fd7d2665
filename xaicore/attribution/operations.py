"""What each operation of a traced network computes, as the layer that it is.

``functional.max_pool2d(x, 2)`` is taken as ``nn.MaxPool2d(2)``. Whatever :mod:`xaicore.attribution.layers` does not
list is refused by name, because ignoring it would give heatmaps that look plausible and are wrong.
"""

import copy
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from xaicore.attribution.attention import group_norm, layer_norm
from xaicore.attribution.layers import (
    AFFINE,
    CONCATENATIONS,
    EXPANSIONS,
    GATES,
    KINDS,
    OPERATIONS,
    PRODUCTS,
    REARRANGEMENTS,
    RESHAPES,
    SPLITS,
    WITH_SHARES,
    Function,
    add,
    laid_out,
    normalisation,
    reweighted,
    softmax,
)
from xaicore.core.errors import UserError

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
            return _arithmetic(traced, node, constants, *node.args, **node.kwargs)
        if node.target in CONCATENATIONS:
            return _concatenation(node, constants, *node.args, **node.kwargs)
        if node.target in RESHAPES or node.target in EXPANSIONS:
            kind = "reshape" if node.target in RESHAPES else "expansion"
            return kind, None, _tensors(node, node.args[:1], constants)
        if node.target in SPLITS:  # what takes a part does it
            return "identity", nn.Identity(), _tensors(node, node.args[:1], constants)
        if node.target in REARRANGEMENTS:
            return _rearrangement(node, constants)
        if node.target in PRODUCTS:
            return _product(node, constants, *node.args, **node.kwargs)
        if node.target in OPERATIONS:
            others = {name: value for name, value in node.kwargs.items() if name != "input"}
            inputs = node.args[:1] or (node.kwargs.get("input"),)
            if not {*inputs, *constants}.issuperset(node.all_input_nodes):
                raise UserError(
                    f"lrp has no rule for {name_of(node)!r} with options that depend on its input"
                )
            further, options = fx.map_arg((node.args[1:], others), constants.__getitem__)
            return _of(OPERATIONS[node.target](*further, **options), node, inputs, constants)
    raise _no_rule(node)


def _of(module: nn.Module, node: fx.Node, inputs: Any, constants: Mapping[fx.Node, Any]) -> Operation:
    kind = module.kind if isinstance(module, Function) else KINDS[type(module)]
    return kind, module, _tensors(node, inputs, constants)


def _arithmetic(
    traced: fx.GraphModule,
    node: fx.Node,
    constants: Mapping[fx.Node, Any],
    *args: Any,
    alpha: Any = 1,
    **others: Any,
) -> Operation:
    """Return a sum of two tensors, or an affine function of one."""
    arguments = [*args, *(others.pop(name) for name in ("input", "other") if name in others)]
    function, values = AFFINE[node.target], [constants.get(each, each) for each in arguments]
    variable = [place for place, value in enumerate(values) if isinstance(value, fx.Node)]
    if others or alpha != 1 or (function is operator.truediv and variable != [0]):
        raise _no_rule(node)
    if function is operator.add and variable == [0, 1]:
        return _of(Function("sum", add), node, arguments, constants)
    if function is operator.mul and variable == [0, 1] and not any(map(is_size, arguments)):
        return _gated(traced, node, constants, arguments)
    if len(variable) != 1 or not all(isinstance(value, (fx.Node, int, float, Tensor)) for value in values):
        raise _no_rule(node)
    (place,) = variable
    before, after = values[:place], values[place + 1 :]
    module = Function("affine", lambda tensor: function(*before, tensor, *after))
    return _of(module, node, arguments[place : place + 1], constants)


def _gated(
    traced: fx.GraphModule, node: fx.Node, constants: Mapping[fx.Node, Any], factors: list[fx.Node]
) -> Operation:
    """Return a signal and its gate in this order, or a product of two equals."""
    gates = [is_fixed(factor) or _is_gate(traced, factor) for factor in factors]
    if sum(gates) == 1:
        return _of(Function("gate", operator.mul), node, factors[:: -1 if gates[0] else 1], constants)
    return _of(Function("product", operator.mul), node, factors, constants)


def _is_gate(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a factor lies between 0 and 1, as in squeeze-and-excitation."""
    while node.target in (*RESHAPES, *EXPANSIONS):
        node = node.all_input_nodes[0]
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), GATES)
    made = OPERATIONS.get(node.target) if node.op != "placeholder" else None
    return made in GATES or node.target is functional.hardsigmoid


def _product(
    node: fx.Node, constants: Mapping[fx.Node, Any], first: Any, second: Any, *options: Any
) -> Operation:
    if any(isinstance(each, fx.Node) and is_fixed(each) for each in (first, second)):
        raise _no_rule(node)
    module = Function("product", lambda one, other: PRODUCTS[node.target](one, other, *options))
    return _of(module, node, (first, second), constants)


def _rearrangement(node: fx.Node, constants: Mapping[fx.Node, Any]) -> Operation:
    """Return what a function, or one part of a split, makes of one tensor."""
    whole = node.args[0]
    steps = [whole, node] if isinstance(whole, fx.Node) and whole.target in SPLITS else [node]
    if any(each.all_input_nodes != list(each.args[:1]) for each in steps):
        raise UserError(f"lrp has no rule for {name_of(node)!r} with options that depend on its input")

    def rearranged(values: Any) -> Tensor:
        for each in steps:
            function = each.target
            called = getattr(torch.Tensor, function) if isinstance(function, str) else function
            values = called(values, *each.args[1:], **each.kwargs)
        return values  # type: ignore[no-any-return]

    return _of(Function("rearrangement", rearranged), node, node.args[:1], constants)


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
    if "forward" in vars(module):
        raise UserError(f"lrp has no rule for the layer {name!r}: it has a forward of its own")
    if getattr(module, "return_indices", False):
        raise UserError(f"lrp has no rule for the layer {name!r}: return_indices must be False")
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
    if isinstance(module, nn.LayerNorm):
        return normalisation(layer_norm)(module.normalized_shape, module.weight, module.bias, module.eps)
    if isinstance(module, nn.GroupNorm):
        return normalisation(group_norm)(module.num_groups, module.weight, module.bias, module.eps)
    return softmax(module.dim) if isinstance(module, nn.Softmax) else module


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


def classify(nodes: Iterable[fx.Node], constants: Mapping[fx.Node, Any]) -> None:
    """Note of each of ``nodes``, in order, what :func:`is_size` and :func:`is_fixed` tell."""
    for node in nodes:
        inputs = node.all_input_nodes
        size = node.op == "call_method" and node.target == "size"
        if node.op == "call_function":
            arithmetic = getattr(node.target, "__module__", None) == operator.add.__module__
            of_sizes = arithmetic and bool(inputs) and all(map(is_size, inputs))
            size = bool(node.args[1] == "shape") if name_of(node) == "getattr" else of_sizes
        fixed = bool(inputs) and all(is_size(each) or is_fixed(each) for each in inputs)
        node.meta |= {"size": size, "fixed": node in constants or (fixed and not size)}


def is_size(node: fx.Node) -> bool:
    """Whether a node is made of nothing but the size of tensors, as in ``x.view(x.size(0), -1)``."""
    return bool(node.meta["size"])


def is_fixed(node: fx.Node) -> bool:
    """Whether a tensor depends on nothing of the images but their size, as a class token for each."""
    return bool(node.meta["fixed"])
