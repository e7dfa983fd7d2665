"""Where the relevance lies: the rank of one pixel, and the share inside a region.

Maps are finite, (N, C, H, W) or (N, H, W); relevance of a pixel is the absolute value of its channels' sum. A region is
given by masks, (N, H, W) or (H, W) booleans, true inside; a pixel by integer tensors (N,), its rows, 0 to H − 1, and its
columns, 0 to W − 1. All raise TypeError for tensors of another kind, and ValueError for a wrong shape, a pixel outside
the image, or values that are not finite.
"""

import torch
from torch import Tensor

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.metrics.checks import single_maps

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def relevance_rank(maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Return the percentile of one pixel's absolute relevance among all pixels of its map.

    Returns:
        (N,) float64 in percent of the other pixels, of which there must be one: 100 the most relevant pixel, 0 the least;
        equal pixels share the middle of their ranks (so 50 in a constant map).
    """
    values = single_maps("maps", maps).abs()
    n, height, width = values.shape
    if height * width < 2:
        raise UserError("maps must have at least two pixels")
    rows, cols = _positions(rows, "rows", height), _positions(cols, "cols", width)
    if len(rows) != n or len(cols) != n:
        raise UserError(f"rows and cols must have one entry per map, {n}, not {len(rows)} and {len(cols)}")
    pixels = values.flatten(1)
    chosen = pixels.gather(1, (rows * width + cols).to(pixels.device)[:, None])
    below = (pixels < chosen).sum(1)
    equal = (pixels == chosen).sum(1) - 1
    return 100 * (below + equal / 2).to(values) / (height * width - 1)


def relevance_share(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the share of the absolute relevance that lies inside a region.

    Returns:
        (N,) float64 in [0, 1]; NaN where a map is zero everywhere. Compare with the region's share of the area.
    """
    values, inside = _regions(maps, masks)
    total = values.sum((1, 2))
    return (values * inside).sum((1, 2)) / total.where(total > 0, torch.nan)


def pointing_hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Return whether the pixel of largest absolute relevance lies inside a region: one round of the pointing game.

    Returns:
        (N,) booleans on the device of ``maps``. Where several pixels share the largest value, all of them must lie
        inside; so a map that is constant never hits.

    References:
        Zhang, Bargal, Lin, Brandt, Shen and Sclaroff, Top-down neural attention by excitation backprop, IJCV 126, 2018.
    """
    values, inside = _regions(maps, masks)
    largest = values == values.amax((1, 2), keepdim=True)
    return ~(largest & ~inside).any(2).any(1)


def window_mask(rows: Tensor, cols: Tensor, height: int, width: int, radius: int) -> Tensor:
    """Return the square window around one pixel of each image, cut at the border.

    It reaches ``radius`` pixels, at least 0, to each side of the centre, and is 2·radius + 1 wide.

    Returns:
        (N, height, width) booleans on the device of ``rows``.
    """
    checks.integer("radius", radius, least=0)
    rows, cols = _positions(rows, "rows", height), _positions(cols, "cols", width)
    if len(rows) != len(cols):
        raise UserError(f"rows and cols must have the same length, not {len(rows)} and {len(cols)}")
    cols = cols.to(rows.device)
    in_rows = (torch.arange(height, device=rows.device) - rows[:, None]).abs() <= radius
    in_cols = (torch.arange(width, device=rows.device) - cols[:, None]).abs() <= radius
    return in_rows[:, :, None] & in_cols[:, None, :]


def _regions(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return absolute relevance (N, H, W) and which pixels are inside, after checking both."""
    values = single_maps("maps", maps).abs()
    inside = checks.booleans("masks", masks[None] if isinstance(masks, Tensor) and masks.ndim == 2 else masks)
    if masks.shape not in (values.shape, values.shape[1:]):
        raise UserError(f"masks must have the shape {tuple(values.shape)}, not {tuple(masks.shape)}")
    return values, inside.to(values.device).expand_as(values)


def _positions(values: Tensor, name: str, limit: int) -> Tensor:
    if not isinstance(values, Tensor) or values.dtype not in INTEGERS:
        raise TypeError(f"{name} must be an integer tensor (N,)")
    if values.ndim != 1:
        raise UserError(f"{name} must have the shape (N,), not {tuple(values.shape)}")
    if len(values) and (int(values.min()) < 0 or int(values.max()) >= limit):
        raise UserError(f"{name} must lie in 0..{limit - 1}")
    return values.long()
