"""Structural similarity against scikit-image, and what P2 makes of it: NISSIM, MOD and VID."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import interpolate

from xaicore.metrics import bootstrap_ci, defined, mod, nissim, ssim, undefined_count, vid

EQUAL = 1e-10
"""Both sides sum 49 numbers of at most 2 in float64, which errs by less than 1e-13; C2 = 0.0009 divides that."""


def smooth(n: int, size: int = 24, seed: int = 0) -> Tensor:
    """Return maps (n, size, size) in [0, 1] as Grad-CAM gives: few values, enlarged, zero in part."""
    coarse = torch.randn(n, 1, 5, 5, generator=torch.Generator().manual_seed(seed)).relu()
    maps = interpolate(coarse, size=(size, size), mode="bilinear").squeeze(1)
    return maps / maps.amax((1, 2), keepdim=True)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def flat(value: float, size: int = 24) -> Tensor:
    return torch.full((1, size, size), value)


def edge() -> Tensor:
    halves = torch.zeros(1, 24, 24)
    halves[..., 12:] = 1
    return halves


CASES: dict[str, tuple[Tensor, Tensor]] = {
    "heatmaps": (smooth(6), smooth(6, seed=1)),
    "near": (smooth(6), (smooth(6) + 0.01 * noise(6, 24, 24)).clamp(max=1)),
    "noise": (noise(3, 19, 31), noise(3, 19, 31, seed=1)),
    "images": (noise(3, 3, 20, 16), noise(3, 3, 20, 16, seed=1)),
    "smallest": (noise(2, 7, 7), noise(2, 7, 7, seed=1)),
    "flat": (flat(0.3), flat(0.7)),
    "flat and alike": (flat(1 / 3), flat(1 / 3 + 1e-6)),
    "flat and noise": (flat(0.3), noise(1, 24, 24)),
    "zero and edge": (flat(0.0), edge()),
    "edge and its opposite": (edge(), 1 - edge()),
    "double": (noise(3, 20, 20).double(), noise(3, 20, 20, seed=1).double() ** 2),
    "tall": (noise(1, 400, 12), noise(1, 400, 12, seed=1)),
}


def by_skimage(a: Tensor, b: Tensor) -> np.ndarray:
    axis = 0 if a.ndim == 4 else None
    pairs = zip(a.double().numpy(), b.double().numpy(), strict=True)
    return np.array(
        [structural_similarity(x, y, data_range=1, win_size=7, channel_axis=axis) for x, y in pairs]
    )


@pytest.mark.parametrize("case", CASES)
def test_ssim_is_skimages(case: str) -> None:
    a, b = CASES[case]
    expected = by_skimage(a, b)
    np.testing.assert_allclose(ssim(a, b), expected, atol=EQUAL)
    np.testing.assert_allclose(ssim(a / 8, b / 8), by_skimage(a / 8, b / 8), atol=EQUAL)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no GPU here; on a machine that has one this runs"
)
def test_on_a_gpu() -> None:
    a, b = CASES["images"]
    found = ssim(a.cuda(), b.cuda())
    assert found.device.type == "cuda"
    np.testing.assert_allclose(found.cpu(), by_skimage(a, b), atol=EQUAL)


def test_an_image_and_its_negative_by_hand() -> None:
    # A chessboard's 7 x 7 windows hold 25 or 24 ones, those of the negative the other number: one value everywhere.
    board = (torch.arange(16)[:, None] + torch.arange(12)).remainder(2).float()[None]
    mean = 25 / 49
    product, squares = mean * (1 - mean), mean**2 + (1 - mean) ** 2
    variance = 49 / 48 * product
    expected = (2 * product + 1e-4) / (squares + 1e-4) * (9e-4 - 2 * variance) / (9e-4 + 2 * variance)
    assert expected < -0.99
    assert ssim(board, 1 - board).item() == pytest.approx(expected, abs=1e-12)
    assert nissim(board, 1 - board).item() == pytest.approx((1 - expected) / 2, abs=1e-12)
    # Grey and its negative is grey: it has no structure to invert.
    assert ssim(flat(0.5), 1 - flat(0.5)).item() == pytest.approx(1)


def test_batches_threads_and_layout_do_not_matter() -> None:
    a, b = smooth(7), smooth(7, seed=1)
    whole = ssim(a, b)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5, 16):
            torch.set_num_threads(count)
            assert torch.equal(ssim(a, b), whole)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(ssim(a[2:4], b[2:4]), whole[2:4])
    assert ssim(a[:0], b[:0]).shape == (0,)
    turned = ssim(a.transpose(1, 2), b.transpose(1, 2).requires_grad_())
    torch.testing.assert_close(turned, whole)
    assert not turned.requires_grad
    torch.testing.assert_close(ssim(a.half(), b.half()), whole, atol=2e-3, rtol=0)  # half has 11 bits


def test_constant_maps_by_hand() -> None:
    found = ssim(torch.cat([flat(0.0), flat(0.5), flat(0.0)]), torch.cat([flat(0.0), flat(0.5), flat(1.0)]))
    np.testing.assert_allclose(found, [1, 1, 0.0001 / 1.0001], atol=1e-12)


planes = arrays(np.float32, (2, 8, 9), elements=st.sampled_from([0.0, 0.1, 0.125, 0.5, 0.9, 1.0])).map(
    torch.from_numpy
)


@settings(max_examples=40, deadline=None)
@given(planes, planes)
def test_properties(a: Tensor, b: Tensor) -> None:
    found = nissim(a, b)
    assert ((found >= 0) & (found < 1)).all()
    torch.testing.assert_close(found, nissim(b, a), rtol=0, atol=EQUAL)
    torch.testing.assert_close(found, nissim(a.flip(2), b.flip(2)), rtol=0, atol=EQUAL)
    assert (nissim(a, a) < 1e-14).all()
    np.testing.assert_allclose(found, (1 - by_skimage(a, b)) / 2, atol=EQUAL)


def test_mod_and_vid_by_hand() -> None:
    assert mod([0.1, 0.2, 0.6]) == pytest.approx(0.3)
    # Levels 0, 0.2, 0.4: mean 0.2, squares 0.04 + 0 + 0.04 over three levels.
    np.testing.assert_allclose(vid([[0.0, 0.2, 0.4], [0.3, 0.3, 0.3]]), [(0.08 / 3) ** 0.5, 0], atol=1e-15)
    table = noise(40, 5).double()
    np.testing.assert_allclose(vid(table), table.numpy().std(axis=1))
    assert vid([[0.0, 1.0]]).tolist() == [0.5]


def test_undefined_maps_are_left_out_and_counted() -> None:
    values = torch.tensor([0.1, torch.nan, 0.3], dtype=torch.float64)
    assert mod(values) == pytest.approx(0.2)
    assert undefined_count(values) == undefined_count(values.numpy()) == 1
    assert defined(values).tolist() == [0.1, 0.3]
    assert bootstrap_ci(defined(values)).low == pytest.approx(0.1)
    assert np.isnan(mod([np.nan]))
    assert vid([[0.1, np.nan], [0.1, 0.1]]).isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: ssim(noise(1, 6, 9), noise(1, 6, 9)), ValueError, "at least 7 x 7 pixels"),
        (lambda: ssim(noise(1, 9, 9), noise(2, 9, 9)), ValueError, "same shape"),
        (lambda: ssim(noise(9, 9), noise(9, 9)), ValueError, "a must have the shape"),
        (lambda: ssim(noise(1, 9, 9).numpy(), noise(1, 9, 9)), TypeError, "a must be a floating-point"),
        (
            lambda: ssim(noise(1, 9, 9), noise(1, 9, 9) + 0.5),
            ValueError,
            r"b must lie in \[0, 1\], not between",
        ),
        (lambda: ssim(noise(1, 9, 9) - 0.5, noise(1, 9, 9)), ValueError, r"a must lie in \[0, 1\]"),
        (lambda: ssim(noise(1, 9, 9), noise(1, 9, 9) * torch.nan), ValueError, "b must be finite"),
        (lambda: ssim(noise(1, 9, 9), noise(1, 9, 9) / 0), ValueError, "b must be finite"),
        (lambda: mod([]), ValueError, "dissimilarities must have the shape"),
        (lambda: mod([[0.1]]), ValueError, "dissimilarities must have the shape"),
        (lambda: mod([-0.4]), ValueError, "not of ssim"),
        (lambda: vid([[0.1], [0.2]]), ValueError, "at least two levels"),
        (lambda: vid([0.1, 0.2]), ValueError, r"shape \(N, levels\)"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_rounding_past_the_range_is_let_pass() -> None:
    a = noise(1, 9, 9)
    a[0, 0, 0] = 1 + 5e-7
    assert ssim(a, a).item() == pytest.approx(1)
