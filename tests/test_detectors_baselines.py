"""MagNet and feature squeezing against SciPy, OpenCV and numbers worked by hand; clusters against known groups."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from subjects import draw_12 as draw
from subjects import two_convolutions
from torch import Tensor, nn

from xaicore import data
from xaicore.core.errors import UserError
from xaicore.defenses.autoencoders import Autoencoder, trained_autoencoder
from xaicore.detectors import FeatureSqueezing, MagNet, clustered, squeezed
from xaicore.detectors.magnet import jensen_shannon
from xaicore.detectors.non_local_means import exact_means

few = settings(max_examples=30, deadline=None)
MODEL = two_convolutions(1, 4, 0)


def test_bit_depths_by_hand() -> None:
    values = torch.tensor([0.0, 0.1, 0.49, 0.51, 0.9, 1.0]).view(1, 1, 2, 3)
    assert squeezed(values, "bit_depth_1").flatten().tolist() == [0, 0, 0, 1, 1, 1]
    thirds = squeezed(values, "bit_depth_2").flatten() * 3
    assert thirds.round().tolist() == [0, 0, 1, 2, 3, 3]
    assert torch.equal(squeezed(draw(2), "bit_depth_8"), (draw(2) * 255).round() / 255)


@few
@given(side=st.integers(2, 4), height=st.integers(3, 8), seed=st.integers(0, 50))
def test_medians_are_sorted_neighbourhoods(side: int, height: int, seed: int) -> None:
    """Written out: the upper median of the window that starts side // 2 before the pixel, the image mirrored."""
    images = np.random.default_rng(seed).random((1, 2, height, 7), dtype=np.float32)
    found = squeezed(torch.from_numpy(images), f"median_{side}").numpy()
    pad = side // 2, side - 1 - side // 2
    wide = np.pad(images, ((0, 0), (0, 0), pad, pad), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (side, side), axis=(2, 3))
    truth = np.sort(windows.reshape(*images.shape, -1), axis=-1)[..., side * side // 2]
    np.testing.assert_array_equal(found, truth)
    np.testing.assert_array_equal(
        found, scipy.ndimage.median_filter(images, (1, 1, side, side), mode="reflect")
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_non_local_means_is_that_of_opencv(channels: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install opencv-python-headless")
    smooth = nn.functional.interpolate(draw(1, channels=channels)[..., :4, :4], 32, mode="bicubic").clamp(
        0.1, 0.9
    )
    noise = 0.03 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(0))
    images = ((smooth + noise).clamp(0, 1) * 255).round() / 255
    stored = (images[0] * 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    if channels == 1:
        truth = cv2.fastNlMeansDenoising(stored[..., 0], None, 10, 3, 11)[..., None]
    else:
        colours = cv2.cvtColor(stored, cv2.COLOR_RGB2BGR)
        truth = cv2.cvtColor(cv2.fastNlMeansDenoisingColored(colours, None, 10, 10, 3, 11), cv2.COLOR_BGR2RGB)
    found = squeezed(images, "non_local_means_11_3_10")[0].permute(1, 2, 0).numpy() * 255
    change = np.abs(truth.astype(float) - stored).mean()
    assert change > 1
    assert np.abs(found - truth).mean() < 0.2 * change


def test_exact_means_written_out() -> None:
    images, h = draw(1, channels=2)[..., :7, :6], 0.3
    wide = np.pad(images[0].numpy(), ((0, 0), (3, 3), (3, 3)), mode="reflect")
    truth = np.zeros((2, 7, 6))
    for y, x in np.ndindex(7, 6):
        here = wide[:, y + 2 : y + 5, x + 2 : x + 5]
        pairs = [
            (np.exp(-np.square(here - wide[:, v - 1 : v + 2, u - 1 : u + 2]).mean() / h**2), wide[:, v, u])
            for v in range(y + 1, y + 6)
            for u in range(x + 1, x + 6)
        ]
        truth[:, y, x] = sum(weight * values for weight, values in pairs) / sum(weight for weight, _ in pairs)
    np.testing.assert_allclose(exact_means(images, 5, 3, h)[0].numpy(), truth, atol=1e-5)
    with pytest.raises(ValueError, match="must be odd"):
        exact_means(images, 4, 3, h)


class Softly(nn.Module):
    """Two classes whose odds are the brightness: log p0 / p1 is ten times the mean value."""

    def forward(self, images: Tensor) -> Tensor:
        odds = 10 * images.mean((1, 2, 3))
        return torch.stack([odds, torch.zeros_like(odds)], dim=1)


def test_squeezing_by_hand() -> None:
    images = torch.full((1, 1, 4, 4), 0.4)
    detector = FeatureSqueezing(Softly())
    before, after = 1 / (1 + math.exp(-4)), 0.5  # one bit makes 0.4 black, the median leaves it as it is
    np.testing.assert_allclose(detector.distances(images).numpy(), [[2 * (before - after), 0]], atol=1e-6)
    assert detector.score(images).item() == pytest.approx(2 * (before - after), abs=1e-6)
    assert FeatureSqueezing(MODEL, ("median_3",)).distances(draw(2)).shape == (2, 1)


@few
@given(seed=st.integers(0, 999), classes=st.integers(2, 8), sharp=st.floats(0.1, 60))
def test_divergence_is_scipys(seed: int, classes: int, sharp: float) -> None:
    draws = np.random.default_rng(seed)
    p, q = (torch.from_numpy(sharp * draws.standard_normal((3, classes))).softmax(1) for _ in range(2))
    # SciPy takes a root, which is NaN where rounding makes a divergence of nearly 0 a little less.
    with np.errstate(invalid="ignore"):
        truth = [np.nan_to_num(jensenshannon(a, b)) ** 2 for a, b in zip(p.numpy(), q.numpy(), strict=True)]
    np.testing.assert_allclose(jensen_shannon(p, q).numpy(), truth, atol=1e-9)


def test_divergence_of_certain_answers() -> None:
    p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert jensen_shannon(p, q).item() == pytest.approx(math.log(2))
    assert jensen_shannon(p, p).item() == 0


def test_autoencoders_have_the_papers_layers() -> None:
    first, second = (Autoencoder(1, bottleneck=bottleneck) for bottleneck in (True, False))
    channels = [[(layer.in_channels, layer.out_channels) for layer in net.layers] for net in (first, second)]
    assert channels == [[(1, 3), (3, 3), (3, 3), (3, 3), (3, 1)], [(1, 3), (3, 3), (3, 1)]]
    sides = [values.shape[-1] for values in first.activations(draw(2))]
    assert sides == [12, 6, 6, 12, 12]


def test_values_and_score_written_out() -> None:
    detector = MagNet(MODEL, fpr=0.2, temperatures=(10, 40), epochs=2).fit(draw(20), draw(10, seed=2))
    images = draw(5, seed=3)
    first, second = (network(images).double() for network in detector._autoencoders or ())
    assert torch.allclose(detector.reform(images).double(), first)
    with torch.no_grad():
        answers = [[(MODEL(x) / t).double().softmax(1) for x in (images, first.float())] for t in (10, 40)]
    columns = [
        (images - first).square().mean((1, 2, 3)),
        (images - second).abs().mean((1, 2, 3)),
        *[torch.tensor([jensenshannon(a, b) ** 2 for a, b in zip(*pair, strict=True)]) for pair in answers],
    ]
    values = detector.values(images)
    np.testing.assert_allclose(values.numpy(), torch.stack(columns, 1).numpy(), atol=1e-6)
    assert len(detector.names) == 4
    assert torch.equal(detector.score(images), (values / detector.thresholds).amax(1))
    assert torch.equal(detector.flagged(images), (values > detector.thresholds).any(1))
    alone = MagNet(MODEL, fpr=0.2, temperatures=(10, 40), epochs=2, rows=1).fit(draw(20), draw(10, seed=2))
    torch.testing.assert_close(alone.values(images), values)
    above = (detector.values(draw(10, seed=2)) > detector.thresholds).sum(0)
    assert above.tolist() == [2, 2, 2, 2]


def test_autoencoders_learn_to_clean() -> None:
    """On coarse digits, within half a minute of a reader's patience: closer to the clean image than the noisy one is."""
    coarse = [
        nn.functional.avg_pool2d(data.load("mnist-5k", split=split).stack()[0], 2)
        for split in ("train", "test")
    ]
    train, images = coarse[0][::6], coarse[1][::25]
    network = trained_autoencoder(
        train, bottleneck=False, noise=0.3, epochs=6, batch_size=32, learning_rate=0.03, seed=0,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert not any(parameter.requires_grad for parameter in network.parameters())
    noisy = (images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    before, after = (float((shown - images).square().mean()) for shown in (noisy, network(noisy)))
    assert after < 0.7 * before


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_clusters_find_two_groups(method: str) -> None:
    draws = np.random.default_rng(0)
    before = draws.normal(4, 0.1, (40, 1))
    change = np.concatenate([draws.normal(-1, 0.1, 25), draws.normal(1, 0.1, 15)])[:, None]
    entropies = torch.from_numpy(np.concatenate([before, before + change], axis=1))
    truth = torch.arange(40) >= 25
    for values in (entropies, torch.from_numpy(change[:, 0])):
        assert torch.equal(clustered(values, method), truth)
        assert torch.equal(clustered(values, method), clustered(values, method))
    assert torch.equal(clustered(entropies, method, scores=-torch.from_numpy(change[:, 0])), ~truth)


def test_clusters_refuse_what_does_not_fit() -> None:
    with pytest.raises(UserError, match="method must be"):
        clustered(torch.rand(4), "dbscan")
    with pytest.raises(UserError, match="two different"):
        clustered(torch.ones(4))
    with pytest.raises(UserError, match="finite"):
        clustered(torch.tensor([1.0, math.nan]))
    with pytest.raises(UserError, match="scores must be"):
        clustered(torch.rand(4), scores=torch.rand(3))
