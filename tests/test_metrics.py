"""Metrics of maps and images: against independent implementations, and their properties."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import percentileofscore, spearmanr
from skimage.measure import shannon_entropy as skimage_entropy
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from xaicore.metrics import (
    cosine_similarity,
    neighbour_mixing,
    norms,
    psnr,
    rank_correlation,
    relevance_rank,
    relevance_share,
    shannon_entropy,
    total_variation,
    window_mask,
)

ON_MAPS = {"total_variation": total_variation, "shannon_entropy": shannon_entropy}
ON_PAIRS = {"rank_correlation": rank_correlation, "cosine_similarity": cosine_similarity}
few = settings(max_examples=40, deadline=None)


def maps(n: int = 5, channels: int = 3, size: int = 6, seed: int = 0, ties: bool = False) -> Tensor:
    values = torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return values.mul(2).round() if ties else values


some_maps = arrays(
    np.float64, (2, 4, 5), elements=st.sampled_from([-3.0, -1.0, -0.25, 0.0, 0.5, 1.0, 7.0])
).map(torch.from_numpy)


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_scipys(ties: bool) -> None:
    a, b = maps(ties=ties), maps(seed=1, ties=ties)
    summed = [x.sum(1).flatten(1).numpy() for x in (a, b)]
    expected = [spearmanr(x, y).statistic for x, y in zip(*summed, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b).numpy(), expected, atol=1e-6)


@few
@given(some_maps, some_maps)
def test_similarities_are_bounded_symmetric_and_blind_to_scale(a: Tensor, b: Tensor) -> None:
    for similarity in ON_PAIRS.values():
        value = similarity(a, b)
        torch.testing.assert_close(value, similarity(b, a), equal_nan=True)
        torch.testing.assert_close(value, similarity(3 * a, b / 5), equal_nan=True)
        torch.testing.assert_close(-value, similarity(-a, b), equal_nan=True)
        defined = ~value.isnan()
        assert (value[defined].abs() <= 1).all()
    constant = a.flatten(1).std(1) == 0
    assert rank_correlation(a, b)[constant].isnan().all()
    assert torch.equal(cosine_similarity(a, a).isnan(), (a == 0).flatten(1).all(1))
    own = rank_correlation(a, a)[~constant]
    torch.testing.assert_close(own, torch.ones_like(own))


def test_cosine_by_hand_and_for_tiny_and_huge_maps() -> None:
    a, b = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]), torch.tensor([[[0.0, 2.0]], [[1.0, 0.0]]])
    expected = torch.tensor([0.0, 0.5**0.5], dtype=torch.float64)
    torch.testing.assert_close(cosine_similarity(a, b), expected)
    torch.testing.assert_close(cosine_similarity(a.double() * 1e-200, b.double() * 1e200), expected)


def test_disjoint_maps_have_cosine_zero() -> None:
    a, b = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    a[..., :4], b[..., 4:] = 1.0, 1.0
    assert cosine_similarity(a, b).item() == 0


def test_total_variation_by_hand() -> None:
    checkerboard = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    step = torch.tensor([[[0.0, 4.0], [0.0, 4.0]]])
    batch = torch.cat([checkerboard, step, torch.zeros(1, 2, 2), torch.full((1, 2, 2), 5.0)])
    assert total_variation(batch).tolist() == [2.0, 0.5, 0.0, 0.0]
    with pytest.raises(ValueError, match="two pixels"):
        total_variation(torch.ones(1, 1, 1))


def test_shannon_entropy_is_skimages_on_quantised_maps() -> None:
    for batch in (maps(), maps(ties=True), -torch.ones(1, 4, 1).double()):
        summed = batch.double().sum(1) if batch.ndim == 4 else batch
        for bins in (2, 10, 256):
            for values, ours in zip(summed.numpy(), shannon_entropy(batch, bins=bins), strict=True):
                share = np.abs(values) / np.abs(values).max()
                quantised = np.minimum(np.floor(share * bins), bins - 1).astype(np.uint8)
                assert ours.item() == pytest.approx(skimage_entropy(quantised), abs=1e-12)


def test_shannon_entropy_of_known_maps() -> None:
    half = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    batch = torch.cat([half, torch.zeros(1, 2, 2), torch.full((1, 2, 2), -3.0)])
    assert shannon_entropy(batch).tolist() == [1.0, 0.0, 0.0]
    ramp = torch.linspace(0, 1, 65536).reshape(1, 256, 256)
    assert shannon_entropy(ramp).item() == pytest.approx(8, abs=1e-3)
    assert shannon_entropy(ramp, bins=16).item() == pytest.approx(4, abs=1e-3)
    with pytest.raises(ValueError, match="bins"):
        shannon_entropy(half, bins=1)


@few
@given(some_maps)
def test_map_metrics_are_bounded_and_blind_to_scale_and_sign(a: Tensor) -> None:
    for metric, highest in ((total_variation, 2.0), (shannon_entropy, 8.0)):
        value = metric(a)
        assert ((value >= 0) & (value <= highest)).all()
        torch.testing.assert_close(value, metric(-4 * a))
        torch.testing.assert_close(value, metric(a.flip(-1)))


@few
@given(some_maps, st.integers(0, 3), st.integers(0, 4))
def test_relevance_rank_is_scipys_mean_percentile(a: Tensor, row: int, col: int) -> None:
    rows, cols = torch.tensor([row, row]), torch.tensor([col, col])
    for values, ours in zip(a.abs().numpy(), relevance_rank(a, rows, cols), strict=True):
        others = np.delete(values.ravel(), row * 5 + col)
        both = [percentileofscore(others, values[row, col], kind=kind) for kind in ("strict", "weak")]
        assert ours.item() == pytest.approx(np.mean(both))


def test_relevance_rank_extremes() -> None:
    a = torch.arange(12.0).reshape(1, 1, 3, 4) - 11.5

    def at(row: int, col: int) -> float:
        return relevance_rank(a, torch.tensor([row]), torch.tensor([col])).item()

    assert (at(0, 0), at(2, 3)) == (100.0, 0.0)
    assert relevance_rank(torch.ones(1, 3, 3), torch.tensor([1]), torch.tensor([1])).item() == 50


def test_relevance_share() -> None:
    a = torch.tensor([[[1.0, -3.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True], [False, False]])
    share = relevance_share(a, mask)
    assert share[0].item() == 0.5
    assert share[1].isnan()
    torch.testing.assert_close(relevance_share(a, mask.expand(2, 2, 2)), share, equal_nan=True)
    whole = relevance_share(maps(), torch.ones(6, 6, dtype=torch.bool))
    torch.testing.assert_close(whole, torch.ones_like(whole))


@few
@given(st.integers(0, 6), st.integers(0, 8), st.integers(0, 9))
def test_window_mask(row: int, col: int, radius: int) -> None:
    mask = window_mask(torch.tensor([row]), torch.tensor([col]), 7, 9, radius)[0]
    for i in range(7):
        for j in range(9):
            assert mask[i, j].item() == (max(abs(i - row), abs(j - col)) <= radius)


def test_neighbour_mixing_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(40, 3)), rng.integers(3, size=40)
    distances = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag(np.full(40, np.inf))
    among = (labels[np.argsort(distances)[:, :5]] != labels[:, None]).mean(1)
    np.testing.assert_allclose(neighbour_mixing(torch.tensor(points), torch.tensor(labels), k=5), among)


def test_neighbour_mixing_of_duplicates_and_separate_clouds() -> None:
    clouds, labels = np.repeat([[0.0, 0.0], [9.0, 9.0]], 6, axis=0), np.repeat([0, 1], 6)
    assert neighbour_mixing(clouds, labels, k=5).tolist() == [0.0] * 12
    for points, names, k, match in (
        (clouds, labels, 12, r"k must lie in 1\.\.11"),
        (clouds, labels, 0, "k must lie"),
        (clouds, labels[:3], 3, "labels must have the shape"),
        (clouds[0], labels, 3, "points must have the shape"),
        (clouds * np.nan, labels, 3, "points must be finite"),
    ):
        with pytest.raises(ValueError, match=match):
            neighbour_mixing(points, names, k=k)


def test_psnr_is_skimages() -> None:
    a, b = maps().sigmoid(), maps(seed=3).sigmoid()
    expected = [
        peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=1.0) for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(psnr(a, b).numpy(), expected, rtol=1e-5)
    assert psnr(a, a).isinf().all()
    assert psnr(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item() == 0
    with pytest.raises(ValueError, match="b must lie in"):
        psnr(a, b + 1)


@few
@given(arrays(np.float32, (2, 3, 4, 4), elements=st.sampled_from([-0.5, 0.0, 0.0, 0.0, 0.25])))
def test_norms_are_numpys(delta: np.ndarray) -> None:
    found = norms(torch.from_numpy(delta))
    assert found.l0.tolist() == [int((x != 0).any(0).sum()) for x in delta]
    np.testing.assert_allclose(found.l2, [np.linalg.norm(x.astype(np.float64).ravel()) for x in delta])
    np.testing.assert_allclose(found.linf, [np.abs(x).max() for x in delta])
    assert torch.equal(
        norms(torch.from_numpy(delta[:, 0])).l0, torch.from_numpy((delta[:, 0] != 0).sum((1, 2)))
    )


@pytest.mark.parametrize("name", [*ON_MAPS, *ON_PAIRS])
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (torch.full((1, 2, 2), torch.nan), ValueError),
        (torch.ones(2, 2), ValueError),
        (torch.ones(1, 1, 0, 2), ValueError),
        (torch.ones(1, 2, 2, dtype=torch.int64), TypeError),
        (np.ones((1, 2, 2)), TypeError),
    ],
)
def test_bad_maps_are_named(name: str, bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^(maps|a) must"):
        ON_MAPS[name](bad) if name in ON_MAPS else ON_PAIRS[name](bad, bad)


def test_channels_are_added_and_batches_are_independent() -> None:
    a, b = maps(), maps(seed=1)
    for similarity in ON_PAIRS.values():
        torch.testing.assert_close(similarity(a, b), similarity(a.double().sum(1), b.double().sum(1)))
        torch.testing.assert_close(similarity(a, b)[1:2], similarity(a[1:2], b[1:2]))
        with pytest.raises(ValueError, match="same shape"):
            similarity(a, b[:2])
        assert similarity(a[:0], b[:0]).shape == (0,)
    for metric in ON_MAPS.values():
        torch.testing.assert_close(metric(a), metric(a.double().sum(1)))
        torch.testing.assert_close(metric(a)[1:2], metric(a[1:2]))
        assert metric(a[:0]).shape == (0,)


def test_bad_positions_and_masks_are_named() -> None:
    a, zero = maps(2), torch.zeros(2, dtype=torch.int64)
    for rows, cols, error, match in (
        (zero + 6, zero, ValueError, "rows must lie in 0..5"),
        (zero, zero - 1, ValueError, "cols must lie"),
        (zero.double(), zero, TypeError, "rows must be an integer"),
        (zero[:1], zero, ValueError, "one entry per map"),
        (zero[None], zero, ValueError, "rows must have the shape"),
    ):
        with pytest.raises(error, match=match):
            relevance_rank(a, rows, cols)
    with pytest.raises(ValueError, match="radius"):
        window_mask(zero, zero, 6, 6, -1)
    with pytest.raises(ValueError, match="same length"):
        window_mask(zero[:1], zero, 6, 6, 1)
    with pytest.raises(TypeError, match="masks must be"):
        relevance_share(a, torch.ones(6, 6))
    with pytest.raises(ValueError, match="masks must have the shape"):
        relevance_share(a, torch.ones(5, 6, dtype=torch.bool))
