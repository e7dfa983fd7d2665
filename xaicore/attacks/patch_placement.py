"""Put a patch on an image: scaled, turned, at a place of its own, and differentiable in the patch.

This is the operator A(patch, image, location, transformation) of Brown et al. (2017), Sec. 2. The patch is a
square of side x side values of which a disc or the whole square shows. A pixel of the image whose centre falls on the
shape takes the patch's colour there, interpolated bilinearly; all other pixels keep their value, bit for bit. The
affine map from the image to the patch, with both measured from their centres, the column x to the right and
the row y down, is ::

    (u, v) = 1/scale * ((cos a, -sin a), (sin a, cos a)) (x, y),      a counter-clockwise as one sees it.

The bounding box of the shape starts at a whole pixel and lies wholly inside the image. So a patch of scale 1
that is not turned is pasted without any interpolation. Coordinates are kept in pixels instead of the unit
coordinates of ``torch.nn.functional.grid_sample``, in which whole pixels are not exact; only covered pixels are
computed; and the gradient of one patch does not depend on the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from xaicore.core import checks, randomness
from xaicore.core.errors import UserError

Shape = Literal["circle", "square"]

ROUNDING = 1e-5
"""Pixels by which a patch may seem too large through rounding alone."""


def side_of(size: float, shape: Shape, height: int, width: int) -> int:
    """Return the side (diameter) in whole pixels of the patch nearest to the share ``size`` of the area."""
    area = size * height * width
    return max(1, round(math.sqrt(area) if shape == "square" else 2 * math.sqrt(area / math.pi)))


@dataclass(frozen=True)
class Placements:
    """The random placements of a patch: uniform scale, angle and place, all of them wholly inside the image."""

    shape: Shape
    side: int  # or diameter at scale 1, in pixels
    height: int  # of the image, in pixels
    width: int
    scale: tuple[float, float]  # smallest and largest
    rotation: float  # largest angle to either side, in degrees
    location: tuple[float, float] | None  # share of the free rows and columns before the patch; None: random

    @classmethod
    def of_share(
        cls, size: Any, shape: Any, image: Sequence[int], scale: Any, rotation: Any, location: Any
    ) -> Self:
        """Return the placements of a patch that takes a share ``size`` of the area; see :meth:`checked`."""
        checks.one_of("shape", shape, get_args(Shape))
        side = side_of(checks.positive("size", size, most=1), shape, *image[-2:])
        return cls.checked(shape, side, image, scale, rotation, location)

    @classmethod
    def checked(
        cls, shape: Any, side: int, image: Sequence[int], scale: Any, rotation: Any, location: Any
    ) -> Self:
        """Return the placements if all arguments are right and the largest patch fits into ``image`` (…, H, W).

        Raises:
            UserError: a value is of the wrong kind or out of range, or the patch does not fit.
        """
        shape = checks.one_of("shape", shape, get_args(Shape))
        low, high = _pair("scale", scale)
        if not 0 < low <= high:
            raise UserError(f"scale must be (low, high) with 0 < low <= high, not {scale!r}")
        rotation = checks.not_negative("rotation", rotation, most=180)
        place = None if location is None else _pair("location", location)
        if place is not None and not all(0 <= share <= 1 for share in place):
            raise UserError(f"location must be None or (row, column) as shares in [0, 1], not {location!r}")
        height, width = image[-2:]
        made = cls(shape, side, height, width, (low, high), rotation, place)
        worst = torch.tensor([min(rotation, 45.0)]).double()
        extent = 2 * made.half_extent(torch.tensor([high]).double(), worst).item()
        if extent > min(height, width) + ROUNDING:
            raise UserError(
                f"size must be smaller, or scale or rotation: the patch takes up to {extent:.1f} pixels of an "
                f"image of {height} x {width}"
            )
        return made

    def footprint(self, placement: Tensor) -> "Footprint":
        """Return where the patches at ``placement`` (m, 4), as :meth:`draw` gives them, lie."""
        side, device = self.side, placement.device
        row, column, scale, angle = (number.view(-1, 1, 1) for number in placement.unbind(1))
        turn = angle.double().deg2rad()
        cos, sin = turn.cos().float(), turn.sin().float()
        y = torch.arange(self.height, device=device).view(1, -1, 1) + 0.5 - row
        x = torch.arange(self.width, device=device).view(1, 1, -1) + 0.5 - column
        u, v = (cos * x - sin * y) / scale, (sin * x + cos * y) / scale
        if self.shape == "square":
            mask = (u.abs() < side / 2) & (v.abs() < side / 2)
        else:
            mask = u * u + v * v < side * side / 4
        which = mask.nonzero()[:, 0] * side * side
        # Near the rim a pixel has no values of the patch on one side: there the rim's colour goes on.
        v, u = ((number[mask] + (side - 1) / 2).clamp(0, side - 1) for number in (v, u))
        upper, left = v.long(), u.long()
        lower, beside = (upper + 1).clamp(max=side - 1), (left + 1).clamp(max=side - 1)
        first, second = which + upper * side, which + lower * side
        corners = (first + left, first + beside, second + left, second + beside)
        return Footprint(mask, corners, v - upper, u - left, side)

    def half_extent(self, scale: Tensor, angle: Tensor) -> Tensor:
        """Return half the side of the upright box around the shape, in pixels, for float64 (m,) arguments."""
        half = scale * self.side / 2
        if self.shape == "circle":
            return half
        turn = angle.deg2rad()
        return half * (turn.cos().abs() + turn.sin().abs())

    def draw(self, seed: int, index: Tensor, step: Tensor, count: int, *, purpose: int) -> Tensor:
        """Return ``count`` placements for each image, from the image's own stream.

        Both ``index`` and ``step`` are (n,) int64; ``purpose`` tells draws of the same step apart.

        Returns:
            (n * count, 4) float32 on the device of ``index``: row and column of the centre in pixels (the
            first pixel reaches from 0 to 1), scale, and angle in degrees counter-clockwise.
        """
        uniform = randomness.uniform(seed, index, step, (count, 4), purpose=purpose).view(-1, 4)
        down, across, size, turn = uniform.cpu().double().unbind(1)
        scale = (self.scale[0] + (self.scale[1] - self.scale[0]) * size).float().double()
        angle = (self.rotation * (2 * turn - 1)).float().double()
        half = self.half_extent(scale, angle)
        centre = []
        for axis, (length, share) in enumerate(((self.height, down), (self.width, across))):
            free = (length - 2 * half + ROUNDING).floor().clamp(min=0)
            if self.location is None:
                first = (share * (free + 1)).floor()
            else:
                first = (self.location[axis] * free + 0.5).floor()
            centre.append(first + half)
        return torch.stack([*centre, scale, angle], dim=1).float().to(index.device)


@dataclass(frozen=True)
class Footprint:
    """Where m placed patches lie: the pixels they cover, and where on the patch each of these pixels falls.

    There are M covered pixels in all. The four values of the patch around each are numbered through (m, side, side).
    """

    mask: Tensor  # (m, H, W) bool, true for a covered pixel
    corners: tuple[
        Tensor, Tensor, Tensor, Tensor
    ]  # (M,) int64: upper left, upper right, lower left, lower right
    down: Tensor  # (M,) float32 in [0, 1), how far the pixel lies from the upper towards the lower ones
    right: Tensor  # (M,), likewise from the left towards the right ones
    side: int  # of the patch

    def paint(self, images: Tensor, patches: Tensor) -> Tensor:
        """Return ``images`` (m, C, H, W) with ``patches`` (m, C, side, side) on them.

        Values stay in [0, 1] if both are; differentiable in both.
        """
        values = patches.movedim(1, 0).flatten(1)
        first, second, third, fourth = (_picked(values, corner) for corner in self.corners)
        upper = first + self.right * (second - first)
        lower = third + self.right * (fourth - third)
        painted = images.clone()
        painted.movedim(1, 0)[:, self.mask] = upper + self.down * (lower - upper)
        return painted

    def pull_back(self, gradients: Tensor) -> Tensor:
        """Return the gradient at the patches (m, C, side, side) for gradients at the images (m, C, H, W).

        The painting is linear in the patch, so that neither images nor patches matter here.
        """
        with torch.enable_grad():
            shape = (len(gradients), gradients.shape[1], self.side, self.side)
            patches = torch.zeros(shape, device=gradients.device, requires_grad=True)
            painted = self.paint(torch.zeros_like(gradients), patches)
            return torch.autograd.grad(painted, patches, gradients)[0]


def _pair(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise UserError(f"{name} must be a pair of numbers, not {value!r}")
    return checks.not_negative(name, value[0]), checks.not_negative(name, value[1])


def _picked(values: Tensor, which: Tensor) -> Tensor:
    """Return ``values[:, which]`` (C, M), by the operation whose gradient is summed in a fixed order there."""
    return values[:, which] if values.is_cuda else values.gather(1, which.expand(len(values), -1))
