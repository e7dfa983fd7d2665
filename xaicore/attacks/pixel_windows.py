"""Logits of images that differ from a known one in a single pixel, computed where the pixel reaches only.

A pixel reaches 3 x 3 cells of the first convolution's map, 5 x 5 of the second's, and so on: in the early and largest
maps of a network nearly all cells are those of the unchanged image. They are computed once an image; for a candidate
only the window around its pixel is, with the cells around it taken from the unchanged image. From the layer where the
window is most of the map, the whole map is computed. The logits are those of the whole network but for rounding.

It holds for networks that are a chain of layers (:class:`torch.nn.Sequential`, or a
:class:`~xaicore.models.Classifier` whose network has ``chain()``) and as long as these are convolutions of stride 1 that
keep the size, ReLUs and max-pools without overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

MOST_OF_MAP = 0.75
"""A window of this share of the map's side, or more, is no longer worth its cutting out."""
KEPT_BYTES = 256 * 2**20
"""Most memory for the maps of unchanged images."""


class _Layer(NamedTuple):
    """What a layer does to a window."""

    module: nn.Module
    map: tuple[int, int]  # (H, W) of its input
    cut: int  # side of the window that it needs of its input
    side: int  # side of the window of its output
    step: int = 1  # cells of its input per cell of its output
    margin: int = 0  # cells by which its output's window reaches further up and left than its input's
    weight: Tensor | None = None  # of a convolution, channels last
    bias: Tensor | None = None  # of a convolution that has one


@dataclass(frozen=True)
class PixelWindows:
    """The candidates of a one-pixel attack on one network."""

    model: nn.Module  # in eval mode
    layers: Sequence[_Layer]  # that work on windows
    rest: nn.Sequential  # from the first whole map on
    parameters: dict[str, Tensor]  # of ``rest``, as the victim lays them out
    rows: int  # candidates in one pass
    known: dict[int, list[Tensor]] = field(default_factory=dict)  # maps of unchanged images

    @classmethod
    def of(cls, model: nn.Module, shape: torch.Size, rows: int) -> "PixelWindows | None":
        """Return the windows of a network for images (C, H, W); None where it is no such chain.

        Args:
            model: the network, in eval mode.
            shape: (C, H, W) of the images.
            rows: candidates in one pass.
        """
        chain = _chain(model)
        if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            return None
        layers: list[_Layer] = []
        size, side = (shape[1], shape[2]), 1
        for module in chain:
            layer = _on_window(module, size, side)
            if layer is None:
                break
            layers.append(layer)
            size, side = (size[0] // layer.step, size[1] // layer.step), layer.side
        if not any(layer.weight is not None for layer in layers):
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
        for given in zip(*(each.split(self.rows) for each in (owners, rows, columns, colours)), strict=True):
            count = len(given[0])
            short = self.rows - count  # passes of one shape, see Victim
            filled = [torch.cat([each, each[-1:].expand(short, *each.shape[1:])]) for each in given]
            pieces.append(self._pass(images, *filled)[:count].clone())
        return torch.cat(pieces)

    def _pass(self, images: Tensor, owners: Tensor, rows: Tensor, columns: Tensor, colours: Tensor) -> Tensor:
        unique, which = owners.unique_consecutive(return_inverse=True)
        known = [self._maps(images, int(owner)) for owner in unique]
        maps = [torch.stack(each) for each in zip(*known, strict=True)]
        window = _normalised(self.model, colours[:, :, None, None]).permute(0, 2, 3, 1)
        top, left = rows, columns
        for layer, before in zip(self.layers, maps, strict=False):
            window, top, left = _advance(layer, window, top, left, before, which)
        whole = maps[-1][which]
        across, along = _cells(top, window.shape[1]), _cells(left, window.shape[2])
        row, i, j = _within(across, along, whole.shape[1:3]).nonzero(as_tuple=True)
        whole[row, across[row, i], along[row, j]] = window[row, i, j]
        logits: Tensor = functional_call(self.rest, self.parameters, (whole.permute(0, 3, 1, 2),))
        return logits

    def _maps(self, images: Tensor, owner: int) -> list[Tensor]:
        """Return the inputs (H, W, C) of all layers on windows, and of the rest, for an unchanged image."""
        if owner not in self.known:
            values = _normalised(self.model, images[owner : owner + 1])
            values = values.contiguous(memory_format=torch.channels_last)
            maps = [values[0].permute(1, 2, 0)]
            for layer in self.layers:
                values = layer.module(values)
                maps.append(values[0].permute(1, 2, 0))
            size = sum(each.numel() * each.element_size() for each in maps)
            while self.known and (len(self.known) + 1) * size > KEPT_BYTES:
                del self.known[next(iter(self.known))]
            self.known[owner] = maps
        return self.known[owner]


def _chain(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a model that is a chain of them; none of another."""
    # With the models comes torchvision, which takes longest of all to import: not before its time.
    from xaicore.models import Classifier

    network = model.network if type(model) is Classifier else model
    if type(network) is nn.Sequential:
        return list(network)
    return list(getattr(network, "chain", list)()) if type(model) is Classifier else []


def _normalised(model: nn.Module, values: Tensor) -> Tensor:
    from xaicore.models import Classifier

    return model.normalize(values) if isinstance(model, Classifier) else values


def _on_window(module: nn.Module, size: tuple[int, int], side: int) -> _Layer | None:
    """Return how a layer works on windows of a side; None where it does not, or they are most of the map.

    A subclass may do anything, so its windows are not known.
    """
    if type(module) in (nn.ReLU, nn.Identity):
        return _Layer(module, size, side, side)
    if type(module) is nn.Conv2d:
        kernel = module.kernel_size[0]
        plain = (
            module.kernel_size == (kernel, kernel)
            and kernel % 2 == 1
            and module.padding in ((kernel // 2, kernel // 2), "same")
            and module.padding_mode == "zeros"
            and (module.stride, module.dilation, module.groups) == ((1, 1), (1, 1), 1)
        )
        weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
        reach = kernel - 1
        layer = _Layer(module, size, side + 2 * reach, side + reach, 1, kernel // 2, weight, module.bias)
    elif type(module) is nn.MaxPool2d:
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
        layer = _Layer(module, size, step * cells, cells, step)
    else:
        return None
    return layer if plain and layer.cut <= MOST_OF_MAP * min(size) else None


def _advance(
    layer: _Layer, window: Tensor, top: Tensor, left: Tensor, before: Tensor, which: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the window (n, h, w, C) of a layer's output and its place, from those of its input.

    The window is set into a square that is cut from the maps ``before`` (m, H, W, C), around the cells that it reaches.
    Cells outside the map are zero, as a convolution sees them.
    """
    if isinstance(layer.module, (nn.ReLU, nn.Identity)):
        return layer.module(window), top, left
    step, margin, (height, width) = layer.step, layer.margin, layer.map
    new_top, new_left = ((first - margin).div(step, rounding_mode="floor") for first in (top, left))
    cut_top, cut_left = step * new_top - margin, step * new_left - margin
    across, along = _cells(cut_top, layer.cut), _cells(cut_left, layer.cut)
    down, right = across.clamp(0, height - 1)[:, :, None], along.clamp(0, width - 1)[:, None, :]
    cut = _inside(before[which[:, None, None], down, right], across, along, layer.map)
    down, right = _cells(top - cut_top, window.shape[1]), _cells(left - cut_left, window.shape[2])
    everyone = torch.arange(len(cut), device=cut.device)
    cut[everyone[:, None, None], down[:, :, None], right[:, None, :]] = window
    cut = cut.permute(0, 3, 1, 2)
    if layer.weight is None:
        result = layer.module(cut)
    else:
        result = functional.conv2d(cut, layer.weight, layer.bias)
    across, along = _cells(new_top, layer.side), _cells(new_left, layer.side)
    return (
        _inside(result.permute(0, 2, 3, 1), across, along, (height // step, width // step)),
        new_top,
        new_left,
    )


def _cells(first: Tensor, count: int) -> Tensor:
    """Return the rows or columns (n, count) of windows, from their first ones."""
    return first[:, None] + torch.arange(count, device=first.device)


def _within(across: Tensor, along: Tensor, size: Sequence[int]) -> Tensor:
    """Return which cells (n, h, w) of windows lie on a map of a size."""
    rows, columns = (across >= 0) & (across < size[0]), (along >= 0) & (along < size[1])
    return rows[:, :, None] & columns[:, None, :]


def _inside(windows: Tensor, across: Tensor, along: Tensor, size: Sequence[int]) -> Tensor:
    """Return windows (n, h, w, C) with zeros where they reach beyond a map of a size."""
    return windows.masked_fill(~_within(across, along, size)[..., None], 0.0)
