"""What chapter 3 records of an analysis: counts by hand, controls, coverage of half of the examples."""

import numpy as np
import pytest
import torch

from xaicore import models
from xaicore.figures import layer_coverage, layer_report
from xaicore.figures.layer_deviations import findings_rows
from xaicore.figures.layer_report import Analysis, compromised_rows, layer_table, strength_values
from xaicore.metrics import Estimate, proportion_ci
from xaicore.run.engine import LocalEngine
from xaicore.run.records import Run
from xaicore.run.store import Store
from xaicore.studies import layer_findings
from xaicore.studies.as_published import AS_PUBLISHED, CORRECTED
from xaicore.studies.layer_counts import depth_estimate, layer_counts, with_width

LAYERS, STRENGTHS = ("one", "two", "three", "four", "five"), (0.5, 1.0, 2.0, 4.0)


@pytest.fixture
def run(tmp_path):
    return Run("p3_layer_by_layer", {"seed": 0}, output_dir=tmp_path)


def analysis(deviations=CORRECTED, prefix="p3", **changes):
    rng = np.random.default_rng(0)
    noise = 0.8 + 0.1 * rng.random((12, 4, 5))
    attack = noise - 0.3 - 0.1 * rng.random((12, 4, 5))
    misleads = np.ones((12, 4), dtype=bool)
    sides = changes.get("sides", (attack, noise))
    both = changes.get("misleads", (misleads, np.zeros_like(misleads)))
    index = np.arange(12) * 3
    return Analysis.of(prefix, deviations, LAYERS, STRENGTHS, index, sides, both, n_resamples=30, seed=0)


def test_the_examples_of_an_image_are_recorded_with_it(run):
    of = analysis()
    table = layer_table(run, of)
    assert list(table["layer"]) == list(LAYERS)
    gaps = run.outcomes["p3.similarity_gap.one"]
    assert gaps["image"].tolist() == (np.arange(12) * 3).tolist()
    assert gaps["outcome"].mean() == pytest.approx(run.values["p3.similarity_gap.one"]["value"])
    assert run.values["p3.layers_judged"]["value"] == run.values["p3.layers_further"]["value"] == 5
    shares = [run.values[f"p3.lowest_share.{layer}"]["value"] for layer in LAYERS]
    assert sum(shares) == pytest.approx(100)
    assert run.values["p3.smallest_gap"]["value"] == pytest.approx(
        min(run.values[f"p3.similarity_gap.{layer}"]["value"] for layer in LAYERS)
    )


def test_pooled_layers_have_every_strength(run):
    of = analysis(AS_PUBLISHED, "p3.as_published")
    layer_table(run, of)
    assert len(run.outcomes["p3.as_published.similarity_gap.one"]) == 12 * 4


def test_strengths_are_compared_on_the_same_examples(run):
    of = analysis()
    rows = strength_values(run, of)
    assert [row["strength"] for row in rows] == ["0.5", "1", "2", "4"]
    shift = run.values["p3.strength_shift.s100_s200"]["value"]
    assert shift == pytest.approx((of.attack[:, 1] - of.attack[:, 2]).mean())
    assert run.outcomes["p3.strength_shift.s100_s200"]["outcome"].mean() == pytest.approx(shift)
    gap = run.values["p3.deviation_gap.s400"]["value"]
    assert gap == pytest.approx((of.noise[:, 3] - of.attack[:, 3]).mean())
    assert run.values["p3.depth_correlation_gaussian"]["unit"] == "correlation"


def test_all_and_few_layers_are_counted_among_those_defined(run):
    """Three examples at strength 1: all of four defined layers, one of five, and one that does not mislead."""
    noise = np.full((12, 4, 5), 0.5)
    attack = np.full((12, 4, 5), 0.9)  # nothing compromised
    attack[0, 1] = [0.1, 0.1, 0.1, 0.1, np.nan]  # all that are defined
    attack[1, 1] = [0.1, 0.9, 0.9, 0.9, 0.9]  # few: one of five, at most three of 13
    attack[2, 1] = 0.1  # all, but its answer is right
    attack[3, 1] = [0.1, 0.1, 0.1, 0.1, 0.9]  # neither
    misleads = np.zeros((12, 4), dtype=bool)
    misleads[[0, 1, 3], 1] = True
    of = analysis(sides=(attack, noise), misleads=(misleads, np.zeros_like(misleads)))
    rows = compromised_rows(run, of)
    assert (rows[0]["misleading"], rows[0]["all layers"], rows[0]["at most 3 of 13"]) == (3, 1, 1)
    assert run.values["p3.compromised_all.share"]["value"] == pytest.approx(100 / 3)
    assert run.values["p3.compromised_few.count"]["n"] == 3
    # The control counts all Gaussian images for "all", which lie on their own median: none below it.
    assert run.values["p3.compromised_all_gaussian.count"] == {"value": 0, "n": 12, "ci": None, "unit": None}
    assert "p3.compromised_few_gaussian.count" not in run.values  # no noisy image misleads
    assert run.values["p3.misleads.s100"]["value"] == pytest.approx(25)


def test_findings_say_what_the_paper_says_and_what_comes_out():
    rows = findings_rows(STRENGTHS, {"paper": None, "here": analysis()}, (40, 80))
    by_name = {row["finding"]: (row["paper"], row["here"]) for row in rows}
    assert by_name["compromised, lowest (%)"] == ("about 40", "100")
    assert by_name["layers moved further"] == ("every", "5 of 5")
    assert by_name["distance of 0.25, 2 and 4"][1] != "–"


@pytest.mark.parametrize("pooled", [False, True])
def test_many_draws_at_once_are_those_of_the_findings(pooled):
    rng = np.random.default_rng(1)
    noise = 0.9 + 0.1 * rng.random((20, 3, 6))
    attack = 0.97 + rng.normal(0, 0.05, (20, 3, 6)) - np.linspace(0, 0.06, 6)
    attack[rng.random(attack.shape) < 0.1] = np.nan
    attack[2:, :, 3] = np.nan
    sides = layer_findings.with_enough(attack, noise)
    found = layer_findings.findings(*sides, 1, pooled=pooled, n_resamples=80, seed=5)
    shown = [each if pooled else each[:, [1]] for each in sides]
    counts = layer_counts(*shown, n_resamples=80, seed=5)
    for count, estimates in ((counts.further, found.gap), (counts.vary_more, found.log_variance_ratio)):
        assert count == sum(each.low > 0 for each in estimates)
    assert counts.judged == 5
    assert 0 < counts.further < 5
    depth = depth_estimate(shown[0], n_resamples=80, seed=5)
    assert depth == pytest.approx(found.depth_correlation)


def test_no_map_at_all_is_no_correlation():
    none = np.full((12, 2, 4), np.nan)
    assert layer_counts(none, none) == (0, 0, 0)
    for each in (none, np.ones_like(none)):
        assert np.isnan(depth_estimate(each).value)


def test_none_and_all_have_a_width_by_images(run):
    assert with_width(Estimate(0.5, 0.4, 0.6, 9), 4) == Estimate(0.5, 0.4, 0.6, 9)
    for value in (0, 1):
        assert with_width(Estimate(value, value, value, 9), 4)[1:3] == proportion_ci(4 * value, 4)
    compromised_rows(run, analysis())  # every example compromises all layers
    for kind, successes in (("all", 12), ("few", 0)):
        wilson = 100 * np.array(proportion_ci(successes, 12))
        assert run.values[f"p3.compromised_{kind}.share"]["ci"] == pytest.approx(wilson)
        assert run.values[f"p3.compromised_{kind}.share"]["n"] == 12


def test_coverage_takes_half_of_the_examples_without_repeating_one(tmp_path, run):
    engine = LocalEngine(Store(tmp_path / "store"), workers=1)
    model = models.load("small_cnn", classes=4, channels=1, input_size=28, seed=3)
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(8, 1, 28, 28, generator=generator)
    attack = 0.1 * torch.randn(8, 1, 28, 28, generator=generator)
    draws = [0.1 * torch.randn(8, 1, 28, 28, generator=generator) for _ in range(2)]
    of = layer_coverage.sequences(engine, model, clean, attack, draws, STRENGTHS, n_orders=25, seed=0)
    assert of.clean.shape == (25, 4)
    assert (np.diff(of.adversarial[0], axis=1) >= 0).all()
    for each in (of.with_clean[0][1], of.second):
        assert (each >= of.clean - 1e-9).all()
    rows, gaps = layer_coverage.coverage_rows(run, of, STRENGTHS, np.arange(8))
    assert len(rows) == 4
    assert len(gaps) == 3
    with_clean = (of.with_clean[0][1] - of.with_clean[1][1]).mean()
    assert run.values["p3.coverage_gap_with_clean"]["value"] == pytest.approx(with_clean)
    assert run.values["p3.coverage_gain_gaussian"]["value"] >= 0
    gap = (of.adversarial[1] - of.gaussian[1]).mean()
    assert run.values["p3.coverage_gap"]["value"] == pytest.approx(gap)


def test_the_name_of_a_strength_has_hundredths():
    assert [layer_report.level(strength) for strength in (0.25, 1, 4)] == ["s025", "s100", "s400"]
