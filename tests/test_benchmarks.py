"""The benchmark's arithmetic, its judgement, its worker process, and what happens where something is missing."""

import inspect
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import attacks, bench, measure, mechanisms, peers
from benchmarks.comparison import Comparison, Peer
from benchmarks.comparisons import COMPARISONS
from benchmarks.measure import Outcome
from benchmarks.peer_calls import LIBRARIES
from benchmarks.subjects import Subject
from xaicore import models
from xaicore.attacks import ATTACKS, fgsm

ARCHITECTURE = {"name": "small_cnn", "classes": 3, "channels": 1, "input_size": 28}


@pytest.fixture(scope="module")
def subject() -> Subject:
    model = models.load(**ARCHITECTURE)
    images = torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    labels[::2] = (labels[::2] + 1) % 3
    return Subject("tiny", model, images, labels, ARCHITECTURE, "an untrained network on noise")


@pytest.mark.parametrize(
    ("ratio", "goal", "success", "distance", "expected"),
    [
        (2.0, 2, (5, 5), (1.0, 1.0), []),
        (1.9, None, (5, 5), (None, None), []),
        (0.1, None, (6, 5), (None, None), []),
        (1.5, 2, (5, 5), (1.0, 1.0), ["1.50x instead of 2x (25 % short)"]),
        (float("nan"), 2, (5, 5), (None, None), ["nanx instead of 2x (nan % short)"]),
        (9.0, 2, (3, 5), (None, 1.0), ["2 fewer fooled"]),
        (9.0, 2, (5, 5), (1.004, 1.0), []),
        (9.0, 2, (5, 5), (1.1, 1.0), ["median distance larger by 10.0 %"]),
        (9.0, None, (5, 5), (1.0, 0.0), ["median distance larger by infinitely"]),
        (
            1.0,
            5,
            (0, 1),
            (2.0, 1.0),
            ["1.00x instead of 5x (80 % short)", "1 fewer fooled", "median distance"],
        ),
    ],
)
def test_misses_say_by_how_much(
    ratio: float,
    goal: float | None,
    success: tuple[int, int],
    distance: tuple[float | None, float | None],
    expected: list[str],
) -> None:
    found = measure.misses(ratio, goal, success, distance)
    assert len(found) == len(expected)
    assert all(said.startswith(wanted) for said, wanted in zip(found, expected, strict=True))


class Bright(nn.Module):
    """Class 1 where the mean is over a half, class 2 where it is under a tenth."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([torch.full_like(mean, 0.5), (mean > 0.5).float(), (mean < 0.1).float()], dim=1)


def test_only_proper_images_count_as_fooling() -> None:
    images = torch.full((8, 1, 2, 2), 0.2)
    labels = torch.zeros(8, dtype=torch.int64)
    changed = images.clone()
    changed[0, 0, 0, 0] = 0.3  # still class 0
    changed[1] = torch.tensor([[0.9, 0.9], [0.9, 0.8]])
    changed[2] = 0  # black: class 2, but no image
    changed[3] = torch.tensor([[0.9, 0.9], [0.9, torch.nan]])
    changed[4] = torch.tensor([[0.9, 0.9], [0.9, 1.1]])
    changed[5] = torch.tensor([[0.9, 0.9], [0.9, torch.inf]])
    changed[6] = torch.tensor([[0.0, 0.0], [0.0, 0.2]])
    judged = measure.judge(Bright(), images, labels, changed, "linf")
    assert judged.fooled.tolist() == [False, True, False, False, False, False, True, False]
    assert judged.distance[1].item() == pytest.approx(0.7)
    assert measure.judge(Bright(), images, labels, changed, "l2").distance[6].item() == pytest.approx(
        0.2 * 3**0.5
    )
    nearly = changed.clone()
    nearly[6, 0, 1, 1] += 5e-7
    assert measure.judge(Bright(), images, labels, nearly, "l0").distance[6].item() == 3
    nearly[6, 0, 1, 1] += 5e-6
    assert measure.judge(Bright(), images, labels, nearly, "l0").distance[6].item() == 4


def test_chance_is_two_standard_errors_of_a_difference() -> None:
    assert measure.chance([3], [5]) == 0
    assert measure.chance([4, 4], [6, 6]) == 0
    assert measure.chance([3, 5], [4, 4, 4]) == pytest.approx(2 * (2 / 2) ** 0.5)


def test_medians_are_over_images_that_both_fooled() -> None:
    def judged(fooled: list[int], distance: list[float]) -> measure.Judged:
        return measure.Judged(torch.tensor(fooled).bool(), torch.tensor(distance).double())

    found = measure.report(
        judged([1, 1, 1, 0], [1.0, 2.0, 9.0, 0.0]), judged([1, 1, 0, 1], [3.0, 5.0, 0.0, 0.1])
    )
    assert found["ours"] == {"fooled": 3, "median_distance": 1.5}
    assert found["peer"] == {"fooled": 3, "median_distance": 4.0}
    assert found["both_fooled"] == 2
    none = measure.report(judged([1, 0], [1.0, 1.0]), judged([0, 1], [1.0, 1.0]))
    assert none["ours"]["median_distance"] is None


def test_runs_alternate_and_the_fastest_counts() -> None:
    calls: list[str] = []
    seconds = {"ours": iter([3.0, 1.0, 2.0]), "peer": iter([5.0, 6.0, 4.0])}

    def work(name: str) -> Outcome:
        calls.append(name)
        return Outcome(torch.zeros(0), next(seconds[name]), 0.0)

    works = {name: (lambda name=name: work(name)) for name in seconds}
    best, turns = measure.interleaved(works, repeats=3, seconds=60)
    assert calls == ["ours", "peer"] * 3
    assert (best["ours"].seconds, best["peer"].seconds, turns) == (1.0, 4.0, 3)
    seconds = {"ours": iter([1.0]), "peer": iter([1.0])}
    assert measure.interleaved(works, repeats=3, seconds=0)[1] == 1


def test_passes_are_counted(subject: Subject) -> None:
    right = subject.labels == models.predict(subject.model, subject.images).argmax(dim=1)
    images, labels = subject.images[right][:6], subject.labels[right][:6]
    outcome = measure.timed(subject.model, lambda: fgsm(subject.model, images, labels, batch_size=3), 6)
    assert outcome.passes == 2  # clean with the gradient, check
    assert outcome.seconds > 0
    assert torch.equal(outcome.adversarial, fgsm(subject.model, images, labels, batch_size=3).adversarial)
    padded = measure.timed(subject.model, lambda: fgsm(subject.model, images, labels, batch_size=12), 6)
    assert padded.passes == 4
    assert not subject.model._forward_pre_hooks


def test_starts_are_the_next_image_of_another_class() -> None:
    images = torch.arange(5.0).view(5, 1, 1, 1)
    starts = bench.other_class(images, torch.tensor([0, 0, 1, 2, 0]))
    assert starts.flatten().tolist() == [2, 2, 3, 4, 2]
    with pytest.raises(ValueError, match="more than one class"):
        bench.other_class(images, torch.zeros(5, dtype=torch.int64))


def test_frail_images_come_first(subject: Subject) -> None:
    frail = subject.frail()
    logits = models.predict(frail.model, frail.images)
    lead = logits.sort(dim=1, descending=True).values
    assert ((lead[:, 0] - lead[:, 1]).diff() >= 0).all()
    order = [(subject.images == image).flatten(1).all(dim=1).nonzero().item() for image in frail.images]
    assert sorted(order) == list(range(len(subject.images)))
    assert torch.equal(subject.labels[order], frail.labels)


def test_numbers_are_rounded_and_stay_json() -> None:
    assert measure.rounded({"a": [1.23456789, 7], "b": float("nan"), "c": True}) == {
        "a": [1.2346, 7],
        "b": None,
        "c": True,
    }


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda c: f"{c.name}-{c.subject}")
def test_settings_are_those_of_the_attacks(comparison: Comparison) -> None:
    for peer in comparison.peers:
        assert peer.library in LIBRARIES
        json.dumps([peer.parameters, comparison.ours])
    for settings in comparison.ours.values():
        for peer in comparison.peers:
            inspect.signature(ATTACKS[comparison.attack].function).bind(0, 0, 0, **{**settings, **peer.ours})


def test_unknown_names_are_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert attacks.main(["--only", "fgsm,bogus,nothing"]) == 2
    assert attacks.main([str(tmp_path / "no" / "out.json"), "--only", "fgsm"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    first, second = said.err.splitlines()
    assert first.startswith("--only names bogus, nothing; there are apgd, apgd_l2,")
    assert second.startswith("there is no folder")
    for bad in ("--images=0", "--threads=-1", "--repeats=x"):
        with pytest.raises(SystemExit, match="2"):
            attacks.main([bad])
    assert "Traceback" not in capsys.readouterr().err


def test_names_choose_by_comparison_or_attack() -> None:
    assert {c.name for c in attacks.chosen("pgd", quick=False)} == {"pgd_linf", "pgd_l2"}
    assert [c.name for c in attacks.chosen("pgd_l2", quick=True)] == ["pgd_l2"]
    assert {c.subject for c in attacks.chosen("fgsm", quick=False)} == {"digits", "photographs"}
    assert {c.subject for c in attacks.chosen(None, quick=True)} == {"digits"}
    assert attacks.chosen(None, quick=False) == COMPARISONS


def test_without_the_peers_the_rest_runs(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unavailable() -> Path:
        raise peers.PeerError("torchattacks==3.5.1 cannot be installed: no network")

    comparisons = [
        Comparison(
            "fgsm",
            "fgsm",
            "tiny",
            40,
            "linf",
            {"equal": {"eps": 0.01}},
            (
                Peer("foolbox", "FGSM", {"eps": 0.01}, goal=1),
                Peer("foolbox", "FGSM", {"eps": 0.01, "bogus": 1}, goal=1),
                Peer("art", "FastGradientMethod", {"eps": 0.01}),
            ),
        ),
    ]
    monkeypatch.setattr(peers, "prepare", unavailable)
    monkeypatch.setattr(attacks, "chosen", lambda only, quick: comparisons)
    for module in (attacks, bench):
        monkeypatch.setattr(module, "SUBJECTS", {"tiny": lambda: subject})
    assert (
        attacks.main([str(tmp_path / "out.json"), "--images", "6", "--repeats", "2", "--threads", "1"]) == 0
    )
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    (row,) = report["rows"]
    assert (row["n"], row["turns"], row["library"], row["goal"]) == (6, 2, "foolbox", 1)
    assert row["ratio"] == pytest.approx(row["peer"]["ms_per_image"] / row["ours"]["ms_per_image"], rel=1e-3)
    assert row["ours"]["fooled"] == row["peer"]["fooled"]
    assert row["ours"]["parameters"] == {"eps": 0.01, "batch_size": 6}
    assert len(report["left_out"]) == 2
    assert report["left_out"][0] == (
        "torchattacks and ART: torchattacks==3.5.1 cannot be installed: no network"
    )
    assert "bogus" in report["left_out"][1]
    text = capsys.readouterr().out
    assert all(f"left out: {reason}" in text for reason in report["left_out"])
    assert "1 rows" in text
    assert report["subjects"] == {"tiny": "an untrained network on noise"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]
    described = attacks.__doc__ or ""
    for name in [*report, *row, *row["ours"], *report["machine"]]:
        assert name in described, name


def test_environment_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert peers.python(tmp_path / "peers") is None
    with pytest.raises(peers.PeerError, match="cannot be installed: ERROR: No matching") as caught:
        peers.prepare(tmp_path / "peers")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "peers").exists()


def test_environment_of_other_versions_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text('{"packages": ["torchattacks==1.0"]}', encoding="utf-8")
    assert peers.python(tmp_path) is None
    (tmp_path / "ready.json").write_text("{", encoding="utf-8")
    assert peers.python(tmp_path) is None


def test_worker_does_the_same_and_survives_failures(subject: Subject) -> None:
    images, labels = subject.images[:5], subject.labels[:5]
    settings = {"eps": 0.02, "steps": 3, "random_start": True}
    with peers.Worker(Path(sys.executable), threads=1) as worker:

        def ask(attack: str, limit: float = 60, **settings: object) -> Tensor:
            return worker.attack(subject, "foolbox", attack, images, labels, settings, limit)[0]

        there = ask("LinfPGD", **settings)
        with pytest.raises(peers.PeerError, match=r"AttributeError.*NoSuchAttack"):
            ask("NoSuchAttack")
        with pytest.raises(peers.PeerError, match="PackageNotFoundError"):
            worker.versions()
        assert torch.equal(ask("LinfPGD", **settings), there)
        with pytest.raises(peers.PeerError, match="no result within 0 s"):
            ask("LinfPGD", limit=0.3, **{**settings, "steps": 10**6})
        assert worker._process is None  # the next request starts another
    bench.seed()
    here = LIBRARIES["foolbox"]("LinfPGD", subject.model, images, labels, **settings)()
    torch.testing.assert_close(there, here, atol=1e-5, rtol=0)


def test_each_mechanism_for_speed_is_worth_its_lines_on_some_work() -> None:
    path = Path(__file__).parents[1] / "results" / "benchmarks" / "mechanisms.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    best = {row["mechanism"]: 0.0 for row in rows}
    for row in rows:
        assert row["factor"] == pytest.approx(row["without_seconds"] / row["with_seconds"])
        best[row["mechanism"]] = max(best[row["mechanism"]], row["factor"])
    assert best.keys() == {
        "small maps as products",
        "channels last",
        "window of a pixel",
        "L-BFGS of images side by side",
        "candidate classes side by side",
        "two batches side by side",
    }
    assert min(best.values()) >= 1.2, best


def test_no_peer_fools_more_or_closer_in_the_committed_comparison() -> None:
    """Random starts differ, and with them an image or two beside the border; long searches are left to the table."""
    path = Path(__file__).parents[1] / "results" / "benchmarks" / "attacks.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert {"torchattacks", "art", "foolbox"} <= {row["library"] for row in rows}
    for row in rows:
        ours, theirs = row["ours"], row["peer"]
        assert ours["fooled"] >= theirs["fooled"] - 1, (row["name"], row["library"])
        if row["name"] in ("cw_l2", "cw_linf", "cw_l0", "lbfgs", "boundary"):
            assert ours["median_distance"] <= 1.1 * theirs["median_distance"], (row["name"], row["library"])


def test_the_mechanisms_run_with_and_without() -> None:
    rows = list(mechanisms.rows(repeats=1, quick=True))
    assert len(rows) == 8
    assert all(row["largest_difference"] < 0.02 for row in rows)
