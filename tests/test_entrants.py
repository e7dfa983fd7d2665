"""Who enters the arena, and what is said of an attacker who knows them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from subjects import trained
from torch import Tensor, nn

from xaicore import metrics, models
from xaicore.attacks import bim
from xaicore.core.errors import UserError
from xaicore.detectors import (
    DETECTORS,
    Detector,
    Explainer,
    MCDropout,
    ShapSignature,
    SignatureDetector,
    adaptive_attack,
)
from xaicore.detectors.surrogates import differentiable_score
from xaicore.run.params import ArenaParameters
from xaicore.run.store import Store
from xaicore.studies import arena, entrants


def small(**changes: object) -> ArenaParameters:
    given = {
        "explanations": ["integrated_gradients", "deep_lift"],
        "points": 2,
        "masks": 2,
        "n_magnet": 60,
        "magnet_epochs": 1,
        "retraining_epochs": 1,
        "robust_epochs": 1,
        "robust_steps": 1,
        "denoiser_epochs": 1,
        "epochs": 1,
        "leave_one_out": True,
    }
    return ArenaParameters.check({**given, **changes})


@pytest.fixture(scope="module")
def setting() -> arena.Setting:
    """Digits of 14 x 14 pixels and a network of the arena's kind."""
    _, images, labels = trained("coarse-digits")
    images, labels = images[:200], labels[:200]
    untrained = models.load(
        "small_cnn", classes=10, channels=1, input_size=images.shape[2], width=0.25, dropout=0.3
    )
    recipe = models.Recipe(epochs=6, learning_rate=5e-3, batch_size=16)
    network = models.train(untrained, images, labels, recipe=recipe).model
    right = models.predict(network, images).argmax(1) == labels
    sets = (images, labels), (images[:40], labels[:40])
    return arena.Setting(untrained, network, *sets, images[right], labels[right], right, (images, labels))


def learned(setting: arena.Setting) -> entrants.Learned:
    images, labels = setting.images[:24], setting.labels[:24]
    return entrants.learned_from(bim(setting.network, images, labels, eps=0.3), images)


def test_what_is_learned_are_the_examples_that_fool() -> None:
    images = torch.rand(3, 1, 4, 4)
    result = SimpleNamespace(
        adversarial=images + 1,
        success=torch.tensor([True, True, False]),
        info={"initially_wrong": torch.tensor([True, False, False])},
    )
    found = entrants.learned_from(result, images)  # type: ignore[arg-type]
    assert torch.equal(found.examples, images[1:2] + 1)
    assert torch.equal(found.originals, images[1:2])
    assert torch.equal(found.adversarial, images + 1)


def test_every_detector_enters_and_says_whether_one_can_know_it(setting: arena.Setting) -> None:
    params = small()
    magnet = entrants.fitted_magnet(params, setting)
    entered = {
        title: detector
        for part in entrants.fitted_detectors(params, setting, learned(setting), magnet).values()
        for title, detector in part.items()
    }
    for_patches = {DETECTORS["sentinet"]}  # of which the arena has none
    assert {type(detector) for detector in entered.values()} == set(DETECTORS.values()) - for_patches
    images = setting.images[:4]
    for title, detector in entered.items():
        why = arena.why_not(detector)
        scores = detector.score(images)
        assert scores.shape == (4,), title
        assert bool(scores.isfinite().all()), title
        if why == "no surrogate":
            with pytest.raises(UserError, match="must have a surrogate"):
                differentiable_score(detector, images)
            continue
        detector.model.eval()
        found = differentiable_score(detector, images.clone().requires_grad_())
        assert found.requires_grad == (not why), title
    assert arena.why_not(entered["leave one out, IQR"], 0.0) == "its limit is 0, the least score there is"
    assert not arena.why_not(entered["leave one out, deviation"], 0.01)
    reasons = {title: arena.why_not(each) for title, each in entered.items() if arena.why_not(each)}
    assert reasons == {
        "EXPLAINER, DeepLIFT": "no slope: its map counts as constant",
        "ML-LOO": "no surrogate",
        "layers' Grad-CAM": "no surrogate",
        "relevance signature": "no surrogate",
    }


def test_who_knows_keeps_the_limit_of_the_tables(setting: arena.Setting, tmp_path: Path) -> None:
    store, images, labels = Store(tmp_path), setting.images[:8], setting.labels[:8]
    detector = MCDropout(setting.network, n_samples=3)
    clean = detector.score(setting.images).numpy()
    limit = arena.limit(clean, 0.02)
    assert limit == metrics.tpr_at_fpr(clean, clean, fpr=0.02).threshold
    options = {"limit": limit, "eps": 0.4, "steps": 8, "restarts": 2}
    found, again = (arena.known(store, "dropout", detector, images, labels, **options) for _ in range(2))
    assert store.reused == 1
    assert torch.equal(found.adversarial, again.adversarial)
    evaded = found.info["evaded"]
    assert bool(evaded.any())
    wrong = models.predict(setting.network, found.adversarial).argmax(1) != labels
    assert torch.equal(evaded, wrong & (detector.score(found.adversarial) <= limit))
    asked = arena.known(store, "dropout", detector, images, labels, follow=False, **options)
    wrong = models.predict(setting.network, asked.adversarial).argmax(1) != labels
    assert torch.equal(asked.info["evaded"], wrong & (detector.score(asked.adversarial) <= limit))


def test_one_who_asks_stops_at_the_first_point_that_passes(setting: arena.Setting) -> None:
    """Without a limit to keep, at the first that fools the network; it never needs a slope of the detector."""
    images, labels = setting.images[:6], setting.labels[:6]
    detector = SignatureDetector(setting.network)
    detector._score = lambda given: -given.double().sum((1, 2, 3)).cpu()  # type: ignore[method-assign]
    options: dict[str, float] = {"eps": 0.4, "steps": 8, "restarts": 2}
    first = adaptive_attack(detector, images, labels, follow=False, limit=float("inf"), **options)  # type: ignore[arg-type]
    never = adaptive_attack(detector, images, labels, follow=False, limit=-float("inf"), **options)  # type: ignore[arg-type]
    assert first.success.any()
    assert torch.equal(first.info["evaded"], first.success)
    assert not never.info["evaded"].any()
    assert (never.queries == 2 * 9).all()
    assert (first.queries <= never.queries).all()
    assert (never.info["score"] <= first.info["score"])[first.success].all()
    assert float((never.adversarial - images).abs().max()) <= 0.4 + 1e-6


def test_defences_are_classifiers_with_gradients(setting: arena.Setting, tmp_path: Path) -> None:
    params, store = small(), Store(tmp_path)
    magnet = entrants.fitted_magnet(params, setting)
    network = setting.network
    attacked = {part: bim(network, *getattr(setting, part), eps=0.3) for part in ("train", "validation")}
    given = params, store, setting, learned(setting), magnet, attacked
    found, again = entrants.trained_defences(*given), entrants.trained_defences(*given)
    assert next(iter(found)) == "none"
    assert store.reused >= 4
    images = setting.images[:3]
    plain = found["none"](images)
    for title, model in found.items():
        given_images = images.clone().requires_grad_()
        logits = model(given_images)
        assert logits.shape == plain.shape
        (slope,) = torch.autograd.grad(logits.sum(), given_images)
        assert float(slope.abs().max()) > 0, title
        torch.testing.assert_close(again[title](images), logits.detach())
        assert title == "none" or not torch.equal(logits, plain), title
    torch.testing.assert_close(found["input rounding"](images), setting.network(images.round()))


def test_shap_signature_is_known_by_its_own_decision_value(setting: arena.Setting) -> None:
    taught = learned(setting)
    detector = ShapSignature(setting.network).fit(taught.clean, taught.clean, taught.adversarial)
    found = differentiable_score(detector, setting.images[:5])
    np.testing.assert_allclose(found.detach(), detector.score(setting.images[:5]), atol=1e-5)
    assert not arena.why_not(detector)
    assert arena.why_not(SignatureDetector(setting.network))
    assert arena.why_not(Explainer(setting.network, "grad_cam"))


def test_an_unknown_detector_has_no_surrogate() -> None:
    class Blank(Detector):
        def _score(self, images: Tensor) -> Tensor:
            return images.sum((1, 2, 3)).double()

    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert arena.why_not(Blank(model)) == "no surrogate"
