"""Bars pasted into images: whether an answer and its relevance follow something that is not the object.

Klawikowska et al. (2020, Fig. 2) see a network look at the bars of a cage and say that bars suggest "dog" to it. Bars
pasted into other images put that to the test, beside a patch as large and as dark in a corner.
"""

import torch
from torch import Tensor

GREY = 0.2
"""Of bars and patch, in [0, 1]."""
BARS = 4
"""Bars, each a sixteenth of the image wide: together a quarter of it."""


def shapes(size: int) -> dict[str, Tensor]:
    """Return where ``bars`` and ``patch`` lie in an image of ``size`` pixels, at least 16: (size, size) bool each.

    The bars are upright and evenly spaced; the patch in the upper left corner is a square of their area or just below.
    """
    bars, patch = torch.zeros(size, size, dtype=torch.bool), torch.zeros(size, size, dtype=torch.bool)
    width = size // 16
    for bar in range(BARS):
        start = (2 * bar + 1) * size // (2 * BARS) - width // 2
        bars[:, start : start + width] = True
    side = int(bars.sum()) ** 0.5
    patch[: int(side), : int(side)] = True
    return {"bars": bars, "patch": patch}


def pasted(images: Tensor, where: Tensor) -> Tensor:
    """Return the images (N, C, H, W) in [0, 1] with :data:`GREY` where ``where`` (H, W) says so."""
    return torch.where(where.to(images.device), GREY, images)
