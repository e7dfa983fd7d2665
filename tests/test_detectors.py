"""What every detector keeps: the false-positive bound, clean images only, independence, no trace on the model."""

import copy
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from subjects import draw_12 as draw
from subjects import two_convolutions
from torch import Tensor, nn
from zoo import Returning

from xaicore import metrics
from xaicore.core.errors import UserError
from xaicore.core.fingerprint import digest
from xaicore.detectors import (
    DETECTORS,
    DeepNeighbours,
    Detector,
    Explainer,
    FeatureSqueezing,
    LocalDimension,
    MagNet,
    MCDropout,
    ShapSignature,
    SignatureDetector,
)

few = settings(max_examples=40, deadline=None)


def network(dropout: bool = False) -> nn.Sequential:
    """A network that is sure of its answers: with faint logits no squeezer would change any of them."""
    model = two_convolutions(1, 4, 0)
    with torch.no_grad():
        model[-1].weight.mul_(8)
    if dropout:
        model.insert(6, nn.Dropout(0.4))
    return model.eval()


MODEL = network()
MAKE: dict[str, Callable[[nn.Module], Detector]] = {
    **DETECTORS,
    "explainer": lambda model: Explainer(model, n_points=3),
    "deep_neighbours": lambda model: DeepNeighbours(model, k=4),
    "local_dimension": lambda model: LocalDimension(model, k=5),
    "shap": lambda model: Explainer(model, "shap", n_points=3),
    "deep_lift": lambda model: Explainer(model, "deep_lift"),
    "guided_grad_cam": lambda model: Explainer(model, "guided_grad_cam"),
    "magnet": lambda model: MagNet(model, epochs=1, temperatures=(10,), fpr=0.1),
    "feature_squeezing_nlm": lambda model: FeatureSqueezing(model, ("bit_depth_2", "non_local_means_5_3_20")),
    "signature": lambda model: SignatureDetector(model, preset="epsilon"),
    "mc_dropout": lambda _: MCDropout(network(dropout=True), n_samples=4),
}
"""Every registered detector as it is by default, or made smaller, and further variants."""
every = pytest.mark.parametrize("name", MAKE)


def fitted(name: str, model: nn.Module = MODEL) -> Detector:
    detector = MAKE[name](model)
    adversarial = draw(8, seed=3).pow(2) if detector.supervised else None
    return detector.fit(draw(10), draw(12, seed=2), adversarial)


@every
def test_scores_do_not_depend_on_neighbours(name: str) -> None:
    detector, images = fitted(name), draw(5, seed=4)
    scores = detector.score(images)
    assert scores.shape == (5,)
    assert scores.dtype == torch.float64
    assert torch.equal(scores.flip(0), detector.score(images.flip(0)))
    assert torch.equal(scores[3:4], detector.score(images[3:4]))
    assert torch.equal(detector.flagged(images), scores > detector.limit)


@every
def test_same_fit_same_scores_and_no_trace(name: str) -> None:
    model = network()
    model.train()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    images = draw(4, seed=4).requires_grad_()
    state, mode = torch.get_rng_state(), torch.is_grad_enabled()
    first, second = fitted(name, model), fitted(name, model)
    assert torch.equal(first.score(images), second.score(images))
    assert first.fingerprint == second.fingerprint
    assert torch.equal(state, torch.get_rng_state())
    assert torch.is_grad_enabled() == mode
    assert model.training
    assert all(module.training for module in model)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in first.model.modules()
    )
    assert images.grad is None


@every
@pytest.mark.parametrize("fpr", [0.0, 0.1, 0.34, 1.0])
def test_at_most_the_stated_share_of_calibration_images_is_above(name: str, fpr: float) -> None:
    detector = fitted(name)
    above = int((detector.score(draw(12, seed=2)) > detector.threshold(fpr)).sum())
    assert above <= 12 * fpr + 1e-9


# Of Monte Carlo dropout MAKE has a network of its own.
@pytest.mark.parametrize("name", [name for name in MAKE if name != "mc_dropout"])
def test_on_networks_of_other_people(name: str) -> None:
    viewed = network()
    viewed[5] = Viewed()
    apart = fitted(name, viewed).score(draw(5)) - fitted(name).score(draw(5))
    assert apart.abs().median() < 1e-5  # rounding may put a pixel of an image elsewhere in a ranking
    asked = []  # detectors such as MagNet without temperatures ask no network

    def wrapped(logits: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(logits)
        return logits, 2 * logits

    try:
        fitted(name, Returning(network(), wrapped))
    except UserError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert re.match(r"model must return logits .* not a tuple: [^\n]*$", refusal) or not asked


class Viewed(nn.Module):
    """``view``, which needs contiguous maps, in the place of ``flatten``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1)


class Told(Detector):
    """Scores an image by its first value, to test what the base does."""

    def _score(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, 0].double()


class Learning(Told):
    """Shows what it was given to learn from."""

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        self.seen = [clean, calibration, adversarial]


def with_scores(scores: list[float]) -> Tensor:
    return torch.tensor(scores, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


@few
@given(
    clean=st.lists(st.integers(0, 8), min_size=1, max_size=40),
    attacked=st.lists(st.integers(0, 8), min_size=1, max_size=10),
    fpr=st.integers(0, 100),
)
def test_threshold_is_that_of_the_metric(clean: list[int], attacked: list[int], fpr: int) -> None:
    scores = [value / 8 for value in clean]
    detector = Told(MODEL).fit(with_scores(scores))
    point = metrics.tpr_at_fpr(np.array(scores), np.array(attacked) / 8, fpr=fpr / 100)
    assert detector.threshold(fpr / 100) == point.threshold


def test_clean_detectors_never_see_adversarial_images() -> None:
    detector = Learning(MODEL)
    with pytest.raises(UserError, match="Learning takes no adversarial"):
        detector.fit(draw(3), adversarial=draw(3))
    with pytest.raises(UserError, match="fit this Learning"):
        detector.threshold(0.05)
    clean, held = draw(3), draw(2, seed=2)
    detector.fit(clean, held)
    assert torch.equal(detector.seen[0], clean)
    assert torch.equal(detector.seen[1], held)
    assert detector.seen[2] is None
    with pytest.raises(UserError, match="SignatureDetector needs adversarial"):
        SignatureDetector(MODEL).fit(draw(3))
    assert SignatureDetector.supervised
    assert not Explainer.supervised


@pytest.mark.parametrize(
    ("count", "fpr", "held"),
    [
        (38, 0.05, 19),
        (100, 0.05, 19),
        (101, 0.05, 19),
        (1000, 0.05, 199),
        (4, 0.4, 2),
        (30, 0.0, 5),
        (2, 1, 1),
    ],
)
def test_who_learns_holds_images_out_for_the_threshold(count: int, fpr: float, held: int) -> None:
    images = with_scores([number / count for number in range(count)])
    detector = Learning(MODEL, fpr=fpr).fit(images)
    known, apart = (each[:, 0, 0, 0].tolist() for each in detector.seen[:2])
    assert (len(known), len(apart)) == (count - held, held)
    assert sorted(known + apart) == images[:, 0, 0, 0].tolist()
    assert detector.threshold(0) == max(apart)
    again = Learning(MODEL, fpr=fpr).fit(images)
    assert torch.equal(again.seen[1], detector.seen[1])


def test_images_are_held_out_of_each_part_of_a_set() -> None:
    """A set may go round the classes, or through one after the other: neither leaves classes out."""
    detector = Learning(MODEL).fit(with_scores([number / 1000 for number in range(1000)]))
    chosen = (detector.seen[1][:, 0, 0, 0] * 1000).round().long()
    assert len(chosen) == 199
    for part in (chosen % 10, chosen // 100):
        assert int(part.bincount(minlength=10).min()) >= 8


def test_too_few_images_to_hold_some_out_are_refused() -> None:
    for count, fpr, least in ((37, 0.05, 38), (1, 1, 2), (1, 0, 2), (300, 0.001, 1998)):
        few_images = with_scores([0.5] * count)
        with pytest.raises(
            UserError, match=f"Learning needs at least {least} clean images, not {count}, "
        ) as caught:
            Learning(MODEL, fpr=fpr).fit(few_images)
        assert "\n" not in str(caught.value)
        Learning(MODEL, fpr=fpr).fit(few_images, few_images)
    Told(MODEL).fit(with_scores([0.5]))


def test_who_learns_is_known() -> None:
    learning = {name for name, make in MAKE.items() if make(MODEL).learns}
    features = {"deep_neighbours", "kernel_density", "local_dimension", "mahalanobis"}
    assert learning == features | {"magnet", "ml_loo", "sentinet", "shap_signature", "signature"}


def test_a_failed_fit_leaves_an_unfitted_detector() -> None:
    detector = FeatureSqueezing(MODEL).fit(draw(3))
    with pytest.raises(UserError, match="calibration"):
        detector.fit(draw(3), draw(3) * 2)
    magnet = MagNet(MODEL, epochs=1).fit(draw(4), draw(4, seed=2))
    with pytest.raises(UserError, match="even sides"):
        magnet.fit(draw(4)[..., :11], draw(4))
    with pytest.raises(UserError, match="fit this MagNet"):
        magnet.threshold(0.1)


def test_the_fingerprint_names_all_that_a_score_depends_on() -> None:
    base = Explainer(MODEL)
    other = copy.deepcopy(MODEL)
    with torch.no_grad():
        other[0].bias += 0.1
    prints = [
        base.fingerprint,
        Explainer(other).fingerprint,
        Explainer(MODEL, "gradient").fingerprint,
        Explainer(MODEL, strength=0.9).fingerprint,
        Explainer(MODEL, seed=1).fingerprint,
        Explainer(MODEL).fit(draw(2)).fingerprint,
        Explainer(MODEL).fit(draw(2, seed=2)).fingerprint,
        FeatureSqueezing(MODEL).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert base.fingerprint == Explainer(MODEL).fingerprint
    assert digest(base) == digest(Explainer(MODEL))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Explainer(MODEL, "lime"), "explanation must be one of smooth_ig"),
        (lambda: Explainer(MODEL, strength=0), "strength must be"),
        (lambda: Explainer(MODEL, bins=1), "bins must be"),
        (lambda: Explainer(MODEL, "shap").score(draw(1)), "fit this Explainer"),
        (lambda: MagNet(MODEL, fpr=2), "fpr must be"),
        (lambda: MagNet(MODEL, temperatures=(0,)), "temperatures must be"),
        (lambda: MagNet(MODEL).score(draw(1)), "fit this MagNet"),
        (lambda: FeatureSqueezing(MODEL, ("blur_3",)), "squeezers must be"),
        (lambda: FeatureSqueezing(MODEL, "median_2"), "squeezers must be a list"),
        (lambda: FeatureSqueezing(MODEL, ("median_0",)), "squeezers must be"),
        (lambda: FeatureSqueezing(MODEL, ("non_local_means_5_0_4",)), "squeezers must be"),
        (lambda: MCDropout(MODEL), "dropout layer with a rate above 0"),
        (lambda: ShapSignature(MODEL[:3]), "model must end in a linear layer"),
        (lambda: Explainer(MODEL).score(draw(1) + 1), "images must lie in"),
    ],
)
def test_mistakes_are_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
