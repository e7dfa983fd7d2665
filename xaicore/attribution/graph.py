"""The network as a directed graph of layers, in the order in which they run.

Relevance can only be handed down correctly where every operation between input and logits is known. So the
network is traced symbolically (``torch.fx``) and accepted only if each operation is one of
:mod:`xaicore.attribution.layers`. A batch normalisation that directly follows a convolution or linear layer is folded
into a copy of it; any other is an affine function of each value by itself. The order of execution comes from the trace,
not from the order in which layers were registered. Classifiers and compiled modules in a network are looked into.
"""

import inspect
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import scaled_dot_product_attention
from torchvision.transforms import functional

from xaicore.attribution.attention import attention, multi_head_attention
from xaicore.attribution.inputs import network_of
from xaicore.attribution.layers import BATCH_NORMS, GATES, KINDS, WITH_WEIGHTS, batchnorm, reweighted
from xaicore.attribution.operations import classify, is_fixed, is_size, name_of, operation
from xaicore.attribution.overwritten import has_hooks, reads_overwritten, tensor_users
from xaicore.core.errors import UserError
from xaicore.core.outputs import checked_logits
from xaicore.models.batchnorm import folded_weights

FOLD_TOLERANCE = 1e-4
"""How far the graph's logits may be from the network's, relative to the largest of them."""
INPUT = -1
"""The source of a step that takes the network's input."""
NEEDING_VALUES = ("affine", "max-pool", "average-pool", "sum", "normalisation", "softmax", "product")
_TRACING = threading.Lock()


@dataclass(frozen=True)
class Step:
    """One operation of a network.

    Attributes:
        kind: what propagation tells apart.
        name: of the layer in the network, or of the function.
        module: what computes it; None for a bare reshape.
        sources: positions of the steps whose outputs it takes.
    """

    kind: str
    name: str
    module: nn.Module | None
    sources: tuple[int, ...]

    @property
    def needs_values(self) -> bool:
        """Whether handing relevance through this step takes the values that it was given."""
        return self.kind in (*WITH_WEIGHTS, *NEEDING_VALUES)


class Graph:
    """A network as a list of :class:`Step`, able to run forward and to keep what each step was given.

    Attributes:
        steps: in the order of execution, without those that the output does not depend on.
        first: positions of the layers with weights that only layers without weights come before.
        normalisation: positions of the affine steps that only layers without weights come before.
    """

    def __init__(self, network: nn.Module) -> None:
        """Trace ``network``, which is in eval mode.

        Raises:
            UserError: the network is not made of known layers; the message names what does not fit.
        """
        whole = isinstance(network, (*KINDS, *BATCH_NORMS)) or hasattr(network, "_orig_mod")
        self._network = nn.Sequential(network) if whole else network
        try:
            with _TRACING:
                tracer = _Tracer()
                graph = tracer.trace(self._network, _defaults(self._network))
            self._traced = fx.GraphModule(self._network, graph)
        except Exception as error:
            raise UserError(
                f"lrp cannot follow the forward pass of {type(network).__name__}: "
                + str(error).partition("\n")[0]
            ) from error
        self.steps: list[Step] = []
        self._positions: dict[fx.Node, int] = {}
        self._needed = _nodes_before_output(self._traced.graph)
        self._constants = _constants(self._traced, self._needed)
        classify(self._traced.graph.nodes, self._constants)
        for node in self._needed:
            if node.op == "placeholder" and not self._positions:
                self._positions[node] = INPUT
            elif node not in self._constants and not is_size(node):
                self._append(node)
        if not any(step.kind in WITH_WEIGHTS for step in self.steps):
            raise UserError("lrp needs a network with at least one convolution or linear layer")
        last = self.steps[-1]
        while last.kind in ("reshape", "identity", "rearrangement") and last.sources[0] != INPUT:
            last = self.steps[last.sources[0]]
        if last.kind == "softmax" or isinstance(last.module, GATES):
            kind = "Softmax" if last.kind == "softmax" else type(last.module).__name__
            raise UserError(
                f"lrp explains logits and has no rule for the layer {last.name!r} ({kind}) at the end"
            )
        self._raw = self._nodes_before_weights()
        self.first = {
            self._positions[node]
            for node in self._positions.keys() - self._raw
            if self._raw.issuperset(node.all_input_nodes)
        }
        self.normalisation = {
            position
            for node, position in self._positions.items()
            if node in self._raw and position != INPUT and self.steps[position].kind == "affine"
        }
        self._hidden = any(map(has_hooks, self._network.modules())) or reads_overwritten(
            self._traced, set(self._needed)
        )
        self._rewritten = (
            tracer.unchecked
            or any(_is_norm(self._traced, node) for node in self._needed)
            or not all(
                len(tensor_users(node)) == 1 and len(self.steps[position].sources) == 1
                for node, position in self._positions.items()
            )
        )

    def _append(self, node: fx.Node) -> None:
        if _is_norm(self._traced, node):
            step = self._normalised(node)
        elif is_fixed(node):
            step = Step("fixed", name_of(node), None, ())
        else:
            kind, module, inputs = operation(self._traced, node, self._constants)
            step = Step(kind, name_of(node), module, tuple(self._positions[source] for source in inputs))
        self._positions[node] = len(self.steps)
        self.steps.append(step)

    def _normalised(self, node: fx.Node) -> Step:
        norm = self._traced.get_submodule(str(node.target))
        assert isinstance(norm, BATCH_NORMS)
        if norm.running_mean is None:
            raise UserError(
                f"lrp has no rule for the BatchNorm layer {name_of(node)!r}: it has no running statistics"
            )
        (before,) = node.all_input_nodes
        position = self._positions[before]
        layer = None if position == INPUT else self.steps[position]
        if layer is None or layer.kind not in WITH_WEIGHTS or tensor_users(before) != [node]:
            return Step("affine", name_of(node), batchnorm(norm), (position,))
        assert isinstance(layer.module, (nn.Conv2d, nn.Linear))
        folded = reweighted(layer.module, *folded_weights(layer.module, norm))
        self.steps[position] = replace(layer, module=folded)
        return Step("identity", name_of(node), nn.Identity(), (position,))

    def _nodes_before_weights(self) -> set[fx.Node]:
        raw: set[fx.Node] = set()
        for node in self._needed:
            position = self._positions.get(node, INPUT)
            has_weights = position != INPUT and self.steps[position].kind in WITH_WEIGHTS
            if raw.issuperset(node.all_input_nodes) and not has_weights:
                raw.add(node)
        return raw

    def forward(self, inputs: Tensor) -> tuple[list[tuple[Tensor, ...]], Tensor]:
        """Return what each step was given, in order, and the logits.

        Where propagation does not need the values only their shape is kept; the values are arbitrary.

        Raises:
            UserError: the logits are not those of the network.
        """
        recorder = _Recorder(self._traced, self._positions, self.steps, set(self._needed))
        with torch.no_grad():
            logits = checked_logits(recorder.run(inputs), len(inputs), fewest=1)
        if self._hidden or self._rewritten:
            self._check(inputs if self._hidden else inputs[:1], logits)
        return [recorder.given[position] for position in range(len(self.steps))], logits

    def given_to_first(self, inputs: Tensor) -> dict[int, Tensor]:
        """Return the smallest and largest values that the layers of :attr:`first` are given, of those of the inputs.

        All are (2, C, H, W).
        """
        recorder = _Bounds(self._traced, self._positions, self.steps, self._raw)
        with torch.no_grad():
            recorder.run(inputs)
        return {position: recorder.given[position][0] for position in self.first}

    def _check(self, inputs: Tensor, logits: Tensor) -> None:
        """Compare the logits of ``inputs`` with the network's.

        The first image is enough for weights that were folded. What hooks and layers in place do may depend on the image:
        then all are compared, at the cost of one more forward pass.
        """
        with torch.no_grad():
            output = self._network(inputs.clone(memory_format=torch.contiguous_format))
        expected = checked_logits(output, len(inputs), fewest=1)
        scales = expected.abs().amax(1).tolist()
        errors = [math.inf] * len(scales)
        if expected.shape[1] == logits.shape[1]:
            errors = (logits[: len(expected)] - expected).abs().amax(1).tolist()
        for scale, error in zip(scales, errors, strict=True):
            if math.isfinite(scale) and not error <= FOLD_TOLERANCE * scale:
                raise UserError(
                    f"lrp cannot explain this network layer by layer: its logits would change by {error:.1e}, where the "
                    f"largest is {scale:.1e} (BatchNorm with tiny variances, or layers in place that others depend on, "
                    "or hooks or a forward of its own that change what a module gives, or a module with the attributes "
                    "network and normalize that computes something else)"
                )


def _defaults(network: nn.Module) -> dict[str, Any]:
    """Return the arguments that a network of images gets by default, such as no mask."""
    _, *others = inspect.signature(network.forward).parameters.values()
    return {each.name: each.default for each in others if each.default is not each.empty}


def _nodes_before_output(graph: fx.Graph) -> list[fx.Node]:
    *nodes, output = graph.nodes
    logits = output.args[0]
    if not isinstance(logits, fx.Node):
        plain = next((kind for kind in (dict, list) if isinstance(logits, kind)), type(logits))
        checked_logits(plain(logits) if plain in (dict, list) else logits, rows=0)
    needed = {logits}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in nodes if node in needed]


def _constants(traced: fx.GraphModule, nodes: list[fx.Node]) -> dict[fx.Node, Any]:
    """Return the values of those ``nodes`` that do not depend on the input: parameters, buffers, what is made of them."""
    interpreter, found = fx.Interpreter(traced), dict[fx.Node, Any]()
    with torch.no_grad():
        for node in nodes:
            if node.op != "placeholder" and found.keys() >= set(node.all_input_nodes):
                found[node] = interpreter.env[node] = interpreter.run_node(node)
    return found


def _is_norm(traced: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), BATCH_NORMS)


class _Tracer(fx.Tracer):
    """Takes a subclass of a known layer as one layer too, so that it can be refused by its name.

    A classifier checks its images before it normalises them, which nothing but images passes: it is taken without.
    While it traces, torch.fx replaces how modules are called and their attributes read in all threads: the others get
    what they asked for.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self.unchecked = False
        super().__init__(autowrap_functions=(functional.normalize,))
        self._autowrap_search.append(functional)  # where it is called by the name of its module

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        if hasattr(m, "_orig_mod"):
            return m._orig_mod(*args, **kwargs)  # type: ignore[operator]
        if network_of(m) is not m:
            self.unchecked = True  # whether its own forward pass computes that
            return m.network(m.normalize(*args, **kwargs))  # type: ignore[operator]
        if type(m) is nn.MultiheadAttention:
            self.unchecked, forward = True, partial(multi_head_attention, m)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Proxy:
        if target is scaled_dot_product_attention:
            return attention(*args[0], **args[1])  # type: ignore[return-value]
        return super().create_proxy(kind, target, *args, **kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (nn.LayerNorm, nn.MultiheadAttention)):
            return type(m) is nn.LayerNorm  # others are looked into
        return isinstance(m, (*KINDS, *BATCH_NORMS)) or super().is_leaf_module(m, module_qualified_name)


class _Recorder(fx.Interpreter):
    """Runs some nodes of a traced network and keeps what each step was given, where that is known."""

    def __init__(
        self, traced: fx.GraphModule, positions: dict[fx.Node, int], steps: list[Step], nodes: set[fx.Node]
    ) -> None:
        super().__init__(traced)
        self.extra_traceback = False
        self._positions, self._steps, self._wanted = positions, steps, nodes
        self._nodes = {position: node for node, position in positions.items()}
        self.given: dict[int, tuple[Tensor, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        position = self._positions.get(n, INPUT)
        if position == INPUT:
            return super().run_node(n) if n in self._wanted or n.op == "output" else None
        step = self._steps[position]
        values = tuple(self.env[self._nodes[source]] for source in step.sources)
        if any(value is None for value in values):
            return None
        self.given[position] = (
            values if step.needs_values else tuple(v.new_empty(()).expand_as(v) for v in values)
        )
        if n not in self._wanted:
            return None
        if step.module is not None:
            return step.module.forward(*values)  # what its hooks change, the rules would not know
        if values:
            self.env[self._nodes[step.sources[0]]] = values[0].contiguous()  # view needs that
        return super().run_node(n)


class _Bounds(_Recorder):
    """Runs with the smallest and the largest value of each input, (2, C, H, W), and keeps them in this order."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if result is None or self._positions.get(n, INPUT) == INPUT:
            return result
        return result.sort(0).values  # a negative factor swaps them
