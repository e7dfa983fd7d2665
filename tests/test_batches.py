"""How many images a batch may hold: by hand, and as a property."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xaicore.core.batches import PIXELS, even_batch, fixed_batch


@pytest.mark.parametrize(
    ("count", "side", "most", "batch"),
    [
        (45, 48, 32, 23),
        (64, 48, 32, 32),
        (65, 48, 32, 22),
        (100, 224, 32, 5),
        (20, 128, 16, 10),
        (16, 128, 32, 16),
        (1, 48, 32, 1),
        (0, 48, 32, 1),
        (3, 2000, 32, 1),
        (7, 512, 16, 1),
    ],
)
def test_batches_by_hand(count, side, most, batch):
    assert even_batch(torch.empty(count, 1, side, side), most) == batch


@pytest.mark.parametrize(
    ("count", "side", "most", "batch"),
    [(45, 48, 32, 45), (1000, 224, 32, 77), (600, 128, 16, 200), (3, 9000, 16, 1)],
)
def test_batches_are_larger_off_the_processor(count, side, most, batch):
    images = torch.empty(count, 1, 1, 1).expand(count, 1, side, side)
    assert even_batch(images, most, "cuda:0") == even_batch(images, most, torch.device("cuda")) == batch
    assert even_batch(images, most, "cpu") == even_batch(images, most)


@pytest.mark.parametrize(
    ("height", "width", "rows"),
    [(28, 28, 32), (45, 45, 32), (48, 48, 16), (64, 64, 16), (112, 92, 4), (224, 224, 4), (299, 299, 4)],
)
def test_passes_of_a_fixed_shape_by_hand(height, width, rows):
    assert fixed_batch((3, height, width)) == rows
    assert fixed_batch((height, width), torch.device("cuda")) == 16 * rows


@given(st.integers(1, 500), st.integers(1, 700), st.integers(1, 700), st.integers(1, 64))
def test_batches_are_small_enough_few_and_even(count, height, width, most):
    batch = even_batch(torch.empty(count, 1, 1, 1).expand(count, 1, height, width), most)
    fitting = max(1, min(most, PIXELS // (height * width)))
    assert 1 <= batch <= fitting
    batches = -(-count // batch)
    assert batches == -(-count // fitting), "no more batches than needed"
    assert batch * batches - count < batches, "the last lacks fewer images than there are batches"
