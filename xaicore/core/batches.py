"""How many images a batch may hold: one rule, for batches of any number of images and for passes of a fixed shape."""

from collections.abc import Sequence

import torch
from torch import Tensor

PIXELS = 2**18
"""Pixels of a batch on a processor, at most: a network's gradient at all layers keeps some kilobytes for each."""
FIXED_PIXELS = 2**16
"""The same for a pass of a fixed shape, which costs as much when it is not full: larger ones are no faster."""
OFF_CPU = 16
"""How many times as much a batch may hold on another device than a processor, which needs large batches to be fast."""


def fitting_rows(
    size: Sequence[int],
    device: str | torch.device = "cpu",
    *,
    pixels: int = PIXELS,
    least: int = 0,
    most: int = 32,
) -> int:
    """Return how many images (…, H, W) fit into a batch of ``pixels`` pixels: ``least`` to ``most``, at least 1.

    What a batch needs grows with its pixels, so large images go in smaller batches and the memory of a run depends
    neither on their number nor much on their size. Small images go ``most`` at a time, since small batches are slow on
    a processor. On another ``device`` of the network, such as ``cuda:0``, all three numbers count :data:`OFF_CPU` times.
    """
    room = 1 if torch.device(device).type == "cpu" else OFF_CPU
    fitting = room * pixels // (size[-2] * size[-1])
    return max(1, room * least, min(room * most, fitting))


def even_batch(images: Tensor, most: int = 32, device: str | torch.device = "cpu") -> int:
    """Return how many of the images (N, C, H, W), N ≥ 0, to put into a batch: as many as fit, by :func:`fitting_rows`,
    or fewer, so that the last batch is not much smaller than the others; at least 1.
    """
    fitting = fitting_rows(images.shape, device, most=most)
    batches = max(1, -(-len(images) // fitting))
    return max(1, -(-len(images) // batches))


def fixed_batch(size: Sequence[int], device: str | torch.device = "cpu") -> int:
    """Return the rows of passes of one fixed shape, of images of the size (…, H, W): a power of two, on a processor 32
    for digits, 4 at 224 pixels.
    """
    fitting = fitting_rows(size, device, pixels=FIXED_PIXELS, least=4)
    return 2 ** (fitting.bit_length() - 1)
