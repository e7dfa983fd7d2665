"""patch, train_patch and apply_patch against a plain float64 loop, controls, and what they promise of their results."""

import math

import pytest
import torch
from subjects import digits, photographs, right
from subjects import draw_12 as draw
from torch import Tensor, nn
from torch.nn import functional

from xaicore import attacks
from xaicore.attacks import AttackResult
from xaicore.attacks.adversarial_patch import Training
from xaicore.attacks.patch_placement import Placements
from xaicore.core.randomness import stream


def net(channels: int = 1, classes: int = 3, gain: float = 1.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 8, 3),
            nn.Tanh(),
            nn.Conv2d(8, classes, 4),
            nn.Flatten(),
        )
    with torch.no_grad():
        model[5].weight.mul_(gain)
        model[5].bias.mul_(gain)
    return model.eval()


def by_the_formula(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    targeted: bool,
    patch: Tensor,
    mask: Tensor,
    placement: Tensor,
) -> Tensor:
    """Brown's objective in float64, by torch's own resampling: mean of log P(goal) over images and placements."""
    side, length = patch.shape[-1], images.shape[-1]
    row, column, scale, angle = placement.double().unbind(1)
    cos, sin = angle.deg2rad().cos() * length / scale / side, angle.deg2rad().sin() * length / scale / side
    y, x = 1 - 2 * row / length, 1 - 2 * column / length
    theta = torch.stack([cos, -sin, cos * x - sin * y, sin, cos, sin * x + cos * y], dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    patches = patch.expand(len(images), *patch.shape[-3:])
    warped = functional.grid_sample(patches, grid, padding_mode="border", align_corners=False)
    p = model(torch.where(mask[:, None], warped, images.double())).softmax(1)
    chosen = p.gather(1, labels[:, None]).squeeze(1)
    return (chosen if targeted else 1 - chosen).log().mean()


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("universal", [False, True])
def test_training_equals_a_plain_float64_loop(shape: str, targeted: bool, universal: bool) -> None:
    model, images = net(3), draw(5 if universal else 1, 3)
    labels = right(model, images)
    target = (labels + 1) % 3 if targeted else None
    placements = Placements.checked(shape, 5, (12, 12), (0.7, 1.3), 40, None)
    given = {"target": target, "shape": shape, "size": 0.16, "steps": 6, "learning_rate": 0.05, "samples": 5}
    given |= {"scale": (0.7, 1.3), "rotation": 40, "seed": 7}
    number = torch.tensor([0 if universal else 11])
    if universal:
        ours = attacks.train_patch(model, images, labels, **given)
    else:
        result = attacks.patch(model, images, labels, **given, index=number)
        assert result.queries.item() == 30, "stopped before its time: choose another example"
        ours = result.info["patch"][0]
    double = net(3).double()
    patch = torch.full((3, 5, 5), 0.5, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([patch], lr=0.05, maximize=True)
    for step in range(6):
        placement = placements.draw(7, number, torch.tensor([step]), 5, purpose=0)
        # With as many samples as images every image is used once a step, in an order of its own.
        drawn = torch.from_numpy(stream(7, 0, step, 3).permutation(5))
        order = drawn if universal else torch.zeros(5, dtype=torch.int64)
        mask = placements.footprint(placement).mask
        goal = (labels if target is None else target)[order]
        adam.zero_grad()
        by_the_formula(double, images[order], goal, targeted, patch, mask, placement).backward()
        adam.step()
        with torch.no_grad():
            patch.clamp_(0, 1)
    assert ours.shape == (3, 5, 5)
    assert (ours - 0.5).abs().max() > 0.2
    torch.testing.assert_close(ours.double(), patch.detach(), atol=2e-3, rtol=0)


def test_gradient_is_that_of_finite_differences() -> None:
    model, images = net(3), draw(4, 3)
    labels = right(model, images)
    placements = Placements.checked("circle", 5, (12, 12), (0.7, 1.3), 40, None)
    placement = placements.draw(0, torch.arange(4), torch.zeros(4, dtype=torch.int64), 1, purpose=0)
    mask = placements.footprint(placement).mask
    patches = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    victim = attacks.victim.Victim(model, 32)
    with torch.no_grad():
        ours, _ = Training(placements, 1, 0, 1, 0.1, 1).ascent(
            victim, images, attacks.goal.Goal(labels, None), patches, placement
        )
    double = net(3).double()
    scale = ours.abs().max()
    for place_ in [(0, 0, 2, 2), (1, 1, 0, 3), (2, 2, 4, 4), (3, 0, 1, 4), (3, 2, 3, 1)]:
        values = []
        for sign in (1, -1):
            moved = patches.double()
            moved[place_] += sign * 1e-5
            # The mean runs over 4 images.
            values.append(4 * by_the_formula(double, images, labels, False, moved, mask, placement))
        slope = (values[0] - values[1]) / 2e-5
        assert ours[place_].item() == pytest.approx(slope.item(), abs=1e-4 * scale.item(), rel=1e-3)


def whole(**changes: object) -> AttackResult:
    model, images = net(3), draw(9, 3)
    labels = right(model, images)
    labels[2] = (labels[2] + 1) % 3
    return attacks.patch(
        model, images, labels, **{"steps": 8, "samples": 2, "trials": 4, "size": 0.15, **changes}
    )


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("universal", [False, True])
def test_result_is_what_it_says(shape: str, universal: bool) -> None:
    result, images = whole(shape=shape, universal=universal), draw(9, 3)
    info, attacked = result.info, ~result.info["initially_wrong"]
    assert attacked.tolist() == [True] * 2 + [False] + [True] * 6
    assert info["patch"].shape == (9, 3, 5, 5)
    assert info["mask"].shape == (9, 12, 12)
    assert info["mask"].dtype == info["zero_gradient"].dtype == torch.bool
    assert info["placement"].shape == (9, 4)
    assert {info[name].dtype for name in ("patch", "placement", "success_share")} == {torch.float32}
    assert info["patch"][2].isnan().all()
    assert info["success_share"][2].isnan()
    assert not info["mask"][2].any()
    outside = ~info["mask"][:, None].expand_as(images)
    assert torch.equal(result.adversarial[outside], images[outside])
    placements = Placements.checked(shape, 5, (12, 12), (0.8, 1.2), 22.5, None)
    footprint = placements.footprint(info["placement"][attacked])
    again = footprint.paint(images[attacked], info["patch"][attacked])
    assert torch.equal(result.adversarial[attacked], again)
    assert torch.equal(info["mask"][attacked], footprint.mask)
    assert (info["patch"][attacked] >= 0).all()
    assert (info["patch"][attacked] <= 1).all()
    assert (result.l0 <= info["mask"].sum((1, 2))).all()
    assert not info["zero_gradient"].any()
    same_patch = (info["patch"][attacked] == info["patch"][0]).all()
    assert bool(same_patch) == universal


@pytest.mark.parametrize("universal", [False, True])
def test_share_counts_new_placements(universal: bool) -> None:
    model, images = net(3), draw(9, 3)
    labels = right(model, images)
    result = attacks.patch(
        model, images, labels, steps=8, samples=2, trials=6, size=0.15, universal=universal, seed=5
    )
    placements = Placements.checked("circle", 5, (12, 12), (0.8, 1.2), 22.5, None)
    drawn = placements.draw(5, torch.arange(9), torch.zeros(9, dtype=torch.int64), 6, purpose=2).view(9, 6, 4)
    reached = torch.stack(
        [
            right(model, placements.footprint(drawn[:, trial]).paint(images, result.info["patch"])) != labels
            for trial in range(6)
        ]
    )
    torch.testing.assert_close(result.info["success_share"], reached.float().mean(0))
    assert torch.equal(result.success, reached[0])
    assert 0 < reached.float().mean() < 1
    once = attacks.patch(
        model, images, labels, steps=8, samples=2, trials=1, size=0.15, universal=universal, seed=5
    )
    assert torch.equal(once.info["success_share"], once.success.float())


def test_an_image_stops_when_its_patch_works_at_all_new_placements() -> None:
    class Bright(nn.Module):
        """Class 1 where the image is brighter than a tenth of its pixels at 0.6 would make it."""

        def forward(self, x: Tensor) -> Tensor:
            light = x.mean((1, 2, 3)) - 0.06
            return torch.stack([-light, light], dim=1)

    images = torch.zeros(2, 1, 20, 20)
    labels = torch.zeros(2, dtype=torch.int64)
    fixed = {"shape": "square", "scale": (1, 1), "rotation": 0, "samples": 3, "trials": 7, "size": 0.16}
    easy = attacks.patch(Bright(), images, labels, **fixed)
    assert easy.queries.tolist() == [10, 10]
    assert (easy.info["patch"] == 0.5).all()
    assert easy.success.all()
    # 36 pixels must be above 0.6667: two steps of 0.1.
    harder = attacks.patch(Bright(), images, labels, **{**fixed, "size": 0.09})
    assert harder.queries.tolist() == [3 + 3 + 3 + 7] * 2
    torch.testing.assert_close(harder.info["patch"], torch.full((2, 1, 6, 6), 0.7), atol=1e-4, rtol=0)
    assert (harder.info["success_share"] == 1).all()
    never = attacks.patch(Bright(), images, labels, **{**fixed, "size": 0.04}, steps=9)
    assert never.queries.tolist() == [27, 27]
    torch.testing.assert_close(never.info["patch"], torch.ones(2, 1, 4, 4))
    assert not never.success.any()


def test_universal_patch_is_training_then_applying(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = net(3), draw(20, 3)
    labels = right(model, images)
    labels[[3, 8]] = (labels[[3, 8]] + 1) % 3
    known = right(model, images) == labels
    given = {"steps": 7, "samples": 6, "size": 0.15, "seed": 3}
    both = attacks.patch(model, images, labels, universal=True, **given)
    trained = attacks.train_patch(model, images, labels, **given)
    assert torch.equal(both.info["patch"][known], trained.expand(18, -1, -1, -1))
    assert torch.equal(trained, attacks.train_patch(model, images[known], labels[known], **given))
    applied = attacks.apply_patch(model, images, labels, trained, seed=3)
    assert torch.equal(both.adversarial, applied.adversarial)
    assert torch.equal(both.info["success_share"][known], applied.info["success_share"][known])
    assert (applied.queries == 0).all()
    assert both.queries.sum() == 7 * 6
    assert (both.queries[~known] == 0).all()
    monkeypatch.setattr("xaicore.attacks.base.GROUP", 3 * 144 * 4)
    assert torch.equal(
        both.adversarial, attacks.patch(model, images, labels, universal=True, **given).adversarial
    )
    few = attacks.patch(model, images[:2], labels[:2], universal=True, **given)
    assert few.queries.tolist() == [21, 21]


def test_applied_patch_does_not_depend_on_batch_mates() -> None:
    model, images, patch = net(3), draw(12, 3), draw(1, 3, seed=4)[0, :, :5, :5]
    labels = right(model, images)
    together = attacks.apply_patch(model, images, labels, patch, seed=2)
    for row in (0, 7):
        alone = attacks.apply_patch(
            model, images[row : row + 1], labels[row : row + 1], patch, seed=2, index=torch.tensor([row])
        )
        for name, tensor in alone.arrays().items():
            assert torch.equal(tensor[0], together.arrays()[name][row]), name
    other = attacks.apply_patch(model, images, labels, patch, seed=3)
    assert not torch.equal(other.info["placement"], together.info["placement"])


class Blind(nn.Module):
    """Looks at the upper left corner only, where a patch in the lower right never lies."""

    def __init__(self, constant: bool) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        light = x[:, 0, 0, 0] * (0 if self.constant else 1)
        return torch.stack([light + 1, 0 * light], dim=1)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("universal", [False, True])
def test_no_gradient_is_reported(constant: bool, universal: bool) -> None:
    images, labels = draw(3), torch.zeros(3, dtype=torch.int64)
    with pytest.warns(attacks.AttackWarning, match="no usable gradient for 3 of 3"):
        result = attacks.patch(
            Blind(constant), images, labels, location=(1, 1), steps=3, samples=3, universal=universal
        )
    assert result.info["zero_gradient"].all()
    assert not result.success.any()
    assert (result.info["patch"] == 0.5).all()


def test_nan_in_reach_of_the_patch_is_a_failure_and_no_more() -> None:
    class Sick(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: Tensor) -> Tensor:
            nan = (x[:, 0, 0, 0] > 0.9) & ((x[:, 0, 6:, 6:] - 0.5).abs() > 0.499).flatten(1).any(1)
            return self.inner(x) * torch.where(nan, torch.nan, 1.0)[:, None]

    images = draw(6) * 0.9
    images[:, 0, 6:, 6:] = 0.5
    images[:3, 0, 0, 0] = 0.95
    labels = right(net(), images)
    given = {"steps": 20, "samples": 2, "size": 0.2, "location": (1, 1), "target": (labels + 1) % 3}
    with pytest.warns(attacks.AttackWarning, match="NaN or infinite logits"):
        sick = attacks.patch(Sick(), images, labels, **given)
    well = attacks.patch(net(), images, labels, **given)
    assert sick.adversarial.isfinite().all()
    assert sick.info["nonfinite"].any()
    assert not sick.info["nonfinite"][3:].any()
    assert not sick.success[sick.info["nonfinite"]].any()
    assert torch.equal(sick.adversarial[3:], well.adversarial[3:])


def test_saturated_model_is_attacked_all_the_same() -> None:
    images = draw(8)
    labels = right(net(), images)
    model = net(gain=2.0**14)
    with torch.no_grad():
        gap = model(images).sort(1).values.diff(dim=1)[:, -1]
    assert gap.median() > 103
    result = attacks.patch(model, images, labels, size=0.3, steps=30)
    plain = attacks.patch(net(), images, labels, size=0.3, steps=30)
    assert not result.info["zero_gradient"].any()
    assert result.info["success_share"].mean() > plain.info["success_share"].mean() - 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[({"size": bad}, "size must be") for bad in (0, 1.5, float("nan"), "0.1", True, 0.9)],
        *[({"steps": bad}, "steps must be") for bad in (0, 1.5)],
        *[({"learning_rate": bad}, "learning_rate must be") for bad in (0, float("inf"))],
        *[({"samples": bad}, "samples must be") for bad in (0, 2.0)],
        ({"shape": "triangle"}, "shape must be"),
        ({"scale": (1.2, 0.8)}, "scale must be"),
        ({"rotation": 200}, "rotation must be"),
        ({"location": 0.5}, "location must be"),
        ({"seed": -1}, "seed must be"),
        ({"target": 3}, "target must lie in"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels must have the shape"),
        ({"images": draw(4) * 2}, "images must lie in"),
        ({"model": "net"}, "model must be"),
    ],
)
def test_bad_argument_is_one_clear_error(change: dict[str, object], message: str) -> None:
    images = draw(4)
    arguments = {"model": net(), "images": images, "labels": right(net(), images)} | change
    for attack in (attacks.patch, attacks.train_patch):
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            attack(**arguments)
        assert "\n" not in str(caught.value)


def test_more_bad_arguments() -> None:
    model, images = net(), draw(4)
    labels = right(model, images)
    with pytest.raises(ValueError, match="universal must be"):
        attacks.patch(model, images, labels, universal=1)
    with pytest.raises(ValueError, match="trials must be"):
        attacks.patch(model, images, labels, trials=0)
    with pytest.raises(ValueError, match="at least one that the model gets right"):
        attacks.train_patch(model, images, (labels + 1) % 3)
    for bad, message in (
        ([0.5], "patch must be a torch.Tensor"),
        (torch.rand(3, 4, 4), "patch must have shape"),
        (torch.rand(1, 4, 5), "patch must have shape"),
        (torch.rand(1, 4, 4).double(), "patch must be float32"),
        (torch.full((1, 4, 4), math.nan), "patch must be float32"),
        (torch.full((1, 4, 4), 1.1), "patch must be float32"),
        (torch.rand(1, 13, 13), "size must be smaller"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            attacks.apply_patch(model, images, labels, bad)


def test_training_leaves_nothing_behind_and_ignores_the_callers_modes() -> None:
    model = nn.Sequential(net(), nn.Dropout(0.9)).train()
    images = draw(5)
    labels = right(net(), images)
    state = torch.get_rng_state()
    trained = attacks.train_patch(model, images.requires_grad_(), labels, steps=2)
    assert model.training
    assert model[1].training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert images.grad is None
    assert not trained.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = attacks.train_patch(model, draw(5), labels.clone(), steps=2)
        both = attacks.patch(model, draw(5), labels.clone(), steps=2, universal=True)
    assert torch.equal(again, trained)
    assert torch.equal(both.info["patch"][0], trained)


def colours(channels: int, side: int) -> Tensor:
    return torch.rand(channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("size", "least", "ahead"), [(0.1, 0.5, 0.3), (0.2, 0.5, 0.25)])
def test_patch_per_digit_beats_random_colours(size: float, least: float, ahead: float) -> None:
    model, images, labels = digits(10)
    middle = {"location": (0.5, 0.5)} if size == 0.1 else {}
    result = attacks.patch(model, images, labels, size=size, steps=25, batch_size=10, **middle)
    side = result.info["patch"].shape[-1]
    control = attacks.apply_patch(model, images, labels, colours(1, side), **middle)
    share, plain = (r.info["success_share"].mean().item() for r in (result, control))
    print(f"digits, {size:.0%} of the area: {share:.0%} of placements, random colours {plain:.0%}")
    assert share > least
    assert share > plain + ahead


def test_universal_patch_works_on_digits_it_has_not_seen() -> None:
    model, images, labels = digits(300)
    keep = labels != 8
    held_out = images[keep][1::2], labels[keep][1::2]
    trained = attacks.train_patch(
        model, images[keep][::2], labels[keep][::2], size=0.25, steps=40, samples=16, target=8
    )
    shares = [
        attacks.apply_patch(model, *held_out, one, target=8, trials=4).info["success_share"].mean().item()
        for one in (trained, colours(1, trained.shape[-1]), torch.full_like(trained, 0.5))
    ]
    print(
        f"digits to 8, held out: {shares[0]:.0%} of placements, random colours {shares[1]:.0%}, grey {shares[2]:.0%}"
    )
    assert shares[0] > 0.3
    assert shares[0] > max(shares[1:]) + 0.15


def test_patch_on_photographs() -> None:
    model, images, labels = photographs(8, 140)
    given = {"scale": (0.9, 1.1), "rotation": 10, "trials": 4}
    control = attacks.apply_patch(model, images, labels, colours(3, 50), **given)
    firm = (control.info["success_share"] == 0).nonzero().squeeze(1)[1:4]
    result = attacks.patch(
        model, images[firm], labels[firm], index=firm, steps=30, samples=1, learning_rate=0.2, **given
    )
    share = result.info["success_share"].mean().item()
    print(f"photographs that random colours do not fool: {share:.0%} of placements")
    assert share >= 0.25
    covered = result.info["mask"].float().mean((1, 2))
    torch.testing.assert_close(covered, 0.1 * result.info["placement"][:, 2] ** 2, rtol=0.01, atol=0)
    outside = ~result.info["mask"][:, None].expand_as(result.adversarial)
    assert torch.equal(result.adversarial[outside], images[firm][outside])
