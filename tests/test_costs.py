"""What the paper edition costs: counted operations, checked against the runs that were timed."""

import json
import math
from pathlib import Path

import pytest
import yaml

from xaicore.book import cli
from xaicore.book.costs import edition_costs
from xaicore.book.editions import load_edition
from xaicore.book.needs import NEEDS, count
from xaicore.book.operations import Network, Work, operations_of, parameters_of
from xaicore.run.params import SCHEMAS

ROOT = Path(__file__).resolve().parent.parent
PAPER = yaml.safe_load((ROOT / "editions" / "paper.yml").read_text(encoding="utf-8"))["notebooks"]


def needs(name: str, **given: object) -> list[Work]:
    parameters = {key: value for key, value in PAPER[name]["parameters"].items() if key != "device"}
    return list(NEEDS[name](SCHEMAS[name].check({**parameters, **given})).work)


def test_operations_of_known_networks() -> None:
    """VGG16 has 15.5 and ResNet-50 4.1 thousand million multiplications with addition a photograph."""
    vgg = 2 * 9 * sum(
        a * b * s * s
        for a, b, s in (
            (3, 64, 224), (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56), (256, 256, 56),
            (256, 256, 56), (256, 512, 28), (512, 512, 28), (512, 512, 28), (512, 512, 14), (512, 512, 14),
            (512, 512, 14),
        )
    )  # fmt: skip
    dense = 2 * (25088 * 4096 + 4096 * 4096 + 4096 * 1000)
    assert operations_of(Network("vgg16", 224)) == vgg + dense
    assert operations_of(Network("resnet50", 224)) == pytest.approx(2 * 4.1e9, rel=0.02)
    assert (
        parameters_of(Network("vgg16", 224)) == 138_357_544 + 2 * 4224
    )  # beside the weights, the normalisation's


def test_images_of_sets_in_packages_are_counted() -> None:
    assert count("mnist-5k", "train") == 3600
    assert count("mnist-5k", "test", 50) == 50
    assert count("imagenet-20", "test", 50) == 20
    assert count("imagenet", "test", None) == 50_000


def test_every_notebook_of_the_paper_edition_has_a_cost() -> None:
    assert set(PAPER) <= set(NEEDS)


def test_training_and_attacks_grow_as_they_should() -> None:
    def passes(**given: object) -> float:
        return needs("p1_inspecting_attacks", **given)[0].passes

    few, many = passes(training_generations=9), passes(training_generations=19)
    assert many - few == 8000 * 400 * 10, (
        "every training and validation image, every candidate, ten generations more"
    )
    assert passes(epochs=31) - passes(epochs=30) == 3 * 7200

    def photographs(**given: object) -> float:
        return needs("p4_heat_and_blur", **given)[0].passes

    assert photographs(n_images=1000) > 1.8 * photographs(n_images=500)
    digits, eyes = needs("p5_explainer")
    more_digits, same_eyes = needs("p5_explainer", points=60)
    assert more_digits.passes > digits.passes
    assert same_eyes == eyes


def test_what_was_timed_lies_within_what_two_cores_can_do() -> None:
    """Counted operations over recorded seconds; an estimate that misses most of the work does not."""
    costs = edition_costs(load_edition(ROOT, "embedded"))
    for name, cost in costs.items():
        record = json.loads(
            (ROOT / "results" / "embedded" / name / "record.json").read_text(encoding="utf-8")
        )
        rate = cost.operations / record["provenance"]["seconds"]
        assert 3e9 < rate < 3e11, (name, rate)
        peak = record["provenance"]["peak_memory_bytes"]
        assert 0.9 * peak < cost.memory_bytes < 6 * peak, (name, cost.memory_bytes)


def test_the_edition_says_what_was_counted() -> None:
    costs = edition_costs(load_edition(ROOT, "paper"))
    for name, cost in costs.items():
        run = PAPER[name]
        assert run["expected_seconds"] >= 3600 * cost.hours, (name, math.ceil(36 * cost.hours) * 100)
        assert run["expected_seconds"] < 3 * 3600 * cost.hours + 600, (name, math.ceil(36 * cost.hours) * 100)
        assert run["expected_memory_mb"] >= cost.memory_bytes / 2**20, (name, cost.memory_bytes / 2**20)


def test_the_command_prints_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["editions", "--costs", "quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["notebook", "operations", "one", "GPU", "memory", "disk"]
    assert any(line.startswith("p1_inspecting_attacks") and line.rstrip().endswith("GiB") for line in lines)
    assert lines[-1].startswith("all, one after the other")
    assert cli.main(["editions", "--costs", "slow"]) == 2


def test_the_page_shows_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["editions", "--costs", "paper"]) == 0
    page = (ROOT / "book" / "paper_edition.md").read_text(encoding="utf-8")
    for line in capsys.readouterr().out.splitlines():
        assert line.rstrip() in page
