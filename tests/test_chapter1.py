"""What chapter 1 needs beside the rooms: heads, pixels without a search, features without places, printed counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from xaicore import attribution, metrics, models
from xaicore.attacks import one_pixel
from xaicore.book.claims.schema import load_claims
from xaicore.book.running.editions import load_edition
from xaicore.core.errors import UserError
from xaicore.models import Classifier, Recipe
from xaicore.run.engine import get
from xaicore.run.params import P1Parameters
from xaicore.run.store import Store
from xaicore.studies.heads import one_logit, seen_from_answer
from xaicore.studies.pasted import GREY, pasted, shapes
from xaicore.studies.pixel_searches import cited_pixels, harmless_pixels, random_pixels
from xaicore.studies.printed_counts import two_proportions
from xaicore.studies.signatures import PEAKS, balanced, placeless

ROOT = Path(__file__).resolve().parent.parent
PRINTED = load_claims(ROOT / "claims")[0].numbers


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(12, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network(images: torch.Tensor) -> Classifier:
    return _divided(images)


def _divided(images: torch.Tensor) -> Classifier:
    """A network of two classes whose border lies in the middle of the images."""
    model = models.load("small_cnn", classes=["a", "b"], width=0.25, seed=0, channels=1, input_size=32)
    logits = models.predict(model, images)
    with torch.no_grad():
        _last(model).bias[0] += (logits[:, 1] - logits[:, 0]).sort().values[5:7].mean()
    return model


def _last(model: Classifier) -> nn.Linear:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def _centred(model: Classifier) -> Classifier:
    """The network with the logits (-d/2, d/2), from the formula."""
    other = one_logit(model)
    last, weight, bias = _last(other), *(p.detach() for p in _last(model).parameters())
    with torch.no_grad():
        last.weight.copy_(torch.stack([weight[0] - weight[1], weight[1] - weight[0]]) / 2)
        last.bias.copy_(torch.stack([bias[0] - bias[1], bias[1] - bias[0]]) / 2)
    return other


def test_one_logit_decides_as_two_and_is_their_difference(network, images):
    before, after = models.predict(network, images), models.predict(one_logit(network), images)
    assert set(before.argmax(1).tolist()) == {0, 1}
    torch.testing.assert_close(after, torch.stack([0 * before[:, 0], before[:, 1] - before[:, 0]], 1))
    assert torch.equal(after.argmax(1), before.argmax(1))
    assert torch.equal(models.predict(network, images), before), "the model itself stays as it is"


def test_relevance_of_one_logit_sums_to_it_and_its_sign_is_the_class(network, images):
    single = one_logit(network)
    for module in single.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
            nn.init.zeros_(module.bias)
    maps = attribution.lrp(single, images, 1, preset="z")
    torch.testing.assert_close(
        maps.sum((1, 2, 3)), models.predict(single, images)[:, 1], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("preset", ["preset-a-flat", "epsilon"])
def test_the_centred_head_is_the_one_logit_seen_from_the_answer(network, images, preset):
    answers = models.predict(network, images).argmax(1)
    turned = seen_from_answer(attribution.lrp(one_logit(network), images, 1, preset=preset), answers)
    direct = attribution.lrp(_centred(network), images, answers, preset=preset)
    np.testing.assert_allclose(attribution.signatures(turned), attribution.signatures(direct), atol=1e-4)
    assert (metrics.rank_correlation(turned, direct) > 0.999).all()


def test_other_ends_of_a_network_are_refused(images):
    with pytest.raises(UserError, match=r"does not end in a linear layer of two outputs.*heads=\['two'\]"):
        one_logit(
            models.load("small_cnn", classes=["a", "b", "c"], width=0.25, seed=0, channels=1, input_size=32)
        )
    with pytest.raises(UserError, match="does not end in a linear layer"):
        one_logit(models.load("squeezenet1_0", classes=["a", "b"], seed=0, channels=3, input_size=64))


def test_random_pixels_are_the_first_population_of_the_search(images, tmp_path):
    images = 0.5 + 0.02 * (images - 0.5)
    network = _divided(images)
    labels = models.predict(network, images).argmax(1)
    labels[0] = 1 - labels[0]
    found = random_pixels(get(store=Store(tmp_path)), network, images, labels, tries=40, seed=3)
    searched = one_pixel(network, images, labels, population=40, generations=1, seed=3)
    first = searched.info["queries_to_success"] <= 40
    assert torch.equal(found.success & ~found.info["initially_wrong"], first)
    assert first.any(), "the border lies among these images"
    assert torch.equal(found.adversarial[first], searched.adversarial[first])
    assert torch.equal(found.adversarial[0], images[0]), "wrong from the start"
    assert (found.l0[1:] <= 1).all()


def test_the_cited_search_is_differential_evolution_from_the_best(images, tmp_path):
    images = 0.5 + 0.2 * (images - 0.5)
    network, engine = _divided(images), get(store=Store(tmp_path))
    labels = models.predict(network, images).argmax(1)
    found = cited_pixels(engine, network, images, labels, population=20, generations=8, seed=3)
    first = random_pixels(engine, network, images, labels, tries=20, seed=3)
    assert (found.l0 <= 1).all()
    assert ((found.adversarial >= 0) & (found.adversarial <= 1)).all()
    history = found.info["history"].double()
    steps = history.diff(dim=1).nan_to_num(1.0)
    assert (steps >= 0).all(), "the best never gets worse"
    assert (steps[:, 0] > 0).any()
    at_once = first.info["queries_to_success"] <= 20
    assert torch.equal(found.info["queries_to_success"] <= 20, at_once), "the first population is the same"
    assert found.success.sum() > first.success.sum(), "the search is better than chance"
    assert (found.queries[~found.success] == 20 * 9).all()


class _Sum(nn.Module):
    """Class 1 where the upper half is brighter than a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = images[:, :, :4].sum((1, 2, 3)) - self.limit
        return torch.stack([0 * size, size], 1)


def _dark(limit: float) -> Classifier:
    options = {"classes": ["a", "b"], "name": "sum", "mean": [0.0], "std": [1.0], "input_size": 8}
    return Classifier(_Sum(limit), **options)


def test_a_harmless_pixel_has_the_colour_and_leaves_the_answer():
    images, colours, answers = torch.zeros(20, 1, 8, 8), torch.full((20, 1), 0.9), torch.zeros(20, dtype=int)
    given = harmless_pixels(_dark(0.5), images, colours, answers, tries=30, seed=1)
    assert given.found.all()
    assert (given.pixels[:, 0] >= 4).all(), "a bright pixel above would turn the answer"
    row, column = given.pixels.T
    assert (given.images[torch.arange(20), 0, row, column] == 0.9).all()
    torch.testing.assert_close(given.images.sum((1, 2, 3)), torch.full((20,), 0.9))
    none = harmless_pixels(_dark(-0.5), images, colours, answers, tries=3)
    assert not none.found.any()
    assert torch.equal(none.images, images)


@pytest.mark.parametrize("size", [32, 64, 112])
def test_bars_and_patch_cover_a_quarter(size):
    where = shapes(size)
    assert where["bars"].double().mean() == pytest.approx(0.25)
    assert where["patch"].double().mean() == pytest.approx(0.25, abs=0.02)
    assert (where["bars"] == where["bars"][0]).all(), "upright"
    starts = (where["bars"][0].int().diff() == 1).sum() + where["bars"][0, 0]
    assert starts == 4
    assert torch.equal(where["bars"], where["bars"].flip(1).roll(0, 1)) or size % 32, "evenly spaced"
    images = torch.rand(2, 3, size, size)
    shown = pasted(images, where["bars"])
    assert (shown[:, :, where["bars"]] == GREY).all()
    assert torch.equal(shown[:, :, ~where["bars"]], images[:, :, ~where["bars"]])


def test_features_without_places_do_not_say_where():
    maps = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.01
    moved = maps.clone()
    maps[:, 2, 2], moved[:, 5, 4] = 4.0, 4.0
    maps[:, 5, 4], moved[:, 2, 2] = moved[:, 5, 4] * 0, maps[:, 2, 2] * 0
    one, other = placeless(maps), placeless(moved)
    np.testing.assert_allclose(one[:, : -PEAKS + 1], other[:, : -PEAKS + 1], atol=1e-2)
    flat = placeless(torch.ones(1, 8, 8))
    assert flat[0, -PEAKS:].min() == pytest.approx(1 / 8)
    assert one[0, -PEAKS] > 0.9, "the bright pixel is the largest peak"
    assert one[0, -PEAKS + 1] < 0.1


def test_balanced_accuracy_over_images_is_scikit_learns():
    draws = np.random.default_rng(0)
    images = np.concatenate([np.arange(30), draws.choice(30, 14, replace=False), draws.choice(30, 3)])
    kinds = np.repeat([0, 1, 2], [30, 14, 3])
    guesses = draws.integers(0, 3, len(kinds))
    above, below = balanced(guesses, kinds, images)
    expected = balanced_accuracy_score(kinds, guesses)
    assert above.sum() / below.sum() == pytest.approx(expected)
    assert above.mean() == pytest.approx(expected), "so that runs can be pooled from the outcomes"
    assert balanced(kinds, kinds, images)[0].mean() == pytest.approx(1)
    assert balanced(np.zeros_like(kinds), kinds, images)[0].mean() == pytest.approx(1 / 3)


def test_printed_counts_imply_what_the_chapter_says():
    def turned(attack: str, part: str) -> list[float]:
        return [
            PRINTED[f"p1.count.{attack}_{part}.{of}"] - PRINTED[f"p1.count.{part}.{of}"]
            for of in ("cats", "dogs")
        ]

    for part, clean, expected in (("train", 4000, 4.47), ("test", 1000, -5.56)):
        cats, dogs = turned("fgsm", part)
        z = two_proportions(cats, clean, dogs, clean)
        assert z == pytest.approx(expected, abs=0.01)
        table = [[cats, clean - cats], [dogs, clean - dogs]]
        assert z**2 == pytest.approx(chi2_contingency(table, correction=False).statistic)
    right = PRINTED["p1.table1.clear.clear"] * PRINTED["p1.count.test"] / 100
    assert right == pytest.approx(1716)
    for attack in ("fgsm", "onepixel"):
        added = sum(turned(attack, "test"))
        assert PRINTED[f"p1.derived.{attack}_success"] == pytest.approx(100 * added / right, abs=0.005)
        extended, accuracy = (
            PRINTED[f"p1.count.{attack}_test"],
            PRINTED[f"p1.table1.{attack}_immune.{attack}"],
        )
        # Of the extended set those beyond the clean images, on which the network before stands in.
        count = PRINTED["p1.count.test"]
        repaired = (accuracy * extended - PRINTED["p1.table1.clear.clear"] * count) / (extended - count)
        assert PRINTED[f"p1.derived.{attack}_repaired"] == pytest.approx(repaired, abs=0.01)
    assert round(1719 / PRINTED["p1.count.onepixel_test"] * 100, 2) == PRINTED["p1.table1.clear.onepixel"]
    assert np.isnan(two_proportions(0, 10, 0, 10))


def test_recipes_are_one_cycle_or_the_papers_sgd():
    params = P1Parameters.check({"seed": 3})
    assert params.training(8, 2e-3) == Recipe(epochs=8, batch_size=32, learning_rate=2e-3, seed=3)
    given = load_edition(ROOT, "paper").notebooks["p1_inspecting_attacks"].parameters
    paper = P1Parameters.check({**given, "device": "cpu"})
    recipe = paper.training(paper.epochs, paper.learning_rate)
    assert (recipe.optimizer, recipe.schedule, recipe.momentum) == ("sgd", "inverse-time", 0)
    assert recipe.learning_rate == PRINTED["p1.setting.learning_rate"]
    assert recipe.decay == PRINTED["p1.setting.decay"]
    with pytest.raises(UserError, match="there is no 'three'"):
        P1Parameters.check({"heads": ["three"]})
