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
    """Return how many images fit into a batch: as many as have ``pixels`` pixels, within bounds.

    What a batch needs grows with its pixels, so large images go in smaller batches and the memory of a run depends
    neither on their number nor much on their size. Small images go ``most`` at a time, since small batches are slow on
    a processor.

    Args:
        size: (…, H, W) of an image.
        device: where the network is that sees them, such as ``cpu`` or ``cuda:0``; off a processor all three numbers
            count :data:`OFF_CPU` times.
        pixels: of a batch, at most.
        least: images, however large.
        most: images, however small.

    Returns:
        At least 1.
    """
    room = 1 if torch.device(device).type == "cpu" else OFF_CPU
    fitting = room * pixels // (size[-2] * size[-1])
    return max(1, room * least, min(room * most, fitting))


def even_batch(images: Tensor, most: int = 32, device: str | torch.device = "cpu") -> int:
    """Return how many images to put into a batch, so that all batches are about equally large.

    Args:
        images: (N, C, H, W), N ≥ 0.
        most: as in :func:`fitting_rows`.
        device: likewise.

    Returns:
        What fits, or fewer, so that the last batch is not much smaller than the others; at least 1.
    """
    fitting = fitting_rows(images.shape, device, most=most)
    batches = max(1, -(-len(images) // fitting))
    return max(1, -(-len(images) // batches))


def fixed_batch(size: Sequence[int], device: str | torch.device = "cpu") -> int:
    """Return the rows of passes of one fixed shape: a power of two, on a processor 32 for digits, 4 at 224 pixels.

    Args:
        size: (…, H, W) of an image.
        device: as in :func:`fitting_rows`.
    """
    fitting = fitting_rows(size, device, pixels=FIXED_PIXELS, least=4)
    return 2 ** (fitting.bit_length() - 1)
