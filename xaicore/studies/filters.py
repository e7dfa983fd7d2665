"""Plain filters in front of a network, beside which a defence has to show what it adds.

None of them explains anything: rounding and the median are feature squeezing's (:mod:`xaicore.detectors`), JPEG is what
any photograph goes through, noise drowns a perturbation in a larger one.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from typing_extensions import override

from xaicore.core import checks, randomness
from xaicore.detectors.feature_squeezing import squeezed

FILTERS = ("rounding", "jpeg", "noise", "median")


class Filter(nn.Module):
    """A filter of images, (N, C, H, W) in [0, 1] to the same; on the way back it counts as if it did nothing.

    That is the straight-through gradient of BPDA (Athalye, Carlini and Wagner 2018, Sec. 4.1), as none of the filters
    has one that helps. Stands in front of a network in :class:`xaicore.defenses.Reformed`.

    Args:
        kind: ``"rounding"`` to ``strength`` bits a value; ``"jpeg"``, compressed by Pillow at the quality ``strength``;
            ``"noise"``, Gaussian of the standard deviation ``strength``, drawn once, the same for all images; or
            ``"median"`` of ``strength`` x ``strength`` pixels.
        strength: see ``kind``; whole but for noise, above 0.
        seed: of the noise.
    """

    def __init__(self, kind: str, strength: float, *, seed: int = 0) -> None:
        super().__init__()
        self.kind = checks.one_of("kind", kind, FILTERS)
        self.strength = checks.positive("strength", strength)
        self.seed = checks.integer("seed", seed, least=0)

    @override
    def extra_repr(self) -> str:
        return f"{self.kind}, {self.strength:g}, seed={self.seed}"

    def filtered(self, images: Tensor) -> Tensor:
        """Return the filtered images, without a gradient."""
        images = images.detach()
        if self.kind == "noise":
            one = torch.zeros(1, dtype=torch.int64, device=images.device)
            drawn = randomness.normal(self.seed, one, one, tuple(images.shape[1:]))
            return (images + self.strength * drawn).clamp(0, 1)
        whole = checks.integer("strength", int(self.strength), least=1)
        if self.kind == "jpeg":
            return torch.stack([_compressed(image, whole) for image in images]).to(images)
        return squeezed(images, f"bit_depth_{whole}" if self.kind == "rounding" else f"median_{whole}")

    def forward(self, images: Tensor) -> Tensor:
        """Return the filtered images; the gradient is that of the images as they are."""
        if not len(images):
            return images
        return images + (self.filtered(images) - images).detach()


def _compressed(image: Tensor, quality: int) -> Tensor:
    """Return an image (C, H, W) as JPEG leaves it, C 1 or 3."""
    pixels = (image.cpu() * 255).round().to(torch.uint8).movedim(0, 2).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file), dtype=np.float32) / 255
    return torch.from_numpy(decoded.reshape(pixels.shape)).movedim(2, 0)
