"""Random changes to training images, batch by batch in torch, drawn from a generator of their own.

- ``flip``: mirrored left-right with probability 1/2.
- ``shift``: moved by up to an eighth of the side in each direction (pad-and-crop; the border is repeated
  outwards).
- ``noise``: Gaussian noise added, of a standard deviation drawn for each image between 0 and 0.1; cut to
  [0, 1] (as Rusak et al. 2020 do at one strength or more, so that a network does not lose its answer to a
  little noise).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

SHIFT = 1 / 8
NOISE = 0.1


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image (N, C, H, W) left-right with probability 1/2."""
    mirrored = torch.rand(len(images), generator=generator).lt(0.5).to(images.device)
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image (N, C, H, W) by up to an eighth of its side, in whole pixels, repeating its border."""
    count, _, height, width = images.shape
    down, right = round(height * SHIFT), round(width * SHIFT)
    padded = functional.pad(images, (right, right, down, down), mode="replicate")
    rows = torch.randint(0, 2 * down + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * right + 1, (count, 1), generator=generator) + torch.arange(width)
    which = torch.arange(count).view(-1, 1, 1)
    picked = padded.permute(0, 2, 3, 1)[which, rows.unsqueeze(2), columns.unsqueeze(1)]
    return picked.permute(0, 3, 1, 2)


def noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise to each image (N, C, H, W), its standard deviation uniform in [0, 0.1]; cut to [0, 1]."""
    deviations = NOISE * torch.rand(len(images), 1, 1, 1, generator=generator)
    added = deviations * torch.randn(images.shape, generator=generator)
    return (images + added.to(images)).clamp(0, 1)


AUGMENTATIONS: dict[str, tuple[Callable[[Tensor, torch.Generator], Tensor], ...]] = {
    "none": (),
    "flip": (flip,),
    "shift": (shift,),
    "flip-shift": (flip, shift),
    "noise": (noise,),
    "flip-noise": (flip, noise),
    "flip-shift-noise": (flip, shift, noise),
}


def augment(images: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """Apply the augmentation ``name`` to images (N, C, H, W); a new tensor unless it is ``"none"``."""
    for step in AUGMENTATIONS[name]:
        images = step(images, generator)
    return images
