"""Finding faces: on real faces, on none, and where a box reaches over the edge."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut, brick

from xaicore import data
from xaicore.core.errors import UserError
from xaicore.data.faces import Box, _cut


def test_the_astronaut_has_a_face():
    image = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    box = data.find_face(image[:, 30:230, 130:330])
    assert box is not None
    box = box._replace(top=box.top + 30, left=box.left + 130)
    # Her eyes and mouth, by eye on the picture: rows 105 to 165, columns 195 to 255.
    assert box.top < 105
    assert box.top + box.side > 165
    assert box.left < 195
    assert box.left + box.side > 255
    assert box.side < 180


def test_a_face_that_fills_little_of_the_image_is_not_looked_for():
    image = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    assert data.find_face(image) is None


def test_a_wall_has_none():
    assert data.find_face(torch.from_numpy(brick())[None, :128, :128].float() / 255) is None


def test_a_moved_face_moves_its_box():
    image, _ = data.load("orl-faces", split="all")[0]
    canvas = torch.full((1, 160, 160), 0.5)
    boxes = []
    for top, left in ((10, 10), (30, 50)):
        moved = canvas.clone()
        moved[:, top : top + 112, left : left + 92] = image
        boxes.append(data.find_face(moved))
    first, second = boxes
    assert second.top - first.top == pytest.approx(20, abs=6)
    assert second.left - first.left == pytest.approx(40, abs=6)
    assert second.side == pytest.approx(first.side, rel=0.1)


def test_most_faces_of_orl_are_found():
    cropped = data.crop_faces(data.load("orl-faces", split="all", n=60), 32)
    assert cropped.images.shape == (60, 1, 32, 32)
    assert cropped.images.min() >= 0
    assert cropped.images.max() <= 1
    assert cropped.found.sum() >= 55


def test_without_a_face_the_central_square_is_kept():
    wall = torch.from_numpy(brick()).float()[None, None, :96, :128] / 255
    images = data.from_tensors(wall, torch.tensor([0]), ["wall"], "walls")
    cropped = data.crop_faces(images, 96)
    assert not cropped.found.any()
    assert torch.equal(cropped.images[0], wall[0, :, :, 16:112])


def test_a_box_over_the_edge_repeats_the_edge():
    image = torch.arange(16, dtype=torch.float32).view(1, 4, 4) * 10 / 255
    cut = _cut(image, Box(-2, -2, 4), 4)[0] * 255
    expected = np.pad(np.arange(16).reshape(4, 4) * 10, 2, mode="edge")[:4, :4]
    assert np.array_equal(cut.round().numpy(), expected)


@pytest.mark.parametrize("size", [0, -3, 2.5, True])
def test_sizes_that_are_none(size):
    with pytest.raises(UserError, match="size must be a whole number"):
        data.crop_faces(data.load("orl-faces", split="all", n=2), size)
