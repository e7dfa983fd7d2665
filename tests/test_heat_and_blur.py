"""Heat and Blur against SciPy, torchvision, foolbox and a network worked by hand; the paper's attack on it."""

import copy
from typing import Any

import foolbox
import numpy as np
import pytest
import scipy.ndimage
import torch
import torchvision.transforms.functional
from hypothesis import given, settings
from hypothesis import strategies as st
from subjects import convolutional, right, two_convolutions
from torch import Tensor, nn

from xaicore import attacks, attribution, models
from xaicore.attacks import ATTACKS, AttackResult
from xaicore.core.errors import UserError
from xaicore.defenses import HeatAndBlur, gaussian_blur, heat_and_blur, masked_attack, restore, shown_to
from xaicore.metrics import relevance_mask

few = settings(max_examples=15, deadline=None)


def draw(count: int, channels: int = 3, side: int = 12, seed: int = 1) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def net(channels: int = 3, classes: int = 4, seed: int = 0) -> nn.Sequential:
    model = two_convolutions(channels, classes, seed)
    with torch.no_grad():
        model[-1].weight.mul_(8)
    return model.eval()


def linear(weights: list[list[float]]) -> nn.Sequential:
    """A network that weighs the pixels of a grey image."""
    layer = nn.Linear(len(weights[0]), len(weights), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
    return nn.Sequential(nn.Flatten(), layer).eval()


@given(st.floats(0.1, 3), st.integers(1, 40), st.integers(1, 40))
@few
def test_blur_is_that_of_scipy(sigma: float, height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    expected = scipy.ndimage.gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma))
    np.testing.assert_allclose(gaussian_blur(images, sigma).numpy(), expected, atol=2e-6)


def test_blur_is_that_of_torchvision_away_from_the_border() -> None:
    images = draw(2, side=40)
    expected = torchvision.transforms.functional.gaussian_blur(images, [17, 17], [2.0, 2.0])
    torch.testing.assert_close(gaussian_blur(images, 2.0)[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8])


def test_algorithm_1_by_hand() -> None:
    """With a positive weight on one pixel alone, deep Taylor leaves all relevance there: one pixel of 49 is kept."""
    weights = torch.zeros(2, 49)
    weights[1, 24] = 5.0  # the middle of 7 x 7
    image = torch.zeros(1, 1, 7, 7)
    image[0, 0, 3, 3] = 1.0
    defended = HeatAndBlur(linear(weights.tolist()), sigma=1.0, preset="deep-taylor")
    mask = defended.masks(image)[0]
    assert mask.nonzero().tolist() == [[3, 3]]
    blurred = scipy.ndimage.gaussian_filter(image[0, 0].numpy(), 1.0)
    expected = torch.from_numpy(blurred)
    expected[3, 3] = 1.0
    torch.testing.assert_close(defended.clean(image)[0, 0], expected)
    torch.testing.assert_close(defended(image), torch.tensor([[0.0, 5.0]]))
    # Without the mask only the blurred peak is left, exp(0)/(sum of the kernel) squared.
    kernel = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    peak = (1 / kernel.sum()) ** 2
    assert defended.variant(mask="none")(image)[0, 1].item() == pytest.approx(5 * peak, rel=1e-6)


def test_the_mask_is_that_of_the_predicted_class() -> None:
    model, images = net(), draw(6)
    defended = HeatAndBlur(model, sigma=0.8)
    maps = attribution.lrp(
        model, images, right(model, images), preset="deep-taylor-bounded", low=0.0, high=1.0
    )
    assert torch.equal(defended.masks(images), relevance_mask(maps))
    expected = model(restore(images, relevance_mask(maps), 0.8))
    torch.testing.assert_close(defended(images), expected)


def test_photographs_through_the_published_network() -> None:
    model = models.load("efficientnet_lite0", weights="imagenet")
    images = draw(2, side=64)
    defended = HeatAndBlur(model)
    assert defended.classes == model.classes
    assert (defended.name, defended.device) == ("efficientnet_lite0", model.device)
    maps = attribution.lrp(model, images, preset="deep-taylor-bounded")
    expected = models.predict(model, restore(images, relevance_mask(maps), 1.0))
    torch.testing.assert_close(models.predict(defended, images), expected, atol=2e-4, rtol=0)


@given(st.integers(0, 10**6), st.floats(0, 3))
@few
def test_values_stay_within_the_image_and_marked_pixels_stay(seed: int, sigma: float) -> None:
    images = draw(3, seed=seed)
    images[0] = images[0].round()
    masks = draw(3, 1, seed=seed + 1)[:, 0] > 0.6
    cleaned = restore(images, masks, sigma)
    assert ((cleaned >= 0) & (cleaned <= 1)).all()
    kept = masks[:, None].expand_as(images)
    assert torch.equal(cleaned[kept], images[kept])
    channel = images.amax((2, 3)) + 1e-6
    assert (cleaned.amax((2, 3)) <= channel).all()


@given(st.integers(0, 10**6))
@few
def test_no_blur_is_the_network_itself(seed: int) -> None:
    model, images = net(), draw(2, seed=seed)
    for mask in ("heat", "random", "none"):
        assert torch.equal(HeatAndBlur(model, sigma=0, mask=mask)(images), model(images))


def test_a_heatmap_without_contrast_is_plain_blur() -> None:
    flat = linear([[1.0] * 64, [2.0] * 64])
    images = torch.full((1, 1, 8, 8), 0.5)
    defended = HeatAndBlur(flat, preset="deep-taylor")
    assert not defended.masks(images).any()
    mixed = draw(1, 1, 8)
    nothing = defended.variant(k_std=1e6)  # no pixel is so far above the mean
    assert torch.equal(nothing(mixed), defended.variant(mask="none")(mixed))


def test_controls() -> None:
    model, images = net(), draw(5)
    defended = HeatAndBlur(model)
    heat, scattered = defended.masks(images), defended.variant(mask="random").masks(images)
    assert torch.equal(heat.sum((1, 2)), scattered.sum((1, 2)))
    assert not torch.equal(heat, scattered)
    assert not torch.equal(scattered, defended.variant(mask="random", seed=1).masks(images))
    assert not defended.variant(mask="none").masks(images).any()
    given_mask = torch.zeros(12, 12, dtype=torch.bool)
    given_mask[2:5, 3:9] = True
    assert torch.equal(defended.variant(mask=given_mask).masks(images), given_mask.expand(5, 12, 12))
    everything = defended.variant(mask=torch.ones(12, 12, dtype=torch.bool))
    assert torch.equal(everything(images), model(images))


def gradient(model: nn.Module, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(model(leaf).square().sum(), leaf)[0]


def test_held_mask_is_the_derivative_of_the_whole_defence() -> None:
    """Central differences in float64 agree wherever the mask does not change."""
    model, images = net().double(), draw(1).double()
    defended = HeatAndBlur(model, sigma=0.9)
    slope, step = gradient(defended, images), 1e-6
    mask = defended.masks(images)
    compared = 0
    for position in range(0, images.numel(), 17):
        shift = torch.zeros_like(images).view(-1)
        shift[position] = step
        up, down = images + shift.view_as(images), images - shift.view_as(images)
        if not all(torch.equal(defended.masks(each), mask) for each in (up, down)):
            continue
        with torch.no_grad():
            change = (defended(up).square().sum() - defended(down).square().sum()) / (2 * step)
        assert change.item() == pytest.approx(slope.view(-1)[position].item(), rel=1e-4, abs=1e-6)
        compared += 1
    assert compared >= 20


def test_straight_through_is_the_slope_of_the_network_at_the_cleaned_image() -> None:
    model, images = net(), draw(4)
    defended = HeatAndBlur(model, gradient="straight-through")
    torch.testing.assert_close(gradient(defended, images), gradient(model, defended.clean(images)))
    torch.testing.assert_close(defended(images), defended.variant(gradient="held-mask")(images))


def test_several_sigmas_are_their_mean_with_one_mask() -> None:
    model, images = net(), draw(3)
    both = HeatAndBlur(model, sigma=(0.5, 2.0))
    expected = torch.stack([HeatAndBlur(model, sigma=sigma)(images) for sigma in (0.5, 2.0)]).mean(0)
    torch.testing.assert_close(both(images), expected)
    assert torch.equal(both.clean(images), HeatAndBlur(model, sigma=0.5).clean(images))


@pytest.mark.parametrize("kind", ["held-mask", "straight-through"])
def test_the_gradient_of_several_sigmas_is_that_of_their_mean(kind: str) -> None:
    images, weights = draw(3).requires_grad_(), draw(1, side=2)[0, 0].flatten()
    single = [HeatAndBlur(net(), sigma=sigma, gradient=kind) for sigma in (0.5, 1.0, 2.0)]
    mean = torch.stack([defended(images) for defended in single]).mean(0)
    (expected,) = torch.autograd.grad((mean @ weights).square().sum(), images)
    logits = HeatAndBlur(net(), sigma=(0.5, 1.0, 2.0), gradient=kind)(images)
    (found,) = torch.autograd.grad((logits @ weights).square().sum(), images)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["held-mask", "straight-through"])
def test_pgd_is_that_of_foolbox(kind: str) -> None:
    images = draw(6)
    defended = HeatAndBlur(net(), gradient=kind)
    labels = right(defended, images)
    options = {"eps": 0.06, "steps": 5, "step_size": 0.02}
    ours = attacks.pgd(defended, images, labels, random_start=False, early_stop=False, **options)
    peer = foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=0.02, steps=5, random_start=False)
    model = foolbox.PyTorchModel(defended, bounds=(0, 1), device="cpu")
    _, theirs, fooled = peer(model, images, labels, epsilons=0.06)
    # Cross-entropy and log-odds have one direction; the sign of a slope of 0 apart, the images are the same.
    assert (ours.adversarial - theirs).abs().gt(1e-5).float().mean() < 0.01
    assert torch.equal(ours.success, fooled)
    assert ours.success.any()


ATTACKED = {
    "patch": {"steps": 2, "samples": 2, "trials": 1},
    "boundary": {"steps": 4, "start_tries": 4},
    "pgd": {"steps": 2},
    "dlfuzz": {"iterations": 1},
    "cw_l2": {"steps": 2, "search_steps": 1},
    "one_pixel": {"population": 4, "generations": 1},
}
"""Attacks that ask a model in different ways; what a model does inside, test_any_network.py asks of all of them."""


@pytest.mark.parametrize("name", ATTACKED)
def test_attacks_take_it_as_a_classifier(name: str) -> None:
    images = draw(3)
    defended = HeatAndBlur(net())
    labels = right(defended, images)
    before = copy.deepcopy(defended.state_dict())
    result = ATTACKS[name](defended, images, labels, **ATTACKED[name])
    assert not result.info["initially_wrong"].any()
    assert torch.equal(result.success, right(defended, result.adversarial) != labels)
    assert all(torch.equal(tensor, before[key]) for key, tensor in defended.state_dict().items())
    assert all(parameter.requires_grad for parameter in defended.parameters())


def test_an_image_does_not_depend_on_its_batch_mates() -> None:
    images = draw(9)
    defended = HeatAndBlur(convolutional(net()))
    labels = right(defended, images)
    whole = attacks.pgd(defended, images, labels, steps=4, batch_size=4)
    alone = attacks.pgd(defended, images[5:6], labels[5:6], steps=4, batch_size=4, index=torch.tensor([5]))
    assert torch.equal(whole.adversarial[5:6], alone.adversarial)


def test_large_photographs_are_explained_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def few_maps(model: nn.Module, images: Tensor, *, batch_size: int, **options: Any) -> Tensor:
        seen.append(batch_size)
        return torch.rand(len(images), 1, *images.shape[2:])

    monkeypatch.setattr(heat_and_blur, "lrp", few_maps)
    for side, count in ((12, 40), (224, 40), (224, 3)):
        HeatAndBlur(net()).masks(torch.zeros(1, 3, side, side).expand(count, 3, side, side))
    assert seen == [20, 5, 3]


def test_transfer_is_measured_on_the_other_model() -> None:
    images, model = draw(12), net()
    defended = HeatAndBlur(model)
    labels = right(model, images)
    made = attacks.pgd(model, images, labels, eps=0.05, steps=5)
    shown = shown_to(defended, images, labels, made)
    assert torch.equal(shown.success, right(defended, made.adversarial) != labels)
    assert torch.equal(shown.info["initially_wrong"], right(defended, images) != labels)
    assert torch.equal(shown.l2, made.l2)
    assert made.success.float().mean() > shown.success.float().mean()
    with pytest.raises(ValueError, match="images and those of the attack, result, must have the same shape"):
        shown_to(defended, images[:3], labels[:3], made)


def test_algorithm_2_by_hand() -> None:
    """Two pixels speak for class 1 and are kept; moved by 0.3, they no longer outweigh class 0."""
    weights = torch.zeros(2, 64)
    weights[1, [9, 54]] = 4.0
    weights[0, :] = 0.05
    weights[0, [9, 54]] = 0.0
    images = torch.full((1, 1, 8, 8), 0.9)
    model = linear(weights.tolist())
    # 62 * 0.05 * 0.9 = 2.79 against 8 * 0.9 = 7.2; with the pair at p, class 0 wins below p = 0.349.
    defended = HeatAndBlur(model, preset="deep-taylor")
    assert defended.masks(images)[0].nonzero().tolist() == [[1, 1], [6, 6]]
    common = {"attack": attacks.bim, "steps": 1, "step_size": 0.2, "early_stop": False}
    short = masked_attack(defended, images, torch.tensor([1]), eps=0.5, **common)
    assert not short.success.item()
    assert short.linf.item() == pytest.approx(0.5, abs=1e-6)
    assert short.l0.item() == 2
    assert short.info["rounds"].item() == 10
    wide = masked_attack(defended, images, torch.tensor([1]), eps=0.9, **common)
    assert wide.success.item()
    assert wide.info["rounds"].item() == 3  # 0.9, 0.7, 0.5, 0.3
    changed = (wide.adversarial - images)[0, 0]
    assert changed.nonzero().tolist() == [[1, 1], [6, 6]]
    assert changed[1, 1].item() == pytest.approx(-0.6, abs=1e-6)


def test_algorithm_2_keeps_its_budget_and_measures_both_models() -> None:
    images, model = draw(16), net()
    defended = HeatAndBlur(model)
    labels = right(model, images)
    labels[3] = (labels[3] + 1) % 4
    result = masked_attack(
        defended, images, labels, eps=0.1, iterations=4, steps=4, early_stop=False, batch_size=16
    )
    assert isinstance(result, AttackResult)
    assert (result.linf <= 0.1 + 1e-7).all()
    assert torch.equal(result.success, right(model, result.adversarial) != labels)
    assert result.info["initially_wrong"].nonzero().tolist() == [[3]]
    assert torch.equal(result.adversarial[3], images[3])
    known = right(defended, images) == labels
    assert torch.equal(result.info["defence_right"], known)
    fooled = known & (right(defended, result.adversarial) != labels)
    assert torch.equal(result.info["defence_fooled"], fooled)
    again = masked_attack(
        defended, images, labels, eps=0.1, iterations=4, steps=4, early_stop=False, batch_size=16
    )
    assert torch.equal(result.adversarial, again.adversarial)


def test_fingerprint_says_what_is_defended_and_how() -> None:
    model = models.load("small_cnn", classes=3, channels=1, input_size=12)
    defended = HeatAndBlur(model)
    assert defended.fingerprint == HeatAndBlur(copy.deepcopy(model)).fingerprint
    others = [defended.variant(**change) for change in ({"sigma": 2.0}, {"mask": "none"}, {"k_std": 1.0})]
    others += [defended.variant(gradient="straight-through"), HeatAndBlur(nn.Sequential(model))]
    with torch.no_grad():
        twin = copy.deepcopy(model)
        next(twin.parameters()).add_(1)
    others.append(HeatAndBlur(twin))
    assert len({each.fingerprint for each in (defended, *others)}) == 7


def test_a_model_without_name_or_parameters_on_a_copy() -> None:
    defended = HeatAndBlur(net())
    twin = copy.deepcopy(defended)
    images = draw(2)
    torch.testing.assert_close(twin(images), defended(images))
    with pytest.raises(UserError, match="lrp cannot follow"):
        attribution.lrp(defended, images)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sigma": -1.0}, ValueError, "sigma must be a finite number, at least 0"),
        ({"sigma": float("nan")}, ValueError, "sigma must be"),
        ({"sigma": ()}, ValueError, "sigma must be a number or at least one"),
        ({"preset": "deep-tailor"}, UserError, "preset must be one of"),
        ({"k_std": float("inf")}, ValueError, "k_std must be a finite number"),
        ({"mask": "cool"}, UserError, "mask must be one of heat, random, none"),
        ({"mask": torch.zeros(3, 3)}, TypeError, "mask must be a boolean tensor"),
        ({"gradient": "none"}, UserError, "gradient must be one of"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"model": "vgg19"}, TypeError, "model must be a torch.nn.Module"),
    ],
)
def test_settings_that_make_no_sense(change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HeatAndBlur(**{"model": net(), **change})


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (draw(2) * 2, ValueError, r"images must lie in \[0, 1\]"),
        (draw(2) * torch.nan, ValueError, "images must be finite"),
        (draw(2)[0], ValueError, "images must have the shape"),
        (draw(2).round().long(), TypeError, "images must be a floating-point tensor"),
        (draw(2, 1), ValueError, "images"),
    ],
)
def test_images_that_make_no_sense(images: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HeatAndBlur(net())(images)


def test_masks_that_do_not_fit() -> None:
    images = draw(2)
    with pytest.raises(ValueError, match="masks must have the shape"):
        restore(images, torch.zeros(3, 12, 12, dtype=torch.bool), 1.0)
    with pytest.raises(TypeError, match="masks must be a boolean tensor"):
        restore(images, torch.zeros(2, 12, 12), 1.0)
    with pytest.raises(ValueError, match="images must be of the size of the mask"):
        HeatAndBlur(net(), mask=torch.zeros(8, 8, dtype=torch.bool))(images)
