"""The network as a chain of layers, in the order in which they run.

Relevance can only be handed down correctly where every operation between input and logits is known. So
the network is traced symbolically (``torch.fx``) and accepted only as a chain of convolutions, linear
layers, ReLUs, pooling, reshaping and dropout; a sum of two branches, a BatchNorm, a functional call or an
unknown layer is refused by name, because ignoring it would give heatmaps that look plausible and are
wrong. The order of execution comes from the trace, not from the order in which layers were registered.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from xaicore.errors import UserError

KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.Linear: "dense",
    nn.ReLU: "activation",
    nn.ReLU6: "activation",
    nn.MaxPool2d: "max-pool",
    nn.AdaptiveMaxPool2d: "max-pool",
    nn.AvgPool2d: "average-pool",
    nn.AdaptiveAvgPool2d: "average-pool",
    nn.Flatten: "reshape",
    nn.Unflatten: "reshape",
    nn.Dropout: "identity",
    nn.Dropout2d: "identity",
    nn.Identity: "identity",
}
RESHAPING_METHODS = {"flatten", "view", "reshape", "contiguous"}
WITH_WEIGHTS = ("conv", "dense")
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Layer:
    """One step of a chain: its kind, its name in the network and its module (None for a bare reshape)."""

    kind: str
    name: str
    module: nn.Module | None

    @property
    def needs_values(self) -> bool:
        """Whether handing relevance through this layer takes the values that it was given."""
        return self.kind in (*WITH_WEIGHTS, "max-pool", "average-pool")


class Chain:
    """A network as a list of :class:`Layer`, able to run forward and to keep what each layer was given."""

    def __init__(self, network: nn.Module) -> None:
        """Trace ``network``.

        Raises:
            UserError: the network is not a chain of known layers; the message names what does not fit.
        """
        if type(network) in KINDS:
            network = nn.Sequential(network)
        for name, module in network.named_modules():
            if isinstance(module, _BATCH_NORMS):
                raise UserError(
                    f"lrp has no rule for the BatchNorm layer {name!r}: "
                    "call model.fold_batchnorm() and explain the model it returns"
                )
        try:
            self._traced = fx.GraphModule(network, _Tracer().trace(network))
        except Exception as error:
            raise UserError(
                f"lrp cannot follow the forward pass of {type(network).__name__}, no chain of layers: "
                + str(error).partition("\n")[0]
            ) from error
        self._nodes = _layers_by_node(self._traced)
        self.layers = list(self._nodes.values())

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what each layer was given, in order, and the output of the last.

        Of what ReLU, dropout and reshaping were given only the shape is kept; the values are arbitrary.
        """
        recorder = _Recorder(self._traced, self._nodes)
        with torch.no_grad():
            output: Tensor = recorder.run(inputs)
        return recorder.given, output


class _Tracer(fx.Tracer):
    """Takes a subclass of a known layer as one layer too, so that it can be refused by its name."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, tuple(KINDS)) or super().is_leaf_module(m, module_qualified_name)


class _Recorder(fx.Interpreter):
    """Runs a traced network and keeps what each layer was given."""

    def __init__(self, traced: fx.GraphModule, layers: dict[fx.Node, Layer]) -> None:
        super().__init__(traced)
        self._layers = layers
        self.given: list[Tensor] = []

    def run_node(self, node: fx.Node) -> Any:
        if node in self._layers:
            values: Tensor = self.fetch_args_kwargs_from_env(node)[0][0]
            kept = values if self._layers[node].needs_values else values.new_empty(()).expand_as(values)
            self.given.append(kept)
        return super().run_node(node)


def _layers_by_node(traced: fx.GraphModule) -> dict[fx.Node, Layer]:
    layers: dict[fx.Node, Layer] = {}
    current: fx.Node | None = None
    for node in traced.graph.nodes:
        if node.op == "placeholder" and current is None:
            current = node
        elif node.op == "output":
            if node.args[0] is not current:
                raise UserError(
                    "lrp needs a network that returns the output of its last layer, one tensor of logits"
                )
        elif _is_size(node):
            continue
        else:
            layers[node] = _layer(traced, node, current)
            current = node
    if not any(layer.kind in WITH_WEIGHTS for layer in layers.values()):
        raise UserError("lrp needs a network with at least one convolution or linear layer")
    return layers


def _is_size(node: fx.Node) -> bool:
    """Whether a node only asks for the size of a tensor, as in ``x.view(x.size(0), -1)``."""
    if node.op == "call_method":
        return node.target == "size"
    if node.op != "call_function":
        return False
    name = getattr(node.target, "__name__", "")
    if name == "getattr":
        return bool(node.args[1] == "shape")
    return name == "getitem" and isinstance(node.args[0], fx.Node) and bool(_is_size(node.args[0]))


def _layer(traced: fx.GraphModule, node: fx.Node, current: fx.Node | None) -> Layer:
    name = str(node.target if node.op == "call_module" else getattr(node.target, "__name__", node.target))
    tensors = [item for item in node.all_input_nodes if not _is_size(item)]
    if tensors != [current] or node.args[:1] != (current,):
        raise UserError(f"lrp needs a chain of layers, but {name!r} joins or skips branches of this network")
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        kind = KINDS.get(type(module))
        if kind is None:
            raise UserError(f"lrp has no rule for the layer {name!r} ({type(module).__name__})")
        if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
            raise UserError(f"lrp has no rule for the layer {name!r}: padding_mode must be 'zeros'")
        return Layer(kind, name, module)
    reshapes = node.target is torch.flatten or (node.op == "call_method" and node.target in RESHAPING_METHODS)
    if reshapes:
        return Layer("reshape", name, None)
    raise UserError(
        f"lrp has no rule for the function {name!r}: use a layer instead (nn.ReLU, nn.MaxPool2d, ...)"
    )
