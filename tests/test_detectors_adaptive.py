"""The attack that knows its detector, the slopes it follows, and what chapter 5 makes of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from subjects import coarse_digits as digits
from subjects import draw_12 as draw
from subjects import two_convolutions
from torch import Tensor, nn

from xaicore.attacks import pgd
from xaicore.core.errors import UserError
from xaicore.detectors import (
    Detector,
    Explainer,
    FeatureSqueezing,
    LayerDeviation,
    MagNet,
    adaptive_attack,
    surrogates,
)
from xaicore.detectors.adaptive import _joined
from xaicore.detectors.surrogates import differentiable_score
from xaicore.run.store import Store
from xaicore.studies.compared_detectors import ComparedDetectors

MODEL = two_convolutions(1, 4, 0)


class Brightness(Detector):
    """The mean value; flagged above one half."""

    @property
    def limit(self) -> float:
        return 0.5

    def _score(self, images: Tensor) -> Tensor:
        return images.double().mean((1, 2, 3))


@differentiable_score.register
def _(detector: Brightness, images: Tensor) -> Tensor:
    return images.double().mean((1, 2, 3))


def labelled(count: int) -> tuple[Tensor, Tensor]:
    images = draw(count, seed=5)
    with torch.no_grad():
        return images, MODEL(images).argmax(1)


@pytest.mark.parametrize(
    "detector",
    [
        FeatureSqueezing(MODEL),
        FeatureSqueezing(MODEL, ["bit_depth_3", "median_3", "non_local_means_3_3_8"]),
        Explainer(MODEL, "integrated_gradients", n_points=3),
        Explainer(MODEL, "smooth_ig", n_points=3, hold_class=True, bins=16),
        Explainer(MODEL, "gradient"),
        MagNet(MODEL, epochs=1, temperatures=(2.0,)).fit(draw(64), draw(8, seed=7)),
    ],
    ids=["squeezing", "squeezers", "ig", "smooth", "gradient", "magnet"],
)
def test_surrogates_have_the_values_of_their_detectors(detector: Detector) -> None:
    images = draw(6, seed=2)
    found = differentiable_score(detector, images.clone().requires_grad_())
    # A pixel at the border of two bins may fall to either side.
    tolerance = 0.05 if isinstance(detector, Explainer) else 1e-5
    torch.testing.assert_close(found.detach(), detector.score(images), atol=tolerance, rtol=1e-5)


def test_slope_of_magnet_is_its_derivative() -> None:
    detector = MagNet(MODEL, epochs=1).fit(draw(64), draw(8, seed=7))
    image, step = draw(1, seed=2).requires_grad_(), 1e-2
    way = torch.sign(draw(1, seed=3) - 0.5)
    (slope,) = torch.autograd.grad(differentiable_score(detector, image).sum(), image)
    with torch.no_grad():
        ends = [differentiable_score(detector, image + side * step * way) for side in (1, -1)]
    measured = float(ends[0] - ends[1]) / (2 * step)
    assert float((slope * way).sum()) == pytest.approx(measured, rel=0.05)


def test_slope_of_a_median_goes_to_the_pixel_it_is() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3).div(10).requires_grad_()
    filtered = surrogates._squeezed(image, "median_3")
    (slope,) = torch.autograd.grad(filtered[0, 0, 1, 1], image)
    expected = torch.zeros(1, 1, 3, 3)
    expected[0, 0, 1, 1] = 1
    assert torch.equal(slope, expected)


def test_map_of_a_linear_network_has_its_weights_as_slope() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    detector = Explainer(model, "integrated_gradients", n_points=2)
    image = draw(1, side=4).requires_grad_()
    maps = surrogates._map(detector, image, torch.tensor([1]))
    (slope,) = torch.autograd.grad(maps.sum(), image)
    torch.testing.assert_close(slope.flatten(), model[1].weight[1].detach())  # type: ignore[arg-type]


def test_entropy_rises_along_its_slope() -> None:
    maps = draw(1, seed=4, side=8)[:, 0].pow(4).requires_grad_()
    before = surrogates._entropy(maps, 32)
    (slope,) = torch.autograd.grad(before.sum(), maps)
    after = surrogates._entropy(maps.detach() + 0.05 * slope.sign() * maps.detach(), 32)
    assert after.item() > before.item()


def test_two_ends_are_joined_by_hand() -> None:
    network, detector = torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    for fooled, quiet, strategy, expected in (
        (False, False, "sum", (1.6, 0.8)),
        (False, True, "sum", (1.0, 0.0)),
        (True, False, "sum", (0.6, 0.8)),
        (True, False, "selective", (0.6, 0.8)),
        (False, False, "selective", (1.0, 0.0)),
        (True, False, "orthogonal", (0.0, 0.8)),
        (False, False, "orthogonal", (0.64, -0.48)),
    ):
        ends = (each.clone().view(1, 1, 1, 2) for each in (network, detector))
        found = _joined(strategy, *ends, torch.tensor([fooled]), torch.tensor([quiet]))
        torch.testing.assert_close(found.flatten(), torch.tensor(expected))


def test_the_attack_stays_in_the_ball_and_repeats_itself() -> None:
    images, labels = labelled(5)
    options = {"eps": 0.4, "steps": 5, "restarts": 2}
    detector = Brightness(MODEL)
    result = adaptive_attack(detector, images, labels, **options)
    assert result.adversarial.dtype == torch.float32
    assert bool((result.linf <= 0.4).all())
    assert float(result.adversarial.min()) >= 0
    assert float(result.adversarial.max()) <= 1
    assert result.success.any()
    scores = detector.score(result.adversarial)
    fooled = result.success
    assert torch.equal(result.info["score"][fooled], scores[fooled])
    assert torch.equal(result.info["evaded"], fooled & (scores <= 0.5))
    assert result.info["evaded"].any()
    again = adaptive_attack(detector, images, labels, **options)
    alone = adaptive_attack(detector, images[3:4], labels[3:4], index=torch.tensor([3]), **options)
    other = adaptive_attack(detector, images, labels, seed=1, **options)
    assert torch.equal(result.adversarial, again.adversarial)
    assert torch.equal(result.adversarial[3:4], alone.adversarial)
    assert not torch.equal(result.adversarial, other.adversarial)


def test_who_evades_evades_with_more_restarts() -> None:
    model, images, labels = digits(12)
    detector = FeatureSqueezing(model).fit(images)
    few, many = (
        adaptive_attack(detector, images, labels, eps=0.3, steps=8, restarts=n).info["evaded"] for n in (1, 3)
    )
    assert bool((many | ~few).all())


def test_who_knows_the_detector_evades_it_and_who_does_not_is_seen() -> None:
    model, images, labels = digits(16)
    detector = MagNet(model, epochs=8, batch_size=8, learning_rate=0.02, fpr=0.02).fit(digits(300)[1])
    plain = pgd(model, images, labels, eps=0.2, early_stop=False, steps=20)
    knowing = adaptive_attack(detector, images, labels, eps=0.2, steps=30)
    # Of sixteen, 0 and 16.
    assert int((plain.success & ~detector.flagged(plain.adversarial)).sum()) <= 3
    assert int(knowing.info["evaded"].sum()) >= 12
    assert torch.equal(knowing.info["evaded"], knowing.success & ~detector.flagged(knowing.adversarial))


def test_what_does_not_fit_is_refused() -> None:
    images, labels = labelled(2)
    with pytest.raises(TypeError, match="detector must be"):
        adaptive_attack(MODEL, images, labels)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="restarts must be"):
        adaptive_attack(Brightness(MODEL), images, labels, restarts=0)
    with pytest.raises(UserError, match="eps must be"):
        adaptive_attack(Brightness(MODEL), images, labels, eps=2)
    with pytest.raises(UserError, match="must have a surrogate"):
        adaptive_attack(LayerDeviation(MODEL), images, labels, eps=0.9, limit=0.0)


def test_evasion_grows_with_the_ball_and_is_kept(tmp_path: Path) -> None:
    model, images, labels = digits(12)
    compared = ComparedDetectors(
        Store(tmp_path), Explainer(model, n_points=2), {"squeezing": FeatureSqueezing(model)}, images, images
    )
    options = {"steps": 6, "restarts": 1}
    fooled, evaded = compared.evasion("squeezing", images, labels, [0.05, 0.2, 0.4], **options)
    assert fooled.shape == evaded.shape == (12, 3)
    assert bool((evaded[:, 1:] >= evaded[:, :-1]).all())
    assert bool((fooled >= evaded).all())
    assert evaded[:, -1].sum() > evaded[:, 0].sum()
    again = compared.evasion("squeezing", images, labels, [0.05, 0.2, 0.4], **options)
    np.testing.assert_array_equal(evaded, again[1])
    answers = compared.answers("squeezing", images)
    detector = compared.fitted("squeezing")
    np.testing.assert_allclose(answers.score, detector.score(images).numpy())
    np.testing.assert_array_equal(answers.flagged, answers.score > detector.limit)
    of_rule = compared.answers("explainer", images[:4])
    np.testing.assert_array_equal(of_rule.flagged, of_rule.score >= 0)
