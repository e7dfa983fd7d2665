"""What a traced network does not show: values that are overwritten while others still read them, and hooks."""

from torch import fx, nn

from xaicore.attribution.calls import names
from xaicore.attribution.layers import BATCH_NORMS
from xaicore.attribution.operations import is_size, name_of

IN_PLACE = names("iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor setitem")
"""Operators that overwrite their first operand."""


def has_hooks(module: nn.Module) -> bool:
    """Whether more may happen in a call of ``module`` than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def reads_overwritten(traced: fx.GraphModule, needed: set[fx.Node]) -> bool:
    """Whether what an operation overwrites may be read by another than the one that takes its result."""
    for node in traced.graph.nodes:
        if not _overwrites(traced, node):
            continue
        if node not in needed:
            return True
        source = node
        while source.all_input_nodes and not _is_new(traced, source):
            source = source.all_input_nodes[0]
            if len(tensor_users(source)) > 1:
                return True
    return False


def _overwrites(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(traced.get_submodule(str(node.target)), "inplace", False))
    called = node.op in ("call_function", "call_method")
    name = name_of(node)
    in_place = name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
    return called and (in_place or bool(node.kwargs.get("inplace")))


def _is_new(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether what a node gives surely shares no memory with what it is given."""
    new = (*BATCH_NORMS, nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)
    return node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), new)


def tensor_users(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that take what ``node`` gives, not only its size."""
    return [user for user in node.users if not is_size(user)]
