r"""Grad-CAM of every layer from one forward and one backward pass.

.. math:: L = \mathrm{ReLU}\Big(\sum_c \alpha_c A_c\Big), \qquad
          \alpha_c = \frac{1}{hw} \sum_{i,j} \frac{\partial z_t}{\partial A_{c,ij}}

for the activations :math:`A` (C, h, w) of a layer: Selvaraju et al., ICCV 2017, Eq. 1 and 2.

In a network of tokens the layers are those whose tokens still look at each other: what each ``nn.MultiheadAttention`` is
given (the keys' values, after the block's normalisation). After the last of them only the class token is read, and the
gradient of all others is zero. Tokens are put where their patches are; a class token, which is nowhere, is left out.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from xaicore.attribution.batches import Batch, batches, target_logits
from xaicore.attribution.calls import ELEMENTWISE, argument, changes_in_place, check_visible, name_of
from xaicore.attribution.inputs import check_call, network_of
from xaicore.core.errors import UserError
from xaicore.core.undisturbed import undisturbed

ACTIVATIONS = ("post-relu", "pre-relu")
PRODUCTS = ("mul", "multiply", "imul")
ATTENTION = ("softmax", "scaled_dot_product_attention")
"""Functions that attention outside of ``nn.MultiheadAttention`` calls on tensors of at least three dimensions."""


class GradCams(dict[str, Tensor]):
    """The maps (N, h, w) of each layer by its name, in order of execution.

    Attributes:
        targets: (N,) int64, the neurons explained, the arg max of the logits where none were given.
    """

    targets: Tensor

    @property
    def valid(self) -> dict[str, Tensor]:
        """Which maps (N,) of each layer say something: False where a map is zero everywhere."""
        return {name: maps.flatten(1).any(1) for name, maps in self.items()}


def grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    layers: str | Sequence[str] = "all",
    *,
    activations: str = "post-relu",
    batch_size: int = 32,
) -> GradCams:
    """Return the Grad-CAM of layers, all from one forward and one backward pass of each batch.

    Args:
        model, images, targets, batch_size: as for :func:`~xaicore.attribution.gradient`, as are errors. Activations may
            work in place.
        layers: ``"all"`` convolutions and attentions (Conv2d and MultiheadAttention modules), the ``"last"`` one to run
            whose map has more than one cell, or names of modules as in ``named_modules()`` of the model, of a
            classifier's network (``"features.0"``), that each give (N, C, h, w); or (N, h, w, C), where only so the map
            has the proportions of the image; or tokens (N, h w, C) or (N, 1 + h w, C), the class token first, in such
            proportions. Of an attention it is not what it gives but the tokens that it is given as values.
        activations: what :math:`A` is for a convolution that an activation follows, directly or through its
            batch normalisation: the output of that activation (``"post-relu"``; of a value times its own sigmoid the
            product) or what enters it (``"pre-relu"``). Of another convolution it is the output, through its batch
            normalisation, and of another module its output.

    Returns:
        Layer name to (N, h, w), at least 0, not normalised, on the device of ``images``; ``valid`` says which
        maps are not zero everywhere.

    Raises:
        UserError: an unknown layer, one that takes no part in the forward pass or more than one, or does not
            give one of these; the message names it. ``"last"`` where no map has more than one cell, or where
            attention that is not a MultiheadAttention module runs later.
    """
    indices = check_call(model, images, targets, batch_size)
    if activations not in ACTIVATIONS:
        raise UserError(f"activations must be one of {', '.join(ACTIVATIONS)}, not {activations!r}")
    network = network_of(model)
    modules = _wanted(network, layers)
    check_visible(network, "grad_cam")
    post, last = activations == "post-relu", layers == "last"
    cams = GradCams()
    with undisturbed(model):
        cams.targets = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        probe = images if len(images) else images.new_zeros(1, *images.shape[1:])
        for batch in batches(model, probe, indices if len(images) else None, batch_size):
            maps, chosen = _batch_maps(network, batch, modules, _Follower(post, last, probe.shape[2:]))
            cams.targets[batch.rows] = chosen[: len(images)].to(images.device)
            if last:
                maps = dict([maps.popitem()])
            absent = [] if isinstance(layers, str) else [name for name in layers if name not in maps]
            if absent:
                raise UserError(f"layers must take part in the forward pass; {absent[0]!r} does not")
            for name, values in maps.items():
                if name not in cams:
                    cams[name] = values.new_zeros(len(images), *values.shape[1:]).to(images.device)
                cams[name][batch.rows] = values[: len(images)].to(images.device)
    return cams


def _wanted(network: nn.Module, layers: str | Sequence[str]) -> dict[str, nn.Module]:
    modules = {name: module for name, module in network.named_modules() if name}
    if isinstance(layers, str):
        if layers not in ("all", "last"):
            raise UserError(f"layers must be 'all', 'last' or a sequence of names, not {layers!r}")
        kinds = (nn.Conv2d, nn.MultiheadAttention)
        found = {name: modules[name] for name in modules if isinstance(modules[name], kinds)}
        if not found:
            raise UserError(f"layers: {type(network).__name__} has no Conv2d module; name the layers")
        return found
    for name in layers:
        if name not in modules:
            raise UserError(f"layers: {type(network).__name__} has no module {name!r}; see named_modules()")
    if not layers or len(set(layers)) < len(layers):
        raise UserError("layers must name at least one module, and none twice")
    return {name: modules[name] for name in layers}


def _batch_maps(
    network: nn.Module, batch: Batch, modules: dict[str, nn.Module], follower: "_Follower"
) -> tuple[dict[str, Tensor], Tensor]:
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(follower.watch(name, module).remove)
        chosen, values = target_logits(network, batch.inputs.requires_grad_(), batch.targets, follower)
    follower.check_last()
    edges = {name: layer.edge for name, layer in follower.layers.items() if layer.edge is not None}
    gradients = torch.autograd.grad(values.sum(), list(edges.values()), allow_unused=True) if edges else ()
    maps = {name: torch.zeros_like(layer.maps(layer.values)[:, 0]) for name, layer in follower.layers.items()}
    for name, slope in zip(edges, gradients, strict=True):
        if slope is not None:
            layer = follower.layers[name]
            weights = layer.maps(slope).mean((2, 3))
            maps[name] = torch.einsum("nc,nchw->nhw", weights, layer.maps(layer.kept())).relu()
    return maps, chosen


def as_maps(values: Tensor, size: Sequence[int]) -> Tensor | None:
    """Return what a layer gives for images of ``size`` (H, W) as (N, C, h, w); see :func:`grad_cam`; None of another."""
    height, width = size
    if values.ndim == 4:
        channels_last = values.shape[1] * width == values.shape[2] * height
        fits = values.shape[2] * width == values.shape[3] * height
        return values.movedim(3, 1) if channels_last and not fits else values
    for tokens in (values, values[:, 1:]) if values.ndim == 3 else ():
        rows = math.isqrt(tokens.shape[1] * height // width)
        columns = rows * width // height
        if rows * columns == tokens.shape[1] > 0 and rows * width == columns * height:
            return tokens.transpose(1, 2).unflatten(2, (rows, columns))
    return None


class _Layer:
    """What a layer gave: its values as they were, where the gradient enters it, and how both are maps (N, C, h, w)."""

    def __init__(
        self, name: str, output: Tensor, maps: Callable[[Tensor], Tensor], *, followed: bool
    ) -> None:
        self.name, self.maps, self.followed = name, maps, followed
        self.gated: Tensor | None = None
        self.take(output)

    def take(self, output: Tensor) -> None:
        """Go on to ``output``, which the network goes on with."""
        self.output = output
        self.values, self.version = output.detach(), output._version
        self.edge = get_gradient_edge(output) if output.requires_grad else None

    def is_gated(self, factors: Sequence[Any]) -> bool:
        """Whether ``factors`` are what the activation was given, and what it gave: Swish by hand."""
        return any(self.output is one and self.gated is other for one, other in permutations(factors, 2))

    def keep(self) -> None:
        """Put the values aside before the network overwrites them."""
        if self.values._version == self.version and self.values.data_ptr() == self.output.data_ptr():
            self.values = self.values.clone()
            self.version = self.values._version

    def kept(self) -> Tensor:
        """Return the values; raise UserError where the network has overwritten them unseen."""
        if self.values._version != self.version:
            raise UserError(f"layers: what {self.name!r} gives is overwritten through a view: leave it out")
        return self.values


class _Follower(TorchFunctionMode):
    """Follows the output of layers, by identity, through batch normalisation to the activation after it."""

    def __init__(self, post: bool, last: bool, size: Sequence[int]) -> None:
        super().__init__()
        self._post, self._last, self._size = post, last, size
        self._attention_after = ""
        self.layers: dict[str, _Layer] = {}

    def watch(self, name: str, module: nn.Module) -> Any:
        """Record what a layer gives, or the tokens that an attention is given; return the handle of the hook."""
        if not isinstance(module, nn.MultiheadAttention):
            followed = isinstance(module, nn.Conv2d)
            return module.register_forward_hook(
                lambda module, given, output: self._record(name, output, self._maps, followed)
            )
        swap = not module.batch_first

        def record(module: nn.Module, args: Any, kwargs: Any) -> None:
            tokens = argument(args, kwargs, 2, "value")
            self._record(name, tokens, lambda x: self._maps(x.transpose(0, 1) if swap else x), followed=False)

        return module.register_forward_pre_hook(record, with_kwargs=True)

    def check_last(self) -> None:
        """Raise UserError where there is no last layer, or it is not the last that says where."""
        if self._last and not self.layers:
            raise UserError(
                "layers: no convolution or attention gives a map of more than one cell for images of this size: "
                "take larger images, or name a layer"
            )
        if self._last and self.layers and self._attention_after:
            raise UserError(
                f"layers: attention ({self._attention_after!r}) runs after the last convolution "
                f"{next(iter(self.layers))!r} of this network, whose map would say little: name a layer near its end"
            )

    def _maps(self, values: Tensor) -> Tensor | None:
        return as_maps(values, self._size)

    def _record(self, name: str, output: Any, maps: Any, followed: bool) -> None:
        if name in self.layers:
            raise UserError(f"layers: {name!r} is called more than once in a forward pass: leave it out")
        if not isinstance(output, Tensor) or (not followed and maps(output) is None):
            raise UserError(f"layers: {name!r} does not give one tensor (N, C, h, w), nor tokens of a grid")
        if (
            self._last and maps(output)[0, 0].numel() == 1
        ):  # of squeeze-and-excitation, or after all places are one
            return
        if self._last:
            self.layers.clear()
            self._attention_after = ""
        self.layers[name] = _Layer(name, output, (lambda x: x) if followed else maps, followed=followed)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        source = argument(args, kwargs, 0, "input")
        given = [layer for layer in self.layers.values() if layer.output is source]
        if given and changes_in_place(func, kwargs):
            for layer in given:
                layer.keep()
        if name_of(func) in ATTENTION and source is not None and source.ndim > 2:
            self._attention_after = name_of(func)
        factors = (source, argument(args, kwargs, 1, "other")) if name_of(func) in PRODUCTS else ()
        gated = [
            layer for layer in self.layers.values() if layer.gated is not None and layer.is_gated(factors)
        ]
        result = func(*args, **kwargs)
        for layer in given:
            if layer.followed and name_of(func) == "batch_norm":
                layer.take(result)
            elif layer.followed and name_of(func) in ELEMENTWISE:
                layer.followed = False
                if self._post:
                    layer.gated = source
                    layer.take(result)
            elif changes_in_place(func, kwargs):
                layer.followed = False
        for layer in gated:
            layer.gated = None
            layer.take(result)
        return result
