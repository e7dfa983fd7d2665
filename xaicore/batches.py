"""How many images a batch may hold."""

from torch import Tensor

PIXELS = 16 * 128**2
"""Pixels of a batch, at most: a network's gradient at all layers keeps some kilobytes for each of them."""


def even_batch(images: Tensor, most: int = 32) -> int:
    """Return how many images to put into a batch, so that all batches are about equally large.

    What a batch needs grows with its pixels, so large images go in smaller batches and the memory of a run depends
    neither on their number nor much on their size. Small images go ``most`` at a time, since small batches are slow on
    a processor.

    Args:
        images: (N, C, H, W), N ≥ 0.
        most: images in a batch at most; at least 1.

    Returns:
        At least 1: ``most``, or as many as have :data:`PIXELS` pixels where these are fewer, or fewer yet, so that the
        last batch is not much smaller than the others.
    """
    fitting = max(1, min(most, PIXELS // (images.shape[-2] * images.shape[-1])))
    batches = max(1, -(-len(images) // fitting))
    return max(1, -(-len(images) // batches))
