"""Scores of answers, features and images against SciPy, scikit-learn and numbers by hand; slopes against differences."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import KernelDensity as Densities
from sklearn.neighbors import NearestNeighbors
from subjects import draw_12 as draw
from subjects import trained, two_convolutions
from torch import Tensor, nn

from xaicore import metrics
from xaicore.attacks import cw_l2
from xaicore.core.errors import UserError
from xaicore.detectors import (
    DeepNeighbours,
    Detector,
    Energy,
    ImageDenoising,
    ImageEntropy,
    KernelDensity,
    LeaveOneOut,
    LocalDimension,
    MagNet,
    Mahalanobis,
    Margin,
    MaxSoftmax,
    MCDropout,
    ShapSignature,
    SignatureDetector,
    adaptive_attack,
)
from xaicore.detectors.surrogates import differentiable_score

MODEL = two_convolutions(1, 4, 0)


def with_dropout() -> nn.Sequential:
    model = two_convolutions(1, 4, 0)
    model.insert(6, nn.Dropout(0.4))
    return model.eval()


def flat(features: int = 2, classes: int = 2) -> nn.Sequential:
    """A network whose penultimate features are the pixels themselves, and whose class is the brightest of the first."""
    linear = nn.Linear(features, classes, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(classes, features))
    return nn.Sequential(nn.Flatten(), linear).eval()


def points(values: np.ndarray) -> Tensor:
    """Points (N, D) of the unit cube as images (N, 1, 1, D)."""
    return torch.from_numpy(values).float()[:, None, None]


def cloud(count: int, dimensions: int = 2, seed: int = 0) -> Tensor:
    return points(np.random.default_rng(seed).random((count, dimensions)))


@pytest.mark.parametrize(
    ("detector", "expected"),
    [
        (MaxSoftmax(MODEL), lambda z: -np.log(softmax(z, axis=1).max(1))),
        (Margin(MODEL), lambda z: np.sort(z, axis=1)[:, -2] - np.sort(z, axis=1)[:, -1]),
        (Energy(MODEL), lambda z: -logsumexp(z, axis=1)),
    ],
    ids=["softmax", "margin", "energy"],
)
def test_scores_of_answers_are_scipys(
    detector: Detector, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    images = draw(7)
    with torch.no_grad():
        logits = MODEL(images).double().numpy()
    np.testing.assert_allclose(detector.score(images).numpy(), expected(logits), rtol=1e-5)


def test_maximum_softmax_tells_those_apart_whose_probability_is_one() -> None:
    sure = MaxSoftmax.of(torch.tensor([[40.0, 0.0], [60.0, 0.0]]).double())
    assert 0 < sure[1] < sure[0] < 1e-15


def test_density_is_scikit_learns_of_the_predicted_class() -> None:
    model, clean, images = flat(), cloud(60), cloud(9, seed=1)
    detector = KernelDensity(model, bandwidth=0.3).fit(clean, images)
    with torch.no_grad():
        known, asked = (model(each).argmax(1).numpy() for each in (clean, images))
    assert len(set(known)) == 2
    whole = clean.flatten(1).double().numpy()
    for number, image in enumerate(images.flatten(1).double().numpy()):
        width = 0.3 / np.sqrt(2)  # exp(-d²/σ²) is a normal density of variance σ²/2, without its constant
        fit = Densities(bandwidth=width).fit(whole[known == asked[number]])
        logarithm = fit.score_samples(image[None])[0] + np.log(2 * np.pi * width**2)
        assert detector.score(images)[number].item() == pytest.approx(-logarithm, rel=1e-5)


def test_density_takes_its_width_from_held_out_images() -> None:
    clean, held = cloud(40), cloud(15, seed=2)
    detector = KernelDensity(flat()).fit(clean, held)
    found, _ = NearestNeighbors(n_neighbors=2).fit(clean.flatten(1)).kneighbors(held.flatten(1))
    assert detector.bandwidth == pytest.approx(np.median(found[:, 1]), rel=1e-5)


def test_density_of_a_class_without_clean_images_is_that_of_all() -> None:
    model = flat()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))  # the second class where x > y
    clean = cloud(30) * torch.tensor([0.5, 0.5]) + torch.tensor([0.0, 0.5])
    detector = KernelDensity(model, bandwidth=0.5).fit(clean, clean)
    image = points(np.array([[0.9, 0.5]]))
    squares = ((clean - image).flatten(1).double() ** 2).sum(1).numpy() / 0.5**2
    assert detector.score(image).item() == pytest.approx(-np.log(np.exp(-squares).mean()), rel=1e-5)


def test_local_dimension_is_the_formula_over_scikit_learns_neighbours() -> None:
    clean, images = cloud(50, 5), cloud(6, 5, seed=1)
    detector = LocalDimension(flat(5), k=7).fit(clean, images)
    near, _ = NearestNeighbors(n_neighbors=7).fit(clean.flatten(1)).kneighbors(images.flatten(1))
    expected = [-1 / np.mean([np.log(r / row[-1]) for r in row]) for row in near]
    np.testing.assert_allclose(detector.score(images).numpy(), expected, rtol=1e-4)


def test_local_dimension_of_a_plane_is_two_and_of_a_cube_more() -> None:
    plane = np.random.default_rng(0).random((2000, 6))
    plane[:, 2:] = 0.5
    cube = np.random.default_rng(1).random((2000, 6))
    found = []
    for known in (plane, cube):
        detector = LocalDimension(flat(6), k=100).fit(points(known[100:]), points(known[:100]))
        found.append(float(detector.score(points(known[:100])).median()))
    assert found[0] == pytest.approx(2, abs=0.3)
    assert found[1] > 4


def test_mahalanobis_is_scikit_learns() -> None:
    model, clean, images = flat(5, 3), cloud(80, 5), cloud(6, 5, seed=1)
    detector = Mahalanobis(model).fit(clean, images)
    whole, asked = clean.flatten(1).double().numpy(), images.flatten(1).double().numpy()
    with torch.no_grad():
        classes = model(clean).argmax(1).numpy()
    means = {label: whole[classes == label].mean(0) for label in set(classes)}
    spread = EmpiricalCovariance(assume_centered=True).fit(
        whole - np.array([means[label] for label in classes])
    )
    expected = np.min([spread.mahalanobis(asked - mean) for mean in means.values()], axis=0)
    np.testing.assert_allclose(detector.score(images).numpy(), expected, rtol=1e-5)


def test_mahalanobis_bears_features_that_never_differ() -> None:
    clean = np.random.default_rng(0).random((40, 4))
    clean[:, 3] = 0.25
    with_, without = (Mahalanobis(flat(d)) for d in (4, 3))
    for each in (with_, without):
        with torch.no_grad():
            each.model[1].weight.zero_()
        known = points(clean[:, : each.model[1].in_features])
        each.fit(known, known)
    images = np.random.default_rng(1).random((5, 4))
    np.testing.assert_allclose(
        with_.score(points(images)).numpy(), without.score(points(images[:, :3])).numpy(), rtol=1e-6
    )


def test_deep_neighbours_are_scikit_learns_at_unit_length() -> None:
    clean, images = cloud(50, 5), cloud(6, 5, seed=1)
    detector = DeepNeighbours(flat(5), k=4).fit(clean, images)
    unit, asked = (each.flatten(1) / each.flatten(1).norm(dim=1, keepdim=True) for each in (clean, images))
    near, _ = NearestNeighbors(n_neighbors=4).fit(unit).kneighbors(asked)
    np.testing.assert_allclose(detector.score(images).numpy(), near[:, 3], rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        KernelDensity,
        Mahalanobis,
        LocalDimension,
        lambda model: DeepNeighbours(model, k=1),
        lambda model: MagNet(model, fpr=0.05, epochs=1),
        ShapSignature,
        lambda model: SignatureDetector(model, preset="epsilon"),
    ],
    ids=["density", "mahalanobis", "dimension", "neighbours", "magnet", "shap", "relevance"],
)
def test_new_clean_images_are_flagged_at_the_nominal_rate(make: Callable[[nn.Module], Detector]) -> None:
    """Without images for the threshold, over five fits on 200; the rate of one has a standard deviation of 0.034."""
    model, found = flat(16, 3), []
    with torch.no_grad():
        model[1].weight.copy_(cloud(3, 16, 7)[:, 0, 0] - 0.5)
    for seed in range(5):
        clean, new = cloud(200, 16, seed).view(-1, 1, 4, 4), cloud(300, 16, 100 + seed).view(-1, 1, 4, 4)
        detector = make(model)
        attacked = cloud(100, 16, 200 + seed).view(-1, 1, 4, 4).pow(2) if detector.supervised else None
        found.append(
            float(
                detector.fit(clean, adversarial=attacked)
                .score(new)
                .gt(detector.threshold(0.05))
                .float()
                .mean()
            )
        )
    assert 0.01 < np.mean(found) < 0.1


class TwoHeads(nn.Module):
    """Logits of the head ``fc``, and another head on other features."""

    def __init__(self, order: str, returned: Callable[[nn.Linear, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.returned = returned
        with torch.random.fork_rng():
            torch.manual_seed(0)
            heads = {"fc": nn.Linear(4, 3), "other": nn.Linear(4, 3)}
        for name in order.split():
            setattr(self, name, heads[name])

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        before = self.other(0 * x)
        logits = self.returned(self.fc, x, before)
        self.other(1 - x)
        return logits


@pytest.mark.parametrize("order", ["fc other", "other fc"])
@pytest.mark.parametrize(
    "returned",
    [
        lambda fc, x, _: fc(x),
        lambda fc, x, _: fc(x[:, None]).flatten(1),
        lambda fc, x, _: fc(x) * (1 + 1e-7),
        lambda fc, x, _: (fc(x.flip(1)), fc(x), fc(1 - x))[1],
    ],
    ids=["plain", "flattened", "rounded", "called thrice"],
)
def test_features_are_those_of_the_layer_that_gives_the_logits(
    order: str, returned: Callable[[nn.Linear, Tensor, Tensor], Tensor]
) -> None:
    """Whatever other layers are registered after it, or run after it, and in each of several passes."""
    model, images = TwoHeads(order, returned).eval(), cloud(300, 4)
    features, classes = KernelDensity(model).features(images)
    assert torch.equal(features, images.flatten(1).double())
    with torch.no_grad():
        assert torch.equal(classes, model(images).argmax(1))
    assert float(Mahalanobis(model).fit(images).score(images).median()) > 1
    signature = ShapSignature(model).fit(images[:100], images[100:], images[:50].pow(2))
    values = signature.features(images[:5]).reshape(5, 3, 4).sum(2)
    with torch.no_grad():
        change = model(images[:5]) - model(images[:100]).mean(0)
    np.testing.assert_allclose(values, change.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "returned",
    [
        lambda fc, x, _: (fc(x) + fc(x.flip(1))) / 2,
        lambda fc, x, before: fc(x) + before,
        lambda fc, x, _: fc(x).log_softmax(1),
        lambda fc, x, before: fc(x) if bool(x[0, 0] < 0.5) else before,
    ],
    ids=["mean of two", "sum of heads", "probabilities", "one or the other"],
)
def test_logits_that_no_layer_gives_are_refused(
    returned: Callable[[nn.Linear, Tensor, Tensor], Tensor],
) -> None:
    images = torch.cat([cloud(300, 4) * 0.4, cloud(300, 4) * 0.4 + 0.6])
    model = TwoHeads("fc other", returned).eval()
    for detector, attacked in ((Mahalanobis(model), None), (ShapSignature(model), images)):
        with pytest.raises(
            UserError, match="with nothing behind it but a change of shape: wrap the network"
        ) as caught:
            detector.fit(images, images, attacked)
        assert "\n" not in str(caught.value)


def test_scores_of_images_by_hand() -> None:
    images = torch.zeros(2, 1, 12, 12)
    images[1, 0, :, 6:] = 1.0
    assert ImageEntropy(MODEL).score(images).tolist() == [0.0, 1.0]
    assert ImageDenoising(MODEL).score(images).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert float(ImageDenoising(MODEL).score(draw(1))) > 0.01


FITTED = [
    MaxSoftmax(MODEL),
    Margin(MODEL),
    Energy(MODEL),
    KernelDensity(MODEL).fit(draw(40), draw(20, seed=5)),
    LocalDimension(MODEL, k=6).fit(draw(40), draw(20, seed=5)),
    Mahalanobis(MODEL).fit(draw(200)),
    DeepNeighbours(MODEL, k=6).fit(draw(40), draw(20, seed=5)),
    ShapSignature(MODEL).fit(draw(40), adversarial=draw(20, seed=3).pow(2)),
    ShapSignature(MODEL, all_classes=False).fit(draw(40), adversarial=draw(20, seed=3).pow(2)),
    MCDropout(with_dropout(), n_samples=6),
    LeaveOneOut(MODEL),
    LeaveOneOut(MODEL, dispersion="std"),
    ImageEntropy(MODEL),
    ImageDenoising(MODEL),
]
each = pytest.mark.parametrize("detector", FITTED, ids=lambda one: type(one).__name__)


@each
def test_surrogates_have_the_values_of_their_detectors(detector: Detector) -> None:
    images = draw(6, seed=2)
    found = differentiable_score(detector, images.clone().requires_grad_())
    torch.testing.assert_close(found.detach(), detector.score(images), atol=1e-5, rtol=1e-4)


@each
def test_scores_fall_against_their_slopes(detector: Detector) -> None:
    """A small step against the slope lowers the detector's own score, as much as the slope says where it is exact."""
    image = draw(1, seed=2).requires_grad_()
    (slope,) = torch.autograd.grad(differentiable_score(detector, image).sum(), image)
    assert float(slope.abs().max()) > 0
    steep = float(slope.square().sum())
    size = min(3e-3 / float(slope.abs().max()), 0.01 * float(detector.score(image).abs()) / steep)
    ends = [detector.score((image + side * size * slope).detach().clamp(0, 1)) for side in (-1, 1)]
    if isinstance(detector, (ImageEntropy, ImageDenoising)):  # rounded into bins, and cleaned as given
        assert float(ends[0]) <= float(ends[1]) + 1e-3
        return
    assert float(ends[1] - ends[0]) == pytest.approx(2 * size * steep, rel=0.15)


def test_distance_in_features_tells_an_attack_that_stops_at_the_border() -> None:
    model, images, labels = trained("coarse-digits")
    chosen = torch.linspace(0, len(labels) - 1, 40).long()
    attacked = cw_l2(model, images[chosen], labels[chosen], steps=20, search_steps=3)
    others = torch.ones(len(labels), dtype=torch.bool)
    others[chosen] = False
    for detector in (KernelDensity(model), Margin(model)):
        detector.fit(images[others])
        found = detector.score(images[chosen]), detector.score(attacked.adversarial[attacked.success])
        assert metrics.auroc(*found) > 0.75


def test_who_knows_the_density_evades_it() -> None:
    model, images, labels = trained("coarse-digits")
    chosen = torch.linspace(0, len(labels) - 1, 12).long()
    detector = KernelDensity(model).fit(images)
    result = adaptive_attack(detector, images[chosen], labels[chosen], eps=0.3, steps=20)
    assert int(result.info["evaded"].sum()) >= 8
    assert torch.equal(result.info["evaded"], result.success & ~detector.flagged(result.adversarial))


def test_mistakes_are_one_line() -> None:
    with pytest.raises(
        UserError, match="k must be at most the number of clean images to learn from, 5, not 6"
    ):
        DeepNeighbours(MODEL, k=6).fit(draw(5), draw(5))
    with pytest.raises(UserError, match="KernelDensity needs at least 2 clean images to learn from, not 1"):
        KernelDensity(MODEL).fit(draw(1), draw(5))
    for clean in (points(np.eye(3)), points(np.eye(3)[:1])):  # one of each class
        with pytest.raises(
            UserError, match=f"2 clean images of one predicted class.*one of each of {len(clean)}"
        ):
            Mahalanobis(flat(3, 3)).fit(clean, clean)
    with pytest.raises(UserError, match="bandwidth must be"):
        KernelDensity(MODEL, bandwidth=0)
    with pytest.raises(UserError, match="fit this Mahalanobis"):
        Mahalanobis(MODEL).score(draw(1))
    with pytest.raises(UserError, match="end in a linear layer"):
        LocalDimension(MODEL[:3])
    with pytest.raises(UserError, match="gives the logits"):
        Mahalanobis(nn.Sequential(MODEL, nn.ConstantPad1d((0, 1), 0.0))).fit(draw(5), draw(5))
