"""Sheets of small pictures, for pages that show one of many: each tile as it is, pixel by pixel, in one file.

Maps have the colours of the figures, in steps of 1/31; pictures are rounded to 8 bits and stored without loss.
"""

import io
import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xaicore.figures.style import RELEVANCE_MAP, Images, array_of, picture, relevance, scale_of

DIFFERENCE_MAP = "PuOr_r"
STEPS = 31
"""Colours on either side of zero."""

Tile = NDArray[np.uint8]


def share_of_scale(heatmap: Images) -> NDArray[np.float64]:
    """Return a map (C, H, W) or (H, W), channels summed, divided by its ``scale_of``, in [-1, 1]."""
    values = relevance(heatmap).astype(np.float64)
    return np.clip(values / scale_of(values), -1, 1)


def map_tile(shares: NDArray[np.float64]) -> Tile:
    """Return the tile (H, W) of a map in [-1, 1], see :func:`share_of_scale`: blue, white at 0, red."""
    return (np.rint(np.clip(shares, -1, 1) * STEPS) + STEPS).astype(np.uint8)


def difference_tile(before: NDArray[np.float64], after: NDArray[np.float64]) -> Tile:
    """Return the tile of ``after - before``, both in [-1, 1], which ends at ±1: purple, white at 0, orange."""
    return map_tile(after - before) + np.uint8(2 * STEPS + 1)


def picture_tile(image: Images) -> Tile:
    """Return the tile (H, W) or (H, W, 3) of an image (C, H, W) in [0, 1], rounded to 8 bits."""
    rounded: Tile = np.rint(np.clip(picture(image).astype(np.float64), 0, 1) * 255).astype(np.uint8)
    return rounded


def perturbation_tile(change: Images) -> tuple[Tile, float]:
    """Return the tile of a perturbation (C, H, W) around middle grey, and by which factor it is amplified.

    The largest change is black or white (or the brightest or darkest a colour gets); the factor of no change is 0.
    """
    values = array_of(change).astype(np.float64)
    largest = float(np.abs(values).max())
    factor = 0.5 / largest if largest else 0.0
    return picture_tile(0.5 + factor * values), factor


def columns(count: int) -> int:
    """Return the columns of a sheet with ``count`` tiles, which are laid row by row."""
    return max(1, math.ceil(math.sqrt(count)))


def map_sheet(tiles: Sequence[Tile]) -> bytes:
    """Return a PNG of tiles from :func:`map_tile` and :func:`difference_tile`, all of one size, row by row."""
    image = Image.fromarray(_sheet(tiles)).convert("L")
    image.putpalette(_palette())
    return encoded(image, "PNG", optimize=True)


def picture_sheet(tiles: Sequence[Tile]) -> bytes:
    """Return a sheet of picture tiles, all of one size, row by row: a PNG of grey ones, a lossless WebP of colours."""
    image = Image.fromarray(_sheet(tiles))
    if image.mode == "L":
        return encoded(image, "PNG", optimize=True)
    return encoded(image, "WEBP", lossless=True, quality=60, method=4)


def _sheet(tiles: Sequence[Tile]) -> Tile:
    wide = columns(len(tiles))
    height, width, *depth = tiles[0].shape
    sheet = np.zeros((-(-len(tiles) // wide) * height, wide * width, *depth), dtype=np.uint8)
    for position, tile in enumerate(tiles):
        top, left = position // wide * height, position % wide * width
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _palette() -> list[int]:
    shades = np.linspace(0, 1, 2 * STEPS + 1)
    colours = [mpl.colormaps[name](shades)[:, :3] for name in (RELEVANCE_MAP, DIFFERENCE_MAP)]
    return np.rint(np.concatenate(colours) * 255).astype(int).ravel().tolist()


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """Return an image as the bytes of a file of a form such as PNG, with the options of Pillow for it."""
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()
