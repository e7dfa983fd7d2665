"""Leaving pixels out one by one: by hand, by Captum, by SciPy and scikit-learn; what it finds on black ground."""

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from scipy.special import expit, softmax
from scipy.stats import iqr, median_abs_deviation
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from subjects import coarse_digits, trained, two_convolutions
from subjects import draw_12 as draw
from torch import Tensor, nn

from xaicore import metrics
from xaicore.core.errors import UserError
from xaicore.detectors import LeaveOneOut, MultiLayerLeaveOneOut, adaptive_attack

MODEL = two_convolutions(1, 4, 0)


def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).double().softmax(1)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_linear_network_by_hand(sign: int) -> None:
    """Of logits (w x, 0) the first class has the probability expit(w x), the second, predicted below 0, expit(-w x)."""
    linear = nn.Linear(5, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[2.0, -1.0, 5.0, 1.0, -0.5], [0.0] * 5]) * sign)
    image = torch.tensor([1.0, 0.5, 0.0, 1.0, 1.0]).view(1, 1, 1, 5)  # w x = sign * 2
    expected = expit(2) - expit(np.array([0, 2.5, 2, 1, 2.5]))
    model = nn.Sequential(nn.Flatten(), linear)
    found = LeaveOneOut(model).attributions(image[0])
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-7)
    assert found[2, 0] == 0
    for dispersion, value in {
        "iqr": iqr(expected),
        "mad": median_abs_deviation(expected),
        "std": expected.std(),
    }.items():
        assert LeaveOneOut(model, dispersion=dispersion).score(image).item() == pytest.approx(value, rel=1e-6)


def test_attributions_are_captums() -> None:
    model, images, _ = coarse_digits(3)
    noisy = (images + 0.1 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    for given in (images, noisy):
        chosen = model(given).argmax(1)
        peer = FeatureAblation(lambda x: probabilities(model, x))
        expected = peer.attribute(given, target=chosen, baselines=0, perturbations_per_eval=32)
        found = torch.stack([LeaveOneOut(model).attributions(image)[:, 0] for image in given])
        assert float(expected.abs().max()) > 1e-4
        torch.testing.assert_close(found, expected.flatten(1).double(), atol=2e-6, rtol=0, check_stride=False)


def left_out(images: Tensor) -> list[np.ndarray]:
    """The attributions to all probabilities and all neurons of ``MODEL``, each copy by itself and each layer by hand."""

    def outputs(image: Tensor) -> np.ndarray:
        first = MODEL[:2](image[None])
        second = MODEL[2:5](first)
        means = [each[0].mean((1, 2)).double().numpy() for each in (first, second)]
        return np.concatenate([softmax(MODEL[5:](second)[0].double().numpy()), *means])

    rows = []
    with torch.no_grad():
        for image in images:
            copies = image.repeat(144, 1, 1, 1)
            copies.view(144, 144).fill_diagonal_(0)
            rows.append(np.stack([outputs(image) - outputs(copy) for copy in copies]))
    return rows


def test_ml_loo_is_a_logistic_regression_on_the_ranges_of_all_neurons() -> None:
    clean, attacked, asked = draw(6), draw(5, seed=3).pow(2), draw(2, seed=4)
    detector = MultiLayerLeaveOneOut(MODEL).fit(clean, clean, attacked)
    points = np.stack([iqr(each, axis=0) for each in left_out(torch.cat([clean, attacked, asked]))])
    machine = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    machine.fit(points[:11], [0] * 6 + [1] * 5)
    for image, expected in zip(asked, left_out(asked), strict=True):
        np.testing.assert_allclose(detector.attributions(image), expected, atol=1e-6)
    np.testing.assert_allclose(detector.score(asked), machine.decision_function(points[11:]), atol=1e-2)


def test_new_clean_digits_are_flagged_at_the_rate_asked_for() -> None:
    model, images, _ = trained("coarse-digits")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    fitted, new = images[order[:150]], images[order[150:300]]
    detector = LeaveOneOut(model, dispersion="std", fpr=0.2).fit(fitted)
    rate = float(detector.flagged(new).double().mean())
    assert 0.06 < rate < 0.34  # two draws of 150: three standard deviations are 0.14


def test_the_range_sees_black_ground_and_the_deviation_what_is_on_it() -> None:
    """Fewer than a quarter of the values of a thin digit on black differ from 0, and with noise nearly half do."""
    model, images, _ = trained("coarse-digits")
    thin = images[(images > 0).double().mean((1, 2, 3)) < 0.25][:20]
    noise = 0.02 * torch.randn(thin.shape, generator=torch.Generator().manual_seed(0))
    noisy = (thin + noise).clamp(0, 1)
    assert len(thin) == 20
    assert not LeaveOneOut(model).score(thin).any()
    assert bool((LeaveOneOut(model).score(noisy) > 0).all())
    deviation = LeaveOneOut(model, dispersion="std")
    found = deviation.score(thin), deviation.score(noisy)
    assert abs(metrics.auroc(*found) - 0.5) < 0.2
    assert LeaveOneOut(model).score(torch.zeros(1, 1, 14, 14)).item() == 0


def test_who_knows_the_deviation_evades_it() -> None:
    """The score of a median clean digit at most; without the slope of the score no digit comes near it."""
    model, images, labels = coarse_digits(60)
    detector = LeaveOneOut(model, dispersion="std", fpr=0.5).fit(images[6:])
    result = adaptive_attack(detector, images[:6], labels[:6], eps=0.3, steps=10, restarts=1)
    assert int(result.info["evaded"].sum()) >= 3
    assert torch.equal(result.info["evaded"], result.success & ~detector.flagged(result.adversarial))


class Functional(nn.Module):
    """A network whose activation is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(x.flatten(1) - 0.5))


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UserError, match="dispersion must be one of iqr, mad, std, not 'range'"):
        LeaveOneOut(MODEL, dispersion="range")
    with pytest.raises(UserError, match="needs adversarial examples"):
        MultiLayerLeaveOneOut(MODEL).fit(draw(3), draw(3))
    with pytest.raises(UserError, match="fit this MultiLayerLeaveOneOut"):
        MultiLayerLeaveOneOut(MODEL).score(draw(1))
    model = Functional()
    assert LeaveOneOut(model).score(draw(2)).shape == (2,)
    with pytest.raises(UserError, match=r"activations as modules.*for its neurons to be found") as caught:
        MultiLayerLeaveOneOut(model).fit(draw(3), draw(3), draw(3))
    assert "\n" not in str(caught.value)
