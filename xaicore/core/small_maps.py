"""Convolutions of small maps as one matrix product, for networks on small images with a processor.

Where a map has a few cells only, as in the late layers of a network on images of 48 pixels, the convolutions of a
processor's library (oneDNN) reach a part of its speed; a matrix product of all windows with the kernel is up to three
times as fast. The result is the same but for rounding.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

CELLS = 16
"""Most cells of an output map that are computed so."""
CHANNELS = 64
"""Fewest input channels of a kernel larger than 1 x 1; with fewer, gathering the windows costs more than it saves."""


class SmallMaps(TorchFunctionMode):
    """While active: every ungrouped 2-D convolution with a small output is a matrix product; all others are as ever."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Take over convolutions where that is faster."""
        if func is torch.conv2d:
            found = _as_product(*args, **(kwargs or {}))
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))


def _as_product(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """Return what ``torch.conv2d`` returns, up to rounding; None where it should do it itself."""
    if groups != 1 or isinstance(padding, str) or input.ndim != 4 or _pair(dilation) != (1, 1):
        return None
    (down, right), (above, beside) = _pair(stride), _pair(padding)
    kernel = weight.shape[2], weight.shape[3]
    height = (input.shape[2] + 2 * above - kernel[0]) // down + 1
    width = (input.shape[3] + 2 * beside - kernel[1]) // right + 1
    if not 0 < height * width <= CELLS or (kernel != (1, 1) and weight.shape[1] < CHANNELS):
        return None
    if kernel == (1, 1) and (above, beside) == (0, 0):
        cells = input[:, :, ::down, ::right].permute(0, 2, 3, 1)
        return functional.linear(cells, weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    padded = functional.pad(input, (beside, beside, above, above)).permute(0, 2, 3, 1)
    windows: Tensor = _Windows.apply(padded, kernel, (down, right), (height, width))  # type: ignore[no-untyped-call]
    product = functional.linear(windows, weight.permute(0, 2, 3, 1).flatten(1), bias)
    return product.permute(0, 3, 1, 2)


class _Windows(torch.autograd.Function):
    """All windows of images with channels last: (N, H, W, C) to (N, height, width, kernel cells * C).

    Its gradient adds one shifted map for each cell of the kernel, five times as fast as that of ``Tensor.unfold``.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, kernel: tuple[int, int], stride: tuple[int, int], cells: tuple[int, int]
    ) -> Tensor:
        ctx.shape = images.shape
        ctx.places = [  # where each cell of the kernel lies on the image, for all windows at once
            tuple(slice(o, o + s * n, s) for o, s, n in zip(offsets, stride, cells, strict=True))
            for offsets in itertools.product(range(kernel[0]), range(kernel[1]))
        ]
        return torch.cat([images[:, rows, columns] for rows, columns in ctx.places], 3)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        whole = gradients[0].new_zeros(ctx.shape)
        for (rows, columns), part in zip(ctx.places, gradients[0].split(ctx.shape[3], 3), strict=True):
            whole[:, rows, columns] += part
        return whole, None, None, None


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
