"""Where the pixels of an image set come from, and how one image becomes a tensor.

A source knows its images by number: ``tensor(i, geometry)`` decodes one, ``digest(i)`` names its content.
Files are only opened when they are asked for, so a set of 50,000 photographs costs no memory.

Conversions: every image becomes 8-bit grey or RGB.

- 16-bit grey is divided by 65535 and rounded to the nearest of 256 levels; of 16-bit colour Pillow gives the upper byte.
  Grey of other depths and floating-point values are refused, since nothing says which value is white.
  A TIFF of 16 bits whose 0 is white is refused, since Pillow does not turn it, as it does one of 8.
- What is transparent (also by a palette, or a transparent colour) is laid on white. 16-bit grey with a transparent
  level is refused.
- 1-bit pictures become 0 and 1; palettes their colours; CMYK is converted without a colour profile.
- A picture is turned as its EXIF orientation says. Of an animation or of several pages the first is taken.

Sizes: an image is scaled until it just covers the wanted size and what sticks out is cropped evenly (aspect
ratio kept), in one antialiased bilinear step on 8-bit pixels, so that every image lies on the 8-bit grid, as
a file on disk would.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from xaicore.core.errors import UnreadableFiles
from xaicore.core.fingerprint import digest


@dataclass(frozen=True)
class Geometry:
    """The shape that images are brought to.

    Attributes:
        size: (height, width), or None to leave images as they are.
        channels: 1 (luma of ITU-R 601) or 3; None leaves images as they are.
        pad_to: a size to which smaller images are padded with zeros instead of scaled, symmetrically and
            without loss.
        crop: the central share of each side that is used; 0.875 is the usual "resize 256, centre crop 224" of
            ImageNet.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    pad_to: int | None = None
    crop: float = 1.0

    def apply(self, image: Image.Image) -> Tensor:
        """Return the image as float32 (C, H, W) in [0, 1]."""
        grey = self.channels == 1 if self.channels is not None else image.mode in ("1", "L", "LA")
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        image = image.convert("L" if grey else "RGB")
        if self.size is not None and ((image.height, image.width) != self.size or self.crop < 1):
            height, width = self.size
            if height == width == self.pad_to:
                left, top = -((width - image.width) // 2), -((height - image.height) // 2)
                image = image.crop((left, top, left + width, top + height))
            else:
                bleed = (1 - self.crop) / 2
                image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR, bleed)
        return tensor_of(image)


def tensor_of(image: Image.Image) -> Tensor:
    """Return an 8-bit picture, grey or RGB, as float32 (C, H, W) in [0, 1]."""
    pixels = np.atleast_3d(np.array(image, dtype=np.uint8)).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(torch.float32).div_(255)


class FileSource:
    """Images in files, opened when asked for; messages name them relative to the folder ``base``."""

    def __init__(self, paths: list[Path], base: Path) -> None:
        self.paths = paths
        self.base = base

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, index: int) -> str:
        """Return the file's path relative to the base folder; characters that cannot be printed become ``?``."""
        path = self.paths[index].relative_to(self.base).as_posix()
        return "".join(character if character.isprintable() else "?" for character in path)

    def tensor(self, index: int, geometry: Geometry) -> Tensor:
        """Decode image ``index`` as the head of this module says, then bring it to ``geometry``.

        Raises:
            UnreadableFiles: the file is missing, corrupt, not an image, or of a kind that is refused.
        """
        name = self.label(index)
        try:
            with Image.open(self.paths[index]) as file:
                deep = file.mode.startswith(("I", "F"))
                if not deep or _is_sixteen_bit_grey(file):
                    turned = ImageOps.exif_transpose(file)
                    if deep:
                        levels = np.rint(np.asarray(turned).astype(np.float64) / 257)
                        turned = Image.fromarray(levels.astype(np.uint8))
                    return geometry.apply(turned)
            problem = f"{name} is neither an 8-bit nor a plain 16-bit image; save it as an 8-bit image"
        except FileNotFoundError:
            problem = f"{name} has gone; restore the file and run again"
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).split("\n")[0]
            reason = "not an image format" if "cannot identify" in reason else reason
            problem = f"{name} is corrupt or no image ({reason}); replace or remove the file"
        raise UnreadableFiles({name: problem})

    def digest(self, index: int) -> str:
        """Return the sha256 of the file's bytes."""
        try:
            with self.paths[index].open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            name = self.label(index)
            raise UnreadableFiles({name: f"{name} cannot be read ({error.strerror})"}) from None


class MemorySource:
    """Images in memory: float32 (N, C, H, W) in [0, 1], given out as they are; or uint8 (N, H, W) or (N, H, W, 3)."""

    def __init__(self, images: Tensor | NDArray[np.uint8]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def label(self, index: int) -> str:
        """Return what an error message should call image ``index``."""
        return f"image {index}"

    def tensor(self, index: int, geometry: Geometry) -> Tensor:
        """Return image ``index`` as float32 (C, H, W) in [0, 1], one of 8 bits brought to ``geometry``."""
        image = self.images[index]
        return image if isinstance(image, Tensor) else geometry.apply(Image.fromarray(image))

    def digest(self, index: int) -> str:
        """Return the sha256 of the values of image ``index``."""
        return digest(self.images[index])


Source = FileSource | MemorySource
"""Images by number."""


def _is_sixteen_bit_grey(file: Image.Image) -> bool:
    """Whether a file of more than 8 bits holds grey levels from 0 to 65535, none of them transparent."""
    sixteen = file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM"))
    tags = getattr(file, "tag_v2", {})
    bits = tags.get(258, (16,))  # a TIFF of 12 bits is opened as one of 16
    black_is_zero = tags.get(262, 1) == 1
    return sixteen and tuple(bits) == (16,) and black_is_zero and "transparency" not in file.info
