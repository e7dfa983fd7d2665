"""Patches on images: pasted exactly where they can be, else as scipy and torch resample them; always inside."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import rotate
from torch import Tensor
from torch.nn import functional

from xaicore.attacks.patch_placement import Footprint, Placements, Shape, side_of
from xaicore.core.errors import UserError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def resampled(patch: Tensor, placement: Tensor, height: int, width: int) -> Tensor:
    """One patch (C, s, s) by torch's affine_grid and grid_sample in float64, its rim continued, (C, H, W)."""
    row, column, scale, angle = placement.double().tolist()
    side, turn = patch.shape[-1], math.radians(angle)
    cos, sin = 2 * math.cos(turn) / scale / side, 2 * math.sin(turn) / scale / side
    right, down = width / 2 - column, height / 2 - row
    theta = torch.tensor(
        [
            [cos * width / 2, -sin * height / 2, cos * right - sin * down],
            [sin * width / 2, cos * height / 2, sin * right + cos * down],
        ],
        dtype=torch.float64,
    )[None]
    grid = functional.affine_grid(theta, [1, len(patch), height, width], align_corners=False)
    return functional.grid_sample(patch[None], grid, padding_mode="border", align_corners=False)[0]


def footprint(placement: Tensor, shape: Shape, side: int, height: int, width: int) -> Footprint:
    return Placements(shape, side, height, width, (1, 1), 0, None).footprint(placement)


def place(images: Tensor, patch: Tensor, placement: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """The images with patches (n, C, s, s), or one (C, s, s), on them, and the mask."""
    there = footprint(placement, shape, patch.shape[-1], *images.shape[2:])
    return there.paint(images, patch.expand(len(images), *patch.shape[-3:])), there.mask


def some_placements(count: int, shape: Shape = "square", side: int = 9) -> Tensor:
    placements = Placements.checked(shape, side, (31, 26), (0.6, 1.5), 180, None)
    return placements.draw(3, torch.arange(count), torch.zeros(count, dtype=torch.int64), 1, purpose=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (2, 5), (6, 8)])
def test_square_patch_that_is_neither_scaled_nor_turned_is_pasted(channels: int, top: int, left: int) -> None:
    images, patch = draw(2, channels, 10, 13), draw(channels, 4, 5, seed=1)[:, :, :4]
    patch[:, 0] = torch.tensor([0.0, 1.0, 1e-30, 1 / 3])
    placed, mask = place(images, patch, torch.tensor([[top + 2.0, left + 2.0, 1, 0]] * 2), "square")
    expected, covered = images.clone(), torch.zeros(2, 10, 13, dtype=torch.bool)
    expected[:, :, top : top + 4, left : left + 4] = patch
    covered[:, top : top + 4, left : left + 4] = True
    assert torch.equal(placed, expected)
    assert torch.equal(mask, covered)


def test_disc_by_hand() -> None:
    placed, mask = place(
        torch.zeros(1, 1, 5, 6), torch.ones(1, 4, 4), torch.tensor([[3.0, 2, 1, 0]]), "circle"
    )
    expected = [[0] * 6, [0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0]]
    assert mask[0].int().tolist() == expected
    assert placed[0, 0].int().tolist() == expected


@pytest.mark.parametrize("side", [1, 4, 5])
@pytest.mark.parametrize("quarters", [1, 2, -1])
def test_quarter_turns_are_exact_and_counter_clockwise(side: int, quarters: int) -> None:
    patch = draw(3, side, side)
    placement = torch.tensor([[2 + side / 2, 1 + side / 2, 1, 90.0 * quarters]])
    placed, mask = place(draw(1, 3, 9, 8, seed=1), patch, placement, "square")
    assert mask.sum() == side * side
    assert torch.equal(placed[0, :, 2 : 2 + side, 1 : 1 + side], torch.rot90(patch, quarters, (1, 2)))


def test_patch_of_twice_the_size_by_hand() -> None:
    patch = torch.tensor([[[0.0, 0.4], [0.8, 1.0]]])
    placed, mask = place(torch.zeros(1, 1, 4, 4), patch, torch.tensor([[2.0, 2, 2, 0]]), "square")
    assert mask.all()
    expected = [
        [0.0, 0.1, 0.3, 0.4],
        [0.2, 0.2875, 0.4625, 0.55],
        [0.6, 0.6625, 0.7875, 0.85],
        [0.8, 0.85, 0.95, 1.0],
    ]
    torch.testing.assert_close(placed[0, 0], torch.tensor(expected))


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_any_placement_equals_scipy_and_torch(shape: Shape) -> None:
    images, patches, placement = draw(40, 3, 31, 26), draw(40, 3, 9, 9, seed=1), some_placements(40, shape)
    placed, mask = place(images, patches, placement, shape)
    y, x = torch.meshgrid(torch.arange(31) + 0.5, torch.arange(26) + 0.5, indexing="ij")
    for image, patch, where, ours, covered in zip(images, patches, placement, placed, mask, strict=True):
        row, column, scale, angle = where.double().tolist()
        turn = math.radians(angle)
        matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) / scale
        offset = matrix @ [0.5 - row, 0.5 - column] + 4
        warped = np.stack(
            [
                scipy.ndimage.affine_transform(
                    channel, matrix, offset, output_shape=(31, 26), order=1, mode="nearest"
                )
                for channel in patch.double().numpy()
            ]
        )
        torch.testing.assert_close(
            ours[:, covered].double(), torch.from_numpy(warped)[:, covered], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            ours[:, covered].double(), resampled(patch.double(), where, 31, 26)[:, covered], atol=1e-5, rtol=0
        )
        assert torch.equal(ours[:, ~covered], image[:, ~covered])
        # Covered are the pixels whose centre lies in the disc, or in the half-planes of the square's four sides.
        if shape == "circle":
            distance = torch.hypot(y - row, x - column) - scale * 4.5
        else:
            sides = [math.radians(angle + quarter) for quarter in (0, 90, 180, 270)]
            outward = [(x - column) * math.cos(s) - (y - row) * math.sin(s) for s in sides]
            distance = torch.stack(outward).amax(0) - scale * 4.5
        assert torch.equal(covered[distance.abs() > 1e-4], (distance < 0)[distance.abs() > 1e-4])


def test_rotation_equals_scikit_image() -> None:
    patch = draw(1, 21, 21)
    for angle in (-140.0, -20.0, 33.0, 171.0):
        placed, mask = place(
            torch.zeros(1, 1, 21, 21), patch, torch.tensor([[10.5, 10.5, 1, angle]]), "circle"
        )
        turned = torch.from_numpy(rotate(patch[0].double().numpy(), angle, order=1, mode="edge"))
        torch.testing.assert_close(placed[0, 0][mask[0]].double(), turned[mask[0]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_is_the_adjoint_and_autograds(shape: Shape, channels: int) -> None:
    images, patches, placement = (
        draw(6, channels, 31, 26),
        draw(6, channels, 9, 9, seed=1),
        some_placements(6, shape),
    )
    gradients = torch.randn(6, channels, 31, 26, generator=torch.Generator().manual_seed(2))
    there = footprint(placement, shape, 9, 31, 26)
    pulled = there.pull_back(gradients)
    for row in range(6):
        exact = patches[row].double().requires_grad_()
        painted = resampled(exact, placement[row], 31, 26)[:, there.mask[row]]
        (wanted,) = torch.autograd.grad(painted, exact, gradients[row].double()[:, there.mask[row]])
        torch.testing.assert_close(pulled[row].double(), wanted, atol=1e-4, rtol=0)
        alone = footprint(placement[row : row + 1], shape, 9, 31, 26).pull_back(gradients[row : row + 1])
        assert torch.equal(alone[0], pulled[row])
    blank = torch.zeros_like(images)
    forward = (there.paint(blank, patches).double() * gradients.double()).sum()
    torch.testing.assert_close(forward, (patches.double() * pulled.double()).sum(), rtol=1e-5, atol=1e-5)
    leaf = patches.clone().requires_grad_()
    placed, _ = place(images, leaf, placement, shape)
    assert torch.equal(torch.autograd.grad(placed, leaf, gradients)[0], pulled)


@settings(max_examples=80, deadline=None)
@given(
    shape=st.sampled_from(["circle", "square"]),
    side=st.integers(1, 14),
    height=st.integers(12, 40),
    width=st.integers(12, 40),
    low=st.floats(0.2, 1.5),
    more=st.floats(0, 1),
    rotation=st.floats(0, 180),
    location=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 99),
)
def test_patch_lies_wholly_inside_whatever_is_drawn(
    shape: Shape,
    side: int,
    height: int,
    width: int,
    low: float,
    more: float,
    rotation: float,
    location: tuple[float, float] | None,
    seed: int,
) -> None:
    high = low + more
    box = 1.0 if shape == "circle" else math.sqrt(2) * math.cos(math.radians(max(0.0, 45 - rotation)))
    if high * side * box > min(height, width) + 1e-4:
        with pytest.raises(UserError, match="size must be smaller"):
            Placements.checked(shape, side, (3, height, width), (low, high), rotation, location)
        return
    if high * side * box > min(height, width) - 1e-4:
        return
    placements = Placements.checked(shape, side, (3, height, width), (low, high), rotation, location)
    placement = placements.draw(seed, torch.arange(5), torch.zeros(5, dtype=torch.int64), 2, purpose=1)
    assert placement.shape == (10, 4)
    assert (placement[:, 2] >= low - 1e-6).all()
    assert (placement[:, 2] <= high + 1e-6).all()
    assert (placement[:, 3].abs() <= rotation * (1 + 1e-6)).all()
    images, margin = draw(10, 1, height, width), 30
    wide = functional.pad(images, [margin] * 4)
    away = placement + torch.tensor([margin, margin, 0, 0])
    patch = draw(1, side, side)
    placed, mask = place(images, patch, placement, shape)
    _, unbounded = place(wide, patch, away, shape)
    inner = unbounded[:, margin:-margin, margin:-margin]
    assert torch.equal(inner.sum((1, 2)), unbounded.sum((1, 2)))
    keep = ~mask[:, None]
    assert torch.equal(placed[keep], images[keep])
    assert placed.min() >= 0
    assert placed.max() <= 1
    # By Gauss, the pixels in a shape differ from its area by less than its perimeter and a few.
    length = side * placement[:, 2]
    area, perimeter = (math.pi / 4, math.pi) if shape == "circle" else (1, 4)
    assert ((mask.sum((1, 2)) - area * length**2).abs() <= perimeter * length + 4).all()


def test_places_are_uniform_over_whole_pixels_and_streams_are_the_images_own() -> None:
    placements = Placements.checked("square", 3, (8, 6), (1, 1), 0, None)
    many = placements.draw(0, torch.arange(3000), torch.zeros(3000, dtype=torch.int64), 1, purpose=0)
    assert torch.equal(many[:, 2:], torch.tensor([1.0, 0.0]).expand(3000, 2))
    for column, room in ((0, 6), (1, 4)):
        first = many[:, column] - 1.5
        assert torch.equal(first, first.round())
        counts = torch.bincount(first.long(), minlength=room).double()
        expected = 3000 / room
        assert len(counts) == room
        assert (counts - expected).square().sum() / expected < 25
    zero = torch.zeros(1, dtype=torch.int64)
    assert torch.equal(placements.draw(0, zero + 17, zero, 1, purpose=0), many[17:18])
    assert not torch.equal(
        placements.draw(0, zero + 17, zero, 9, purpose=1), placements.draw(0, zero + 17, zero, 9, purpose=0)
    )
    assert placements.draw(0, zero[:0], zero[:0], 4, purpose=0).shape == (0, 4)


def test_scale_and_angle_are_uniform() -> None:
    placements = Placements.checked("circle", 6, (40, 40), (0.5, 2), 30, None)
    many = placements.draw(0, torch.arange(2000), torch.zeros(2000, dtype=torch.int64), 1, purpose=0)
    for column, low, high in ((2, 0.5, 2), (3, -30, 30)):
        unit = (many[:, column].double().sort().values - low) / (high - low)
        assert (unit - torch.linspace(0, 1, 2000).double()).abs().max() < 1.63 / math.sqrt(2000)


@pytest.mark.parametrize(
    ("location", "centre"), [((0, 0), (2, 2)), ((1, 1), (6, 10)), ((0.5, 0.5), (4, 6)), ((1, 0), (6, 2))]
)
def test_location_is_a_share_of_the_free_room(
    location: tuple[float, float], centre: tuple[float, float]
) -> None:
    placements = Placements.checked("circle", 4, (8, 12), (1, 1), 0, location)
    zero = torch.zeros(1, dtype=torch.int64)
    assert placements.draw(0, zero, zero, 1, purpose=0)[0, :2].tolist() == list(centre)


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("size", [0.02, 0.1, 0.3])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (224, 224), (112, 92)])
def test_patch_takes_the_share_asked_for(shape: Shape, size: float, height: int, width: int) -> None:
    side = side_of(size, shape, height, width)
    placements = Placements.checked(shape, side, (height, width), (1, 1), 0, None)
    zero = torch.zeros(1, dtype=torch.int64)
    share = placements.footprint(placements.draw(0, zero, zero, 1, purpose=0)).mask.float().mean().item()
    # Half a pixel of the side, twice; and a disc of whole pixels.
    assert share == pytest.approx(size, rel=1 / side + (0.02 if shape == "circle" else 0))


def test_side_is_at_least_a_pixel() -> None:
    assert side_of(1e-9, "circle", 8, 8) == 1
    assert side_of(1, "square", 8, 8) == 8
    assert side_of(0.1, "square", 28, 28) == 9
    assert side_of(0.1, "circle", 28, 28) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "star"}, "shape must be"),
        ({"shape": 1}, "shape must be"),
        *[
            ({"scale": bad}, "scale must be")
            for bad in (1, (1,), (0, 1), (1.2, 0.8), (1, float("nan")), ("a", 1), (True, 1))
        ],
        *[({"rotation": bad}, "rotation must be") for bad in (-1, 181, "10", float("nan"), True, (0, 1))],
        *[({"location": bad}, "location must be") for bad in (0.5, (0.5,), (0, 1.1), (-0.1, 0), (None, 0))],
        ({"scale": (1, 4)}, "size must be smaller"),
        ({"side": 9, "shape": "square", "rotation": 45}, "size must be smaller"),
    ],
)
def test_bad_argument_is_one_clear_error(change: dict[str, object], message: str) -> None:
    arguments = {
        "shape": "circle",
        "side": 4,
        "image": (12, 14),
        "scale": (1, 1),
        "rotation": 0,
        "location": None,
    } | change
    with pytest.raises(UserError, match=message) as caught:
        Placements.checked(**arguments)
    assert "\n" not in str(caught.value)


def test_a_patch_as_large_as_the_image_fits() -> None:
    for scale in (1.0, 1.1, 1.7):
        side = 10
        length = math.ceil(side * scale - 1e-9)
        placements = Placements.checked("square", side, (length, length), (scale, scale), 0, None)
        zero = torch.zeros(1, dtype=torch.int64)
        assert placements.footprint(placements.draw(0, zero, zero, 1, purpose=0)).mask.all()
