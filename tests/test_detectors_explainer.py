"""EXPLAINER against scikit-image, Captum and maps written out; its rule, its ties, photographs."""

import captum.attr
import numpy as np
import pytest
import skimage.measure
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from skimage.restoration import denoise_nl_means
from subjects import photographs, two_convolutions
from torch import Tensor, nn

from xaicore import attribution
from xaicore.detectors import EXPLANATIONS, Explainer, FeatureSqueezing, noise_level, non_local_means

few = settings(max_examples=15, deadline=None)
MODEL = two_convolutions(3, 4, 0)


def draw(count: int, seed: int = 1, channels: int = 3, side: int = 12) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


@few
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(5, 14),
    width=st.integers(5, 14),
    patch=st.integers(1, 7),
    distance=st.integers(1, 6),
    strength=st.floats(0.2, 4),
    seed=st.integers(0, 99),
)
def test_denoising_is_that_of_scikit_image(
    channels: int, height: int, width: int, patch: int, distance: int, strength: float, seed: int
) -> None:
    images = torch.from_numpy(
        np.random.default_rng(seed).random((2, channels, height, width), dtype=np.float32)
    )
    found = non_local_means(images, strength=strength, patch_size=patch, patch_distance=distance)
    widths = strength * noise_level(images).numpy()
    for image, cleaned, h in zip(images.numpy(), found.numpy(), widths, strict=True):
        truth = denoise_nl_means(
            image.transpose(1, 2, 0), patch, distance, h, fast_mode=True, channel_axis=-1
        )
        np.testing.assert_allclose(
            cleaned.transpose(1, 2, 0), truth.reshape(height, width, channels), atol=1e-6
        )


def test_noise_levels_are_those_of_scikit_image() -> None:
    """Numbers of ``skimage.restoration.estimate_sigma`` 0.26.0 with PyWavelets 1.8.0, which is not installed here."""
    draws = np.random.default_rng(7)
    plain, framed = draws.random((2, 9, 12)), np.zeros((1, 9, 12))
    framed[:, 2:7, 3:9] = draws.random((1, 5, 6))
    colour = draws.random((8, 10, 3))
    images = torch.from_numpy(np.concatenate([plain, framed]))[:, None]
    truth = [0.3038514310226341, 0.33216719105662035, 0.07079592889278219]
    np.testing.assert_allclose(noise_level(images).numpy(), truth, rtol=1e-12)
    found = noise_level(torch.from_numpy(colour.transpose(2, 0, 1)[None]))
    np.testing.assert_allclose(found.numpy(), [0.26421901930937325], rtol=1e-12)


def test_noise_level_of_noise_is_its_standard_deviation() -> None:
    noise = torch.randn(1, 3, 200, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert noise_level(0.1 * noise).item() == pytest.approx(0.1, rel=0.02)
    assert norm.ppf(0.75) == pytest.approx(0.6745, abs=1e-4)


def test_an_image_without_noise_stays_as_it_is() -> None:
    images = torch.stack([torch.zeros(1, 9, 9), draw(1, channels=1, side=9)[0]])
    found = non_local_means(images)
    assert torch.equal(found[0], images[0])
    assert not torch.equal(found[1], images[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0}, "strength"),
        ({"patch_size": 0}, "patch_size"),
        ({"patch_distance": 1.5}, "patch_distance"),
    ],
)
def test_denoising_refuses_what_does_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        non_local_means(draw(2), **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="images"):
        non_local_means(draw(2).numpy())  # type: ignore[arg-type]


def naive(images: Tensor, targets: Tensor, starts: Tensor, noise: Tensor, place: float) -> Tensor:
    """The map of one way point by autograd, in float64, one image at a time."""
    model, maps = MODEL.double(), []
    try:
        for image, target in zip(images.double(), targets, strict=True):
            end = image + noise
            point = (starts + place * (end - starts))[None].requires_grad_()
            (slope,) = torch.autograd.grad(model(point)[0, target], point)
            maps.append((end - starts) * slope[0])
    finally:
        MODEL.float()
    return torch.stack(maps)


def test_integrated_points_give_captums_map() -> None:
    images, targets = draw(3), torch.tensor([0, 3, 1])
    found = Explainer(MODEL, "integrated_gradients", n_points=7, batch_size=5).maps(images, targets)
    truth = captum.attr.IntegratedGradients(MODEL).attribute(images, target=targets, n_steps=7)
    torch.testing.assert_close(found, truth.sum(1).float(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["smooth_ig", "shap"])
def test_smoothed_and_expected_points_written_out(name: str) -> None:
    images, targets, clean = draw(2), torch.tensor([2, 1]), draw(3, seed=9)
    detector = Explainer(MODEL, name, n_points=6, std=0.2, seed=5, batch_size=4).fit(clean)
    starts, noise, places, weights = detector.ways(images.shape[1:])
    truth = sum(
        weight * naive(images, targets, start, added, float(place))
        for start, added, place, weight in zip(starts, noise, places, weights, strict=True)
    )
    found = detector.maps(images, targets)
    torch.testing.assert_close(found, truth.sum(1).float(), atol=1e-6, rtol=1e-4)  # type: ignore[union-attr]
    assert weights.sum().item() == pytest.approx(1)
    assert noise.std().item() == pytest.approx(0.2, rel=0.1)
    if name == "shap":
        assert (6 * places.flatten()).int().tolist() == [0, 1, 2, 3, 4, 5]
        assert [int((start == clean).flatten(1).all(1).sum()) for start in starts] == [1] * 6
    else:
        nodes, expected = np.polynomial.legendre.leggauss(6)
        np.testing.assert_allclose(places.flatten(), (nodes + 1) / 2, rtol=1e-6)
        np.testing.assert_allclose(weights.flatten(), expected / 2, rtol=1e-6)


def test_many_smoothed_points_come_to_a_noise_tunnel() -> None:
    """Both estimate one expectation: the distance shrinks to the error of the tunnel's own 400 copies."""
    images, targets = draw(1), torch.tensor([0])
    noise = 0.3 * torch.randn(100, 1, *images.shape[1:], generator=torch.Generator().manual_seed(0))
    explain = captum.attr.IntegratedGradients(MODEL).attribute
    tunnel = (
        torch.stack([explain(images + each, target=targets, n_steps=20) for each in noise]).mean(0).sum(1)
    )
    distances = [
        float((Explainer(MODEL, n_points=n, std=0.3).maps(images, targets) - tunnel).norm()) for n in (4, 400)
    ]
    assert distances[1] < 0.35 * distances[0]
    assert distances[1] < 0.2 * float(tunnel.norm())


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_entropies_are_scikit_images_of_the_maps(name: str) -> None:
    detector = Explainer(MODEL, name, n_points=3, strength=2.0).fit(draw(4, seed=8))
    images = draw(3, seed=2)
    entropies = detector.entropies(images)
    for column, shown in enumerate([images, detector.denoised(images)]):
        for value, values in zip(entropies[:, column], detector.maps(shown).double().numpy(), strict=True):
            share = np.abs(values) / max(np.abs(values).max(), 1e-300)
            levels = np.minimum((share * 256).astype(int), 255)
            assert value.item() == pytest.approx(skimage.measure.shannon_entropy(levels), abs=0.03)
    assert torch.equal(detector.score(images), entropies[:, 1] - entropies[:, 0])


def test_maps_are_those_of_the_attribution_room() -> None:
    images = draw(3)
    with torch.no_grad():
        targets = MODEL(images).argmax(1)
    for name in ("deep_lift", "gradient", "grad_cam", "guided_grad_cam"):
        truth = attribution.METHODS[name](MODEL, images, targets).sum(1)
        torch.testing.assert_close(Explainer(MODEL, name).maps(images), truth)
    truth = attribution.integrated_gradients(MODEL, images, targets, n_steps=8).sum(1)
    torch.testing.assert_close(
        Explainer(MODEL, "integrated_gradients").maps(images), truth, atol=1e-6, rtol=1e-4
    )
    assert torch.equal(Explainer(MODEL).maps(images, targets), Explainer(MODEL).maps(images))


def test_the_rule_a_tie_is_adversarial(monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.tensor([[3.0, 2.9], [3.0, 3.0], [3.0, 3.1]], dtype=torch.float64)
    monkeypatch.setattr(Explainer, "entropies", lambda self, images: table)
    assert Explainer(MODEL).flagged(draw(3)).tolist() == [False, True, True]
    np.testing.assert_allclose(Explainer(MODEL).score(draw(3)).numpy(), [-0.1, 0, 0.1], atol=1e-12)


def test_holding_the_class_explains_the_class_of_the_image() -> None:
    class Stub(nn.Module):
        """Class 0 for a varied image, class 1 for a smooth one; each looks at another half."""

        def forward(self, images: Tensor) -> Tensor:
            left, right = images[..., :6].sum((1, 2, 3)), images[..., 6:].square().sum((1, 2, 3))
            varied = images.flatten(1).std(1) > 0.15
            return torch.stack([left + 1000 * varied, right + 1000 * ~varied], dim=1)

    images = draw(2, channels=1)
    held, free = (
        Explainer(Stub(), "integrated_gradients", strength=8.0, hold_class=hold).entropies(images)
        for hold in (True, False)
    )
    cleaned = Explainer(Stub(), strength=8.0).denoised(images)
    assert Stub()(images).argmax(1).tolist() == [0, 0]
    assert Stub()(cleaned).argmax(1).tolist() == [1, 1]
    torch.testing.assert_close(held[:, 0], free[:, 0])
    assert not torch.allclose(held[:, 1], free[:, 1])


def test_batch_size_changes_no_more_than_rounding() -> None:
    images = draw(4)
    scores = [Explainer(MODEL, n_points=4, batch_size=rows).entropies(images) for rows in (1, 3, 16)]
    for other in scores[1:]:
        torch.testing.assert_close(scores[0], other, atol=0.05, rtol=0)


def test_photographs() -> None:
    model, images, _ = photographs(1)
    small = nn.functional.interpolate(images, 64, mode="area")
    for name in ("smooth_ig", "grad_cam"):
        detector = Explainer(model, name, n_points=2)
        entropies = detector.entropies(small)
        assert bool(((entropies > 0) & (entropies <= 8)).all())
        assert detector.flagged(small).shape == (1,)
    distances = FeatureSqueezing(model).distances(small)
    assert distances.shape == (1, 3)
    assert bool(((distances >= 0) & (distances <= 2)).all())
