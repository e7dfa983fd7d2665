"""Neurons and their coverage, as DLFuzz and the papers that build on it count them.

A neuron is a channel of a layer. An image's activations in a layer are scaled as a whole to [0, 1],
(a - min a) / (max a - min a) over all channels and places; the neuron's activation is the mean of its channel
and the neuron is covered where that exceeds a threshold (Pei et al. 2017, DeepXplore, Sec. 4.1; Guo et al.
2018, DLFuzz). Coverage is the share of neurons covered by at least one image.

The layers are those of Keras' VGG16 in the published code: every convolution and hidden fully connected layer
after its activation, every max-pool, and the softmax of the logits; 14,888 neurons in VGG16. In PyTorch these
are the outputs of the activation and max-pool modules. Average pools are left out: they repeat the channel
means of the layer before. Activations are read through forward hooks, which live inside :func:`watching` only.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.batched_model import BatchedModel
from xaicore.core.errors import UserError

PREDICTIONS = "(predictions)"
"""The name of the softmax of the logits among the layers; no module can clash with it by accident."""

ACTIVATIONS = (
    *(nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Threshold, nn.ELU, nn.CELU, nn.SELU, nn.GLU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Tanhshrink),
)
"""Modules whose output is a layer's activation; ReLU6 is a Hardtanh."""

MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)


@dataclass
class Watch:
    """What the watched layers gave in the last pass of a model.

    A layer that is there by default may take no part in a pass, one that the caller chose may not.
    """

    names: tuple[str, ...]  # the layers in order
    activated: (
        frozenset[str] | None
    )  # those there by default as activation modules; None where the caller chose
    seen: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def layers(self) -> dict[str, int]:
        """Return the layers of the last pass and the number of their neurons.

        Raises:
            UserError: a layer the caller chose took no part in it, or no activation module did.
        """
        absent = [name for name in self.names if name not in self.seen]
        if self.activated is None and absent:
            raise UserError(f"layers must take part in the forward pass; {absent[0]!r} does not")
        if self.activated is not None and not self.activated & self.seen.keys():
            raise UserError(
                "model must have its activations as modules (nn.ReLU, …), not as functions, for its neurons to be "
                "found; otherwise name layers"
            )
        return {name: self.seen[name][0].shape[1] for name in self.names if name in self.seen}

    def means(self, count: int) -> Tensor:
        """Return the channel means of the first ``count`` rows, (count, neurons), with their graph if any."""
        return torch.cat([self.seen[name][0][:count] for name in self.layers()], dim=1)

    def scaled(self, count: int) -> Tensor:
        """Return the activations of the first ``count`` rows, (count, neurons) in [0, 1].

        A layer that is constant over an image, or not finite, has no scale: its neurons are 0.
        """
        columns = []
        for name in self.layers():
            means, low, high = (tensor.detach()[:count] for tensor in self.seen[name])
            columns.append(((means - low) / (high - low)).nan_to_num(0, 0, 0).clamp(0, 1))
        return torch.cat(columns, dim=1)

    def record(self, name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        """Keep the channel means and the range of ``output`` (N, C, …); of several calls the last counts."""
        if not isinstance(output, Tensor) or output.ndim < 2 or not output.is_floating_point():
            raise UserError(f"layers must give one tensor (N, C, …); {name!r} does not")
        values = output.detach().flatten(1) if output.ndim == 2 else output.detach()
        places = tuple(range(2, output.ndim)) if output.ndim != 3 else (1,)
        everything = tuple(range(1, output.ndim))
        self.seen[name] = (
            output.mean(dim=places) if places else output.clone(),
            values.amin(dim=everything)[:, None],
            values.amax(dim=everything)[:, None],
        )


@contextmanager
def watching(model: nn.Module, layers: Sequence[str] | None = None) -> Iterator[Watch]:
    """Watch layers of ``model`` through forward hooks, removed at the end whatever happens.

    Args:
        model: gives logits (N, K).
        layers: names of modules as in ``model.named_modules()``, and :data:`PREDICTIONS` for the softmax of the
            logits; None: all activation and max-pool modules that take part in a pass, and the softmax.

    Raises:
        TypeError: ``layers`` is not a sequence of strings.
        UserError: a name is unknown or occurs twice, or there is none; or the model is compiled, since what is compiled
            may run without the hooks, or keep them.
    """
    if any(hasattr(module, "_orig_mod") or module._compiled_call_impl for module in model.modules()):
        raise UserError(
            "model must not be compiled for its neurons to be found: pass it as before torch.compile"
        )
    modules = {name: module for name, module in model.named_modules() if module is not model}
    names = _names(modules, layers)
    activated = frozenset(name for name in names if isinstance(modules.get(name), ACTIVATIONS))
    watch = Watch(names, activated if layers is None else None)

    def predict(module: nn.Module, arguments: Any, output: Any) -> None:
        if PREDICTIONS in names and isinstance(output, Tensor) and output.ndim == 2:
            watch.record(PREDICTIONS, module, arguments, output.softmax(dim=1))

    handles = [model.register_forward_pre_hook(lambda *_: watch.seen.clear())]
    try:
        for name in names:
            if name != PREDICTIONS:
                handles.append(modules[name].register_forward_hook(partial(watch.record, name)))
        handles.append(model.register_forward_hook(predict))
        yield watch
    finally:
        for handle in handles:
            handle.remove()
        watch.seen.clear()


def activations(
    model: nn.Module,
    images: Tensor,
    *,
    layers: Sequence[str] | None = None,
    batch_size: int | None = None,
) -> dict[str, Tensor]:
    """Return the activation of every neuron for every image, scaled to [0, 1] by image and layer.

    Args:
        model, images, batch_size: as in :mod:`xaicore.attacks`.
        layers: as in :func:`watching`. A channel is dimension 1 of a layer's output, in an output (N, tokens,
            features) the last. Of a module called several times in a pass the last output counts.

    Returns:
        Layer name to (N, channels) float32 on the device of ``images``, in the order of
        ``model.named_modules()`` or of ``layers``. Of a layer that is constant over an image, or not finite,
        all neurons are 0.

    Raises:
        ValueError: also if ``layers`` do not fit, or the model has its activations as functions.
    """
    checks.model(model)
    images = checks.images(images).detach()
    with watching(model, layers) as watch, BatchedModel.of(model, images, batch_size) as batched:
        rows = []
        for part in torch.split(images, batched.batch_size):
            batched.logits(part)
            rows.append(watch.scaled(len(part)).to(images.device))
        sizes = watch.layers()
    return dict(zip(sizes, torch.cat(rows).split(list(sizes.values()), dim=1), strict=True))


def covered(activations: Mapping[str, Tensor], threshold: float = 0.25) -> Tensor:
    """Return which neurons each image covers, (N, neurons) bool, the layers one after the other.

    Args:
        activations: layer name to (N, channels) in [0, 1], from :func:`activations`.
        threshold: a neuron is covered where its activation is greater, in [0, 1].
    """
    checks.not_negative("threshold", threshold, most=1)
    return torch.cat(list(activations.values()), dim=1) > threshold


class Coverage:
    """How often each neuron was covered. The order of the updates does not matter.

    Args:
        layers: layer name to its number of neurons; the neurons stand in this order.
        counts: (neurons,) int64, how often each was covered so far; None: never.

    Attributes:
        layers: as given.
        counts: (neurons,) int64 on the CPU.

    Raises:
        ValueError: the counts do not fit the layers.
    """

    def __init__(self, layers: Mapping[str, int], counts: Tensor | None = None) -> None:
        neurons = sum(layers.values())
        self.layers = dict(layers)
        self.counts = torch.zeros(neurons, dtype=torch.int64)
        if counts is not None:
            self.counts += checks.integers("counts", counts, neurons).cpu()

    def update(self, covered: Tensor) -> None:
        """Add what some images covered.

        Args:
            covered: (N, neurons) bool, from :func:`covered`, or int64 for how often, as in ``info["covered"]``
                of :func:`~xaicore.attacks.neuron_fuzzing.dlfuzz`. There, -1 stands for an image that was not
                attacked; negative entries count nothing.

        Raises:
            ValueError: it does not fit.
        """
        if covered.ndim != 2 or covered.shape[1] != len(self.counts):
            raise UserError(f"covered must have shape (N, {len(self.counts)}), not {tuple(covered.shape)}")
        if covered.dtype not in (torch.bool, torch.int64):
            raise UserError(f"covered must be bool or int64, not {covered.dtype}")
        self.counts += covered.long().clamp(min=0).sum(dim=0).cpu()

    def share(self) -> float:
        """Return the share of all neurons that are covered."""
        return (self.counts > 0).double().mean().item()

    def share_by_layer(self) -> dict[str, float]:
        """Return the share of each layer's neurons that are covered."""
        parts = (self.counts > 0).double().split(list(self.layers.values()))
        return {name: part.mean().item() for name, part in zip(self.layers, parts, strict=True)}


def _names(modules: Mapping[str, nn.Module], layers: Any) -> tuple[str, ...]:
    if layers is None:
        chosen = [name for name, module in modules.items() if isinstance(module, ACTIVATIONS + MAX_POOLS)]
        return (*chosen, PREDICTIONS)
    if isinstance(layers, str) or not isinstance(layers, Sequence) or any(type(n) is not str for n in layers):
        raise TypeError(f"layers must be a sequence of module names, not {layers!r}")
    for name in layers:
        if name != PREDICTIONS and name not in modules:
            names = f"names of model.named_modules() or {PREDICTIONS!r}"
            raise UserError(f"layers must be {names}; there is no {name!r}")
    if not layers or len(set(layers)) < len(layers):
        raise UserError("layers must name at least one layer, and none twice")
    return tuple(layers)
