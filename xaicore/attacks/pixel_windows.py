"""Logits of images that differ from a known one in a single pixel, computed where the pixel reaches only.

A pixel reaches 3 x 3 cells of the first convolution's map, 5 x 5 of the second's, and so on: in the early and largest
maps of a network nearly all cells are those of the unchanged image. They are computed once an image; for a candidate
only the window around its pixel is, with the cells around it taken from the unchanged image. From the layer where the
window is most of the map, the whole map is computed. The logits are those of the whole network but for rounding.

It holds for networks that are a chain of layers (:class:`torch.nn.Sequential`, or a
:class:`~xaicore.models.Classifier` whose network has ``chain()``) and as long as these are convolutions of stride 1 that
keep the size, ReLUs and max-pools without overlap.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from xaicore.models.classifier import Classifier

MOST_OF_MAP = 0.75
"""A window of this share of the map's side, or more, is no longer worth its cutting out."""
KEPT_BYTES = 256 * 2**20
"""Most memory for the maps of unchanged images."""


@dataclass(frozen=True)
class _Layer:
    """What a layer does to a window.

    Attributes:
        module: the layer.
        map: (H, W) of its input.
        cut: side of the window that it needs of its input.
        side: side of the window of its output.
        step: cells of its input per cell of its output.
        margin: cells by which the window of its input reaches further up and left than that of its output.
        weight: of a convolution, channels last.
        bias: of a convolution that has one.
    """

    module: nn.Module
    map: tuple[int, int]
    cut: int
    side: int
    step: int
    margin: int
    weight: Tensor | None = None
    bias: Tensor | None = None


class PixelWindows:
    """The candidates of a one-pixel attack on one network.

    Args:
        model: the network, in eval mode.
        layers: the layers that work on windows.
        rest: the layers from the first whole map on.
        parameters: of ``rest``, as the victim lays them out.
        rows: candidates in one pass.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[_Layer],
        rest: nn.Sequential,
        parameters: Mapping[str, Tensor],
        rows: int,
    ) -> None:
        self.model, self.layers, self.rest, self.parameters, self.rows = model, layers, rest, parameters, rows
        self._known: OrderedDict[int, list[Tensor]] = OrderedDict()
        self._bytes = 0

    @classmethod
    def of(cls, model: nn.Module, shape: torch.Size, rows: int) -> "PixelWindows | None":
        """Return the windows of a network for images (C, H, W); None where it is no such chain.

        Args:
            model: the network, in eval mode.
            shape: (C, H, W) of the images.
            rows: candidates in one pass.
        """
        chain = _chain(model)
        if chain is None or any(
            module._forward_hooks or module._forward_pre_hooks for module in model.modules()
        ):
            return None
        layers: list[_Layer] = []
        size, side = (shape[1], shape[2]), 1
        for module in chain:
            layer = _on_window(module, size, side)
            if layer is None:
                break
            layers.append(layer)
            size, side = (size[0] // layer.step, size[1] // layer.step), layer.side
        if not any(isinstance(layer.module, nn.Conv2d) for layer in layers):
            return None
        rest = nn.Sequential(*chain[len(layers) :])
        parameters = {
            name: p.detach().contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p.detach()
            for name, p in rest.named_parameters()
        }
        return cls(model, layers, rest, parameters, rows)

    @torch.inference_mode()
    def logits(
        self, images: Tensor, owners: Tensor, rows: Tensor, columns: Tensor, colours: Tensor
    ) -> Tensor:
        """Return the logits (n, K) of candidates.

        Args:
            images: (N, C, H, W), the unchanged images; the same in every call.
            owners: (n,) int64, the image of each candidate, equal ones side by side.
            rows: (n,) int64, where its pixel is.
            columns: (n,) int64.
            colours: (n, C), the pixel's new value.
        """
        pieces = []
        for start in range(0, len(owners), self.rows):
            part = slice(start, min(start + self.rows, len(owners)))
            given = [each[part] for each in (owners, rows, columns, colours)]
            short = self.rows - len(given[0])
            if short:  # passes of one shape, see Victim
                given = [torch.cat([each, each[-1:].expand(short, *each.shape[1:])]) for each in given]
            pieces.append(self._pass(images, *given)[: part.stop - part.start].clone())
        return torch.cat(pieces)

    def _pass(self, images: Tensor, owners: Tensor, rows: Tensor, columns: Tensor, colours: Tensor) -> Tensor:
        unique, which = owners.unique_consecutive(return_inverse=True)
        known = [self._maps(images, int(owner)) for owner in unique]
        maps = [torch.stack(each) for each in zip(*known, strict=True)]
        window = _normalised(self.model, colours[:, :, None, None]).permute(0, 2, 3, 1)
        top, left = rows, columns
        for layer, before in zip(self.layers, maps, strict=False):
            window, top, left = _advance(layer, window, top, left, before, which)
        whole = _pasted(maps[-1], which, window, top, left)
        logits: Tensor = functional_call(self.rest, dict(self.parameters), (whole.permute(0, 3, 1, 2),))
        return logits

    def _maps(self, images: Tensor, owner: int) -> list[Tensor]:
        """Return the inputs (H, W, C) of all layers on windows, and of the rest, for an unchanged image."""
        if owner in self._known:
            self._known.move_to_end(owner)
            return self._known[owner]
        values = _normalised(self.model, images[owner : owner + 1]).contiguous(
            memory_format=torch.channels_last
        )
        maps = [values[0].permute(1, 2, 0)]
        for layer in self.layers:
            values = layer.module(values)
            maps.append(values[0].permute(1, 2, 0))
        size = sum(each.numel() * each.element_size() for each in maps)
        while self._known and self._bytes + size > KEPT_BYTES:
            _, oldest = self._known.popitem(last=False)
            self._bytes -= sum(each.numel() * each.element_size() for each in oldest)
        self._known[owner] = maps
        self._bytes += size
        return maps


def _chain(model: nn.Module) -> list[nn.Module] | None:
    """Return the layers of a model that is a chain of them."""
    if type(model) is nn.Sequential:
        return list(model)
    if type(model) is Classifier:
        network = model.network
        layers = list(network) if type(network) is nn.Sequential else getattr(network, "chain", list)()
        return layers or None
    return None


def _normalised(model: nn.Module, values: Tensor) -> Tensor:
    return model.normalize(values) if isinstance(model, Classifier) else values


def _on_window(module: nn.Module, size: tuple[int, int], side: int) -> _Layer | None:
    """Return how a layer works on windows of a side; None where it does not, or they are most of the map."""
    if isinstance(module, (nn.ReLU, nn.Identity)):
        return _Layer(module, size, side, side, 1, 0)
    if isinstance(module, nn.Conv2d):
        kernel = module.kernel_size[0]
        plain = (
            module.kernel_size == (kernel, kernel)
            and kernel % 2 == 1
            and module.padding in ((kernel // 2, kernel // 2), "same")
            and module.padding_mode == "zeros"
            and (module.stride, module.dilation, module.groups) == ((1, 1), (1, 1), 1)
        )
        weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
        layer = _Layer(
            module, size, side + 2 * (kernel - 1), side + kernel - 1, 1, kernel // 2, weight, module.bias
        )
    elif isinstance(module, nn.MaxPool2d):
        step = module.kernel_size if isinstance(module.kernel_size, int) else module.kernel_size[0]
        plain = (
            module.kernel_size in (step, (step, step))
            and module.stride in (step, (step, step))
            and (module.padding, module.dilation) == (0, 1)
            and not module.ceil_mode
            and not module.return_indices
            and not any(length % step for length in size)
        )
        cells = (side + step - 2) // step + 1
        layer = _Layer(module, size, step * cells, cells, step, 0)
    else:
        return None
    return layer if plain and layer.cut <= MOST_OF_MAP * min(size) else None


def _advance(
    layer: _Layer, window: Tensor, top: Tensor, left: Tensor, before: Tensor, which: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the window (n, h, w, C) of a layer's output and its place, from those of its input.

    Cells of a window outside the map are zero, as a convolution sees them.
    """
    if layer.step == 1 and layer.weight is None:
        return layer.module(window), top, left
    if layer.weight is not None:
        # The output has `margin` cells more on each side, and each needs as many again of its surroundings.
        reach = 2 * layer.margin
        cut = _cut(before, which, top - reach, left - reach, layer.cut)
        cut[:, reach : reach + window.shape[1], reach : reach + window.shape[2]] = window
        result = functional.conv2d(cut.permute(0, 3, 1, 2), layer.weight, layer.bias)
        top, left = top - layer.margin, left - layer.margin
        return _inside(result.permute(0, 2, 3, 1), top, left, layer.map), top, left
    new_top, new_left = (
        top.div(layer.step, rounding_mode="floor"),
        left.div(layer.step, rounding_mode="floor"),
    )
    cut = _cut(before, which, layer.step * new_top, layer.step * new_left, layer.cut)
    across = _cells(top - layer.step * new_top, window.shape[1])
    along = _cells(left - layer.step * new_left, window.shape[2])
    cut[torch.arange(len(cut), device=cut.device)[:, None, None], across[:, :, None], along[:, None, :]] = (
        window
    )
    result = layer.module(cut.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    size = (layer.map[0] // layer.step, layer.map[1] // layer.step)
    return _inside(result, new_top, new_left, size), new_top, new_left


def _cut(maps: Tensor, which: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Cut squares (n, side, side, C) out of maps (m, H, W, C) that have zeros all around."""
    height, width = maps.shape[1:3]
    across, along = _cells(top, side), _cells(left, side)
    squares = maps[
        which[:, None, None], across.clamp(0, height - 1)[:, :, None], along.clamp(0, width - 1)[:, None, :]
    ]
    return _inside(squares, top, left, (height, width))


def _inside(windows: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Return windows (n, h, w, C) with zeros where they reach beyond a map of a size."""
    across, along = _cells(top, windows.shape[1]), _cells(left, windows.shape[2])
    return windows.masked_fill(~_within(across, along, size)[..., None], 0.0)


def _pasted(maps: Tensor, which: Tensor, windows: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Return the maps (n, H, W, C) that windows belong to, with the windows in them."""
    whole = maps[which]
    across, along = _cells(top, windows.shape[1]), _cells(left, windows.shape[2])
    row, i, j = _within(across, along, (maps.shape[1], maps.shape[2])).nonzero(as_tuple=True)
    whole[row, across[row, i], along[row, j]] = windows[row, i, j]
    return whole


def _cells(first: Tensor, count: int) -> Tensor:
    """Return the rows or columns (n, count) of windows, from their first ones."""
    return first[:, None] + torch.arange(count, device=first.device)


def _within(across: Tensor, along: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which cells (n, h, w) of windows lie on a map of a size."""
    rows, columns = (across >= 0) & (across < size[0]), (along >= 0) & (along < size[1])
    return rows[:, :, None] & columns[:, None, :]
