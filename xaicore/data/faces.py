"""Finding and cropping faces, the preprocessing of Chakraborty et al. 2022 (Sec. 4.1).

The detector is the cascade of local binary patterns that comes with scikit-image (Viola and Jones 2001; Ahonen et al.
2006). It finds upright, frontal faces. It gives a box and no eyes, so position and size of the faces are made alike, but
they are not rotated.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xaicore.core.errors import UserError
from xaicore.data.imageset import ImageSet
from xaicore.data.sources import tensor_of

WORKING_SIDE = 96
"""Shorter side, in pixels, of the copy of an image in which faces are looked for."""
MARGIN = 12
"""Pixels by which that copy is continued at its edges, so that faces that fill an image are found."""
SMALLEST = 40
"""Side of the smallest face looked for in it."""


class Box(NamedTuple):
    """A square in an image, in pixels from its upper left corner; it may reach over the edge."""

    top: float
    left: float
    side: float


class Cropped(NamedTuple):
    """Images cropped to their faces.

    Attributes:
        images: (N, C, size, size) float32 in [0, 1].
        found: (N,) bool, whether a face was found; where not, the image is its central square.
    """

    images: Tensor
    found: Tensor


def crop_faces(images: ImageSet, size: int) -> Cropped:
    """Crop every image to its largest face, scaled to ``size`` pixels.

    What a box takes from beyond the edge repeats the pixels of the edge. Images without a detected face keep their
    central square, so that both ways of preparing a set have the same images.

    Args:
        images: loaded without a ``size``, so that faces are cut from the pixels there are.
        size: side of the result in pixels.

    Raises:
        UserError: a file cannot be decoded, or ``size`` is below 1.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(f"size must be a whole number of at least 1, got {size!r}")
    pixels, found = [], []
    for index in range(len(images)):
        image, _ = images[index]
        box = find_face(image)
        found.append(box is not None)
        if box is None:
            height, width = image.shape[-2:]
            side = min(height, width)
            box = Box((height - side) / 2, (width - side) / 2, side)
        pixels.append(_cut(image, box, size))
    return Cropped(torch.stack(pixels), torch.tensor(found))


def find_face(image: Tensor) -> Box | None:
    """Return the largest upright frontal face of an image, None where there is none.

    Faces are looked for that fill at least 42 % of the shorter side, as in portraits.

    Args:
        image: (C, H, W) in [0, 1], grey or RGB.
    """
    grey = _picture(image).convert("L")
    scale = WORKING_SIDE / min(grey.size)
    small = grey.resize((round(grey.width * scale), round(grey.height * scale)), Image.Resampling.BILINEAR)
    pixels = np.pad(np.asarray(small, dtype=np.float64) / 255, MARGIN, mode="edge")
    sizes = {"min_size": (SMALLEST, SMALLEST), "max_size": (min(pixels.shape), min(pixels.shape))}
    boxes = _detector().detect_multi_scale(pixels, scale_factor=1.1, step_ratio=1, **sizes)
    if not boxes:
        return None
    largest = max(boxes, key=lambda box: (box["width"], -box["r"], -box["c"]))
    return Box((largest["r"] - MARGIN) / scale, (largest["c"] - MARGIN) / scale, largest["width"] / scale)


@cache
def _detector() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


def _cut(image: Tensor, box: Box, size: int) -> Tensor:
    height, width = image.shape[-2:]
    beyond = max(0, -box.top, -box.left, box.top + box.side - height, box.left + box.side - width)
    margin = int(np.ceil(beyond))
    array = np.asarray(_picture(image))
    padded = np.pad(array, [(margin, margin), (margin, margin)] + [(0, 0)] * (array.ndim - 2), mode="edge")
    left, top = box.left + margin, box.top + margin
    area = (left, top, left + box.side, top + box.side)
    return tensor_of(Image.fromarray(padded).resize((size, size), Image.Resampling.BILINEAR, box=area))


def _picture(image: Tensor) -> Image.Image:
    array = (image * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))
