"""What chapter 4 measures beside the defence: stored images, plain filters, Algorithm 2's readings, its groups."""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from subjects import right, two_convolutions
from torch import Tensor, nn

from xaicore import attacks
from xaicore.core.errors import UserError
from xaicore.defenses import HeatAndBlur, MarkedPixels, Reformed, masked_attack
from xaicore.metrics import row_bootstrap
from xaicore.run.store import Store
from xaicore.studies import heat_and_blur as study
from xaicore.studies.filters import FILTERS, Filter
from xaicore.studies.stored_images import stored


def draw(count: int, channels: int = 3, side: int = 12, seed: int = 1) -> Tensor:
    """Images of whole grey levels."""
    levels = torch.randint(
        0, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(seed)
    )
    return levels / 255


def net(seed: int = 0) -> nn.Sequential:
    model = two_convolutions(3, 4, seed)
    with torch.no_grad():
        model[-1].weight.mul_(8)
    return model.eval()


class Brightness(nn.Module):
    """Says 1 where the mean exceeds one half by more than ``least``, else 0."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = nn.Parameter(torch.tensor(least))

    def forward(self, images: Tensor) -> Tensor:
        excess = images.mean((1, 2, 3)) - 128 / 255 - self.least
        return torch.stack([-excess, excess], 1)


def attempt(images: Tensor, by: list[float], success: list[bool]) -> attacks.AttackResult:
    """An attack that adds so many grey levels to every value."""
    adversarial = images + torch.tensor(by)[:, None, None, None] / 255
    zeros, norms = torch.zeros(len(images), dtype=torch.int64), torch.zeros(len(images))
    return attacks.AttackResult(adversarial, torch.tensor(success), zeros, norms, norms, zeros, 1.5)


def test_a_perturbation_below_half_a_grey_level_is_undone_by_rounding_and_enlarged_until_it_is_not() -> None:
    images = torch.full((5, 3, 4, 4), 128 / 255)
    labels = torch.zeros(5, dtype=torch.int64)
    made = attempt(images, [0.3, 0.6, 0.05, 2.0, 0.3], [True, True, True, True, False])
    model = Brightness(0.2 / 255)
    found = stored(model, images, labels, made)
    # 0.3 needs a factor of 2 to round up; 0.6 rounds to 1; 0.05 times 8 is 0.4; the last was no success.
    assert found.success.tolist() == [True, True, False, True, False]
    assert found.info["survives"].tolist() == [False, True, False, True, False]
    torch.testing.assert_close(
        found.info["enlargement"], torch.tensor([2.0, 1.0, torch.nan, 1.0, torch.nan]), equal_nan=True
    )
    grey = (found.adversarial[:, 0, 0, 0] * 255 - 128).round().tolist()
    assert grey == [1, 1, 0, 2, 0]
    torch.testing.assert_close(found.linf * 255, torch.tensor([1.0, 1, 0, 2, 0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.l2, found.linf * 48**0.5)
    assert found.l0.tolist() == [16, 16, 0, 16, 0]
    alone = stored(model, images, labels, made, enlargements=(1.0,))
    assert alone.success.tolist() == [False, True, False, True, False]
    coarse = stored(model, images, labels, made, bits=1, enlargements=(1.0,))
    assert set(coarse.adversarial.unique().tolist()) <= {0.0, 1.0}


def test_stored_images_are_whole_levels_and_judged_for_their_target() -> None:
    images, model = draw(24), net()
    labels = right(model, images)
    target = (labels + 1) % 4
    made = attacks.cw_l2(model, images, labels, target=target, steps=30, search_steps=3)
    assert made.success.any()
    found = stored(model, images, labels, made, target=target)
    assert ((found.adversarial * 255 - (found.adversarial * 255).round()).abs() < 1e-3).all()
    assert torch.equal(found.success, made.success & (right(model, found.adversarial) == target))
    again = stored(model, images[5:6], labels[5:6], attacks.AttackResult.from_arrays(
        {name: values[5:6] for name, values in made.arrays().items()}, seconds=0.0
    ), target=target[5:6])  # fmt: skip
    assert torch.equal(again.adversarial[0], found.adversarial[5])
    with pytest.raises(ValueError, match="bits"):
        stored(model, images, labels, made, bits=9)


def test_filters_are_pillows_and_feature_squeezings() -> None:
    images = draw(2, side=16)
    file = io.BytesIO()
    pixels = (images[1] * 255).round().byte().movedim(0, 2).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    expected = torch.from_numpy(np.asarray(Image.open(file)).copy()).movedim(2, 0) / 255
    torch.testing.assert_close(Filter("jpeg", 75)(images)[1], expected)
    assert Filter("jpeg", 75)(images[:, :1]).shape == (2, 1, 16, 16)
    rounded = Filter("rounding", 5)(images) * 31
    torch.testing.assert_close(rounded, rounded.round(), atol=1e-4, rtol=0)
    grey = Filter("median", 3)(images)[0, 0, 5, 5]
    assert grey.item() == pytest.approx(images[0, 0, 4:7, 4:7].median().item())
    flat = torch.full((3, 3, 64, 64), 0.5)
    noise = Filter("noise", 0.05, seed=3)(flat) - 0.5
    assert torch.equal(noise[0], noise[2])
    assert noise.std().item() == pytest.approx(0.05, rel=0.05)
    assert not torch.equal(noise, Filter("noise", 0.05, seed=4)(flat) - 0.5)


@pytest.mark.parametrize("kind", FILTERS)
def test_a_filter_counts_as_nothing_on_the_way_back(kind: str) -> None:
    strength = {"rounding": 3, "jpeg": 30, "noise": 0.1, "median": 3}[kind]
    model, images = net(), draw(3)
    shown = Filter(kind, strength)
    leaf, there = images.clone().requires_grad_(), shown.filtered(images).requires_grad_()
    assert not torch.equal(shown.filtered(images), images)
    (slope,) = torch.autograd.grad(model(shown(leaf)).square().sum(), leaf)
    (expected,) = torch.autograd.grad(model(there).square().sum(), there)
    torch.testing.assert_close(slope, expected, atol=1e-5, rtol=1e-4)
    front = Reformed(model, shown)
    assert front.fingerprint != Reformed(model, Filter(kind, strength + 1)).fingerprint
    assert attacks.pgd(front, images, right(front, images), steps=2).success.shape == (3,)
    assert shown(images[:0]).shape == (0, 3, 12, 12)


def test_filters_that_make_no_sense() -> None:
    with pytest.raises(UserError, match="kind must be one of"):
        Filter("sharpen", 1)
    with pytest.raises(ValueError, match="strength"):
        Filter("jpeg", 0)


def test_marked_pixels_answers_as_the_defence_and_moves_marked_pixels_only() -> None:
    images = draw(6)
    defended, marked = HeatAndBlur(net()), MarkedPixels(net())
    torch.testing.assert_close(marked(images), defended(images))
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(marked(leaf).square().sum(), leaf)
    (whole,) = torch.autograd.grad(defended(leaf).square().sum(), leaf)
    inside = defended.masks(images)[:, None].expand_as(images)
    assert not slope[~inside].any()
    torch.testing.assert_close(slope[inside], whole[inside])
    assert whole[~inside].any()
    assert marked.fingerprint != defended.fingerprint
    labels = right(defended, images)
    moved = attacks.pgd(marked, images, labels, steps=1, random_start=False, early_stop=False)
    assert not (moved.adversarial - images)[~inside].any()
    assert (moved.adversarial - images)[inside].any()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.4)])
def test_algorithm_2_stays_in_either_ball_and_stores_its_images(norm: str, eps: float) -> None:
    images, model = draw(12), net()
    defended = HeatAndBlur(model)
    labels = right(model, images)
    options = {"norm": norm, "eps": eps, "iterations": 3, "steps": 3, "early_stop": False}
    plain = masked_attack(defended, images, labels, **options)
    assert ((plain.linf if norm == "linf" else plain.l2) <= eps + 1e-6).all()
    kept = masked_attack(defended, images, labels, bits=8, **options)
    assert ((kept.adversarial * 255 - (kept.adversarial * 255).round()).abs() < 1e-3).all()
    assert torch.equal(kept.success, right(model, kept.adversarial) != labels)
    further = masked_attack(defended, images, labels, bounded=False, **{**options, "iterations": 8})
    resisted = ~plain.success & ~further.success
    size, limit = (further.linf, plain.linf) if norm == "linf" else (further.l2, plain.l2)
    assert further.success.sum() >= plain.success.sum()
    assert (size[resisted] >= limit[resisted] - 1e-6).all()
    assert (size[resisted] > 1.5 * limit[resisted]).any()


def test_the_readings_of_algorithm_2() -> None:
    found = list(study.grid(["pgd", "cw_l2"], [0.031], [0.02], ["early", "late"]))
    assert [each.identity for each in found] == [
        "pgd.linf.eps_031.early", "pgd.linf.eps_031.late", "pgd.l2.eps_020.early", "pgd.l2.eps_020.late",
        "pgd.linf.free.early", "cw_l2.free",
    ]  # fmt: skip
    assert found[1].title == "PGD, L∞, all steps"
    assert found[5].title == "CW, L2"
    assert [each.eps for each in found] == [0.031, 0.031, 0.02, 0.02, None, None]


def test_a_reading_is_the_attack_that_it_names(tmp_path) -> None:  # type: ignore[no-untyped-def]
    images, model = draw(8), net()
    defended, labels = HeatAndBlur(model), right(model, images)
    options = {"rounds": 2, "steps": 3, "seed": 4}
    late = study.Reading("pgd", "l2", 0.02, False)
    found = study.algorithm_2(Store(tmp_path), defended, images, labels, late, **options)
    by_hand = masked_attack(
        defended,
        images,
        labels,
        norm="l2",
        eps=0.02 * 432**0.5,
        iterations=2,
        bits=8,
        steps=3,
        early_stop=False,
        seed=4,
    )
    assert torch.equal(found.adversarial, by_hand.adversarial)
    rms = (found.adversarial - images).square().mean((1, 2, 3)).sqrt()
    assert (rms <= 0.02 + 0.5 / 255).all()
    everywhere, longer = HeatAndBlur(model, k_std=-10), {"rounds": 1, "steps": 15}
    free = study.Reading("cw_l2", "l2", None, None)
    smallest = study.algorithm_2(Store(tmp_path), everywhere, images, labels, free, **longer)
    given = {"attack": attacks.cw_l2, "iterations": 1, "steps": 15, "search_steps": 2}
    by_hand = masked_attack(everywhere, images, labels, bounded=False, bits=8, **given)
    assert torch.equal(smallest.adversarial, by_hand.adversarial)
    assert torch.equal(smallest.success, by_hand.success)
    middle = by_hand.linf[by_hand.success].median().item()
    near = by_hand.success & study.inside(by_hand, eps=[middle / 2, middle], rms=[])
    assert torch.equal(near, by_hand.success & (by_hand.linf <= middle + 1e-6))
    assert 0 < near.sum() < by_hand.success.sum()
    rms = (by_hand.adversarial - images).square().mean((1, 2, 3)).sqrt()
    half = rms.median().item()
    assert torch.equal(study.inside(by_hand, eps=[], rms=[half]), rms <= half + 1e-6)
    assert not study.inside(by_hand, eps=[], rms=[]).any()


def test_answers_by_hand() -> None:
    benign = torch.tensor([[3.0, 2, 1, 0], [3.0, 2, 1, 0], [3.0, 2, 1, 0]])
    given = torch.tensor([[0.0, 5, 0, 0], [0.0, 0, 0, 0.1], [9.0, 0, 0, 0]])
    sure, near = study.answers(given, torch.zeros(3, dtype=torch.int64), benign, first=2)
    torch.testing.assert_close(sure, given.double().softmax(1).amax(1))
    assert near[:2].tolist() == [1, 0]
    assert near[2].isnan()


def test_the_expected_variance_of_group_means_is_that_of_shuffled_values() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(6)
    members = np.array([[1, 1, 1, 1, 1, 0], [0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 1, 1]]).T.astype(bool)

    def variance(of: np.ndarray) -> float:
        return float(np.var([of[inside].mean() for inside in members.T], ddof=1))

    shuffled = [variance(values[list(order)]) for order in itertools.permutations(range(6))]
    assert study.excess_spread(values, members) == pytest.approx(
        variance(values) - np.mean(shuffled), abs=1e-12
    )
    empty = np.column_stack([members, np.zeros(6, dtype=bool)])
    assert study.excess_spread(values, empty) == pytest.approx(study.excess_spread(values, members))
    assert np.isnan(study.excess_spread(values, members[:, :1]))


def beyond_chance(seed: int, lift: float) -> int:
    """Whether accuracy is said to vary more between groups than a graded score of the same images: -1, 0 or 1."""
    rng = np.random.default_rng(seed)
    members = rng.random((80, 4)) < 0.5
    chance = np.clip(0.7 + lift * members[:, 0] - lift * members[:, 1], 0, 1)
    accuracy, score = (rng.random(80) < chance).astype(float), 0.9 + 0.1 * rng.random(80)
    found = row_bootstrap(
        lambda a, b, m: study.excess_spread(a, m) - study.excess_spread(b, m),
        accuracy,
        score,
        members,
        n_resamples=200,
    )
    return int(found.low > 0) - int(found.high < 0)


def test_groups_that_do_not_differ_are_not_told_apart_by_a_binary_score() -> None:
    said = [beyond_chance(seed, 0.0) for seed in range(60)]
    assert sum(each == 1 for each in said) <= 6
    assert sum(beyond_chance(seed, 0.3) == 1 for seed in range(20)) >= 15


def test_a_curve_that_is_up_with_its_second_class_rises_early() -> None:
    curves = np.array([[0.0, 0.6, 0.7, 0.8, 0.8], [0.2, 0.4, 0.4, 0.4, 0.4]])
    late = np.array([[0.0, 0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.1, 0.1, 0.1]])
    assert study.early_rise(curves) == pytest.approx((0.6 + 0.2) / (0.8 + 0.2))
    assert study.early_rise(curves, late) == pytest.approx(0.8 - 0.25)
    assert np.isnan(study.early_rise(curves[:, ::-1]))
    assert np.isnan(study.early_rise(curves, late[1:]))


def test_spread_and_p_values() -> None:
    values = np.array([[1.0, np.nan], [0.0, np.nan], [1.0, 1.0]])
    assert study.spread(values) == pytest.approx(np.std([2 / 3, 1], ddof=1))
    assert np.isnan(study.spread(values[:2]))
    before = np.array([[0.1, 0.2], [0.3, np.nan], [0.5, 0.4], [np.nan, np.nan], [0.9, 0.2]])
    after = before + np.array([0.1, 0.2, -0.05, 1.0, 0.3])[:, None]
    expected = stats.wilcoxon([0.1, 0.2, -0.05, 0.3]).pvalue
    assert study.paired_p(before, after) == pytest.approx(expected)
    assert study.paired_p(before[3:4], after[3:4]) == 1


def test_seconds_are_of_a_batch_over_its_images() -> None:
    seen = []
    seconds = study.seconds_each(lambda batch: seen.append(len(batch)), draw(5), batch_size=2, repeats=2)
    assert seen == [2, 2, 2, 2, 2, 1, 1]
    assert len(seconds) == 3  # an image's time is not its own, so that there is one a batch
    assert min(seconds) > 0
