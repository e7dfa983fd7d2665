"""How many images a batch may hold."""

import torch
from torch import Tensor

PIXELS = 16 * 128**2
"""Pixels of a batch, at most: a network's gradient at all layers keeps some kilobytes for each of them."""
OFF_CPU = 16
"""How many times as much a batch may hold on another device than a processor, which needs large batches to be fast."""


def even_batch(images: Tensor, most: int = 32, device: str | torch.device = "cpu") -> int:
    """Return how many images to put into a batch, so that all batches are about equally large.

    What a batch needs grows with its pixels, so large images go in smaller batches and the memory of a run depends
    neither on their number nor much on their size. Small images go ``most`` at a time, since small batches are slow on
    a processor.

    Args:
        images: (N, C, H, W), N ≥ 0.
        most: images in a batch at most, on a processor; at least 1.
        device: where the network is that sees them, such as ``cpu`` or ``cuda:0``; off a processor a batch may hold
            :data:`OFF_CPU` times as many images and pixels.

    Returns:
        At least 1: ``most``, or as many as have :data:`PIXELS` pixels where these are fewer, or fewer yet, so that the
        last batch is not much smaller than the others.
    """
    room = 1 if torch.device(device).type == "cpu" else OFF_CPU
    fitting = max(1, min(room * most, room * PIXELS // (images.shape[-2] * images.shape[-1])))
    batches = max(1, -(-len(images) // fitting))
    return max(1, -(-len(images) // batches))
