"""Reformers, denoisers, distillation and adversarial training against MagNet's own, numbers by hand and autograd."""

import copy

import pytest
import torch
from subjects import draw_12 as draw
from subjects import two_convolutions
from torch import Tensor, nn

from xaicore import attacks, models
from xaicore.core.errors import UserError
from xaicore.defenses import (
    Denoiser,
    Reformed,
    adversarial_training,
    distill,
    soft_labels,
    trained_denoiser,
)
from xaicore.detectors import MagNet

MODEL = two_convolutions(1, 4, 0)


def bars(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy 8 x 8 images with a bright bar at the left (0) or at the top (1)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.3 * torch.rand(count, 1, 8, 8, generator=generator)
    images[labels == 0, :, :, :3] += 0.6
    images[labels == 1, :, :3, :] += 0.6
    return images, labels


def untrained() -> models.Classifier:
    return models.load("small_cnn", classes=2, channels=1, input_size=8, width=0.25)


class Halved(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images / 2


def test_a_reformer_stands_in_front_of_the_network_with_its_gradient() -> None:
    images = draw(3).requires_grad_(True)
    defended = Reformed(MODEL, Halved())
    logits = defended(images)
    torch.testing.assert_close(logits, MODEL(images / 2))
    (ours,) = torch.autograd.grad(logits[:, 1].sum(), images)
    inner = (images.detach() / 2).requires_grad_(True)
    (theirs,) = torch.autograd.grad(MODEL(inner)[:, 1].sum(), inner)
    torch.testing.assert_close(ours, theirs / 2)


def test_black_and_white_pixels_keep_their_gradient() -> None:
    """What stands in for the gradient of rounding to one bit gives zeros and ones only."""

    class Straight(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + ((2 * images).round() - 0.5 - images).detach()

    images = torch.tensor([0.2, 0.3, 0.7, 0.8]).view(1, 1, 2, 2).requires_grad_(True)
    reformed = Reformed(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), Straight()).reform(images)
    assert reformed.flatten().tolist() == [0.0, 0.5, 0.5, 1.0]
    (slope,) = torch.autograd.grad(reformed.sum(), images)
    assert slope.flatten().tolist() == [0.0, 1.0, 1.0, 0.0], "cut off: no gradient"
    halved = Reformed(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), nn.Identity())
    ends = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).requires_grad_(True)
    (slope,) = torch.autograd.grad(halved.reform(ends).sum(), ends)
    assert slope.flatten().tolist() == [1.0, 1.0]


def test_fingerprints_tell_reformers_apart() -> None:
    one, other = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
    assert Reformed(MODEL, one).fingerprint == Reformed(MODEL, copy.deepcopy(one)).fingerprint
    assert Reformed(MODEL, one).fingerprint != Reformed(MODEL, other).fingerprint


def test_the_reformer_is_the_one_of_magnet() -> None:
    detector = MagNet(MODEL, epochs=1, batch_size=8).fit(draw(16), draw(4, seed=7))
    images = draw(5, seed=2)
    reformed = Reformed(MODEL, detector.reformer).reform(images)
    torch.testing.assert_close(reformed, detector.reform(images), rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="fit this MagNet"):
        _ = MagNet(MODEL).reformer


def test_defended_networks_can_be_attacked() -> None:
    images, labels = bars(60, 0)
    model = models.train(
        untrained(), images, labels, recipe=models.Recipe(epochs=6, batch_size=12, learning_rate=5e-3)
    ).model
    denoiser = trained_denoiser(images, images, epochs=80, batch_size=10)
    defended = Reformed(model, denoiser)
    assert models.accuracy(defended, images, labels) > 0.9  # type: ignore[arg-type]
    result = attacks.pgd(defended, images, labels, eps=0.5, steps=20)
    assert result.success_rate() > 0.5


def test_a_denoiser_brings_noisy_images_nearer() -> None:
    images, _ = bars(200, 0)
    held, _ = bars(40, 1)
    spread = 0.3 * torch.randn(240, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    noisy = (torch.cat([images, held]) + spread).clamp(0, 1)
    denoiser = trained_denoiser(noisy[:200], images, noise=0.0, epochs=40, batch_size=20)
    before, after = (noisy[200:] - held).norm(), (denoiser(noisy[200:]) - held).norm()
    assert after < 0.6 * before


def test_training_repeats_and_leaves_the_global_generator() -> None:
    images, labels = bars(24, 0)
    state = torch.get_rng_state()
    nets = [trained_denoiser(images, images, epochs=1, seed=4).state_dict() for _ in range(2)]
    students = [
        distill(untrained(), images, labels, epochs=1, seed=4).student.network.state_dict() for _ in range(2)
    ]
    assert torch.equal(state, torch.get_rng_state())
    for one, two in (nets, students):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_soft_labels_are_the_softmax_at_a_temperature() -> None:
    model, images = untrained(), bars(6, 0)[0]
    with torch.no_grad():
        logits = model(images).double()
    expected = (logits / 5).exp() / (logits / 5).exp().sum(1, keepdim=True)
    torch.testing.assert_close(soft_labels(model, images, 5.0).double(), expected, atol=1e-6, rtol=0)


def test_distillation_makes_large_logits_that_attacks_on_logits_still_turn() -> None:
    """At temperature T the training wants z / T where it wants z at 1; what the attacks here follow stays there."""
    images, labels = bars(120, 0)
    options = {"epochs": 12, "batch_size": 20, "learning_rate": 5e-3}
    usual = distill(untrained(), images, labels, temperature=1, **options)
    hot = distill(untrained(), images, labels, temperature=20, **options)
    leads = [
        (models.predict(each.student, images)[:, 0] - models.predict(each.student, images)[:, 1])
        .abs()
        .median()
        for each in (usual, hot)
    ]
    assert leads[1] > 2 * leads[0]
    right = models.accuracy(hot.student, images, labels)
    assert right > 0.95
    assert attacks.pgd(hot.student, images, labels, eps=0.5, steps=20).success_rate() > 0.8
    answers = soft_labels(hot.teacher, images, 20.0)
    ours = soft_labels(hot.student, images, 20.0)
    assert (answers - ours).abs().mean() < 0.1, "the student learns the teacher's answers"


def test_what_does_not_fit_is_refused() -> None:
    images, labels = bars(4, 0)
    with pytest.raises(TypeError, match="reformer must be"):
        Reformed(MODEL, lambda images: images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keep the shape"):
        Reformed(MODEL, nn.AvgPool2d(2))(draw(1))
    with pytest.raises(ValueError, match="corrupted and clean must have the same shape"):
        trained_denoiser(images[:2], images)
    with pytest.raises(ValueError, match="clean must lie in"):
        trained_denoiser(images, images + 1)
    with pytest.raises(UserError, match="corrupted must be float32"):
        trained_denoiser(images.double(), images)
    with pytest.raises(ValueError, match="labels must have the shape"):
        distill(untrained(), images, labels[:2])
    with pytest.raises(UserError, match="temperature must be"):
        distill(untrained(), images, labels, temperature=0.5)
    assert Denoiser((1, 8, 8)).layers[-2].out_features == 64


def test_an_update_of_adversarial_training_by_hand() -> None:
    """One batch: PGD on the network as it is, then a step of AdamW on what it made."""
    images, labels = bars(12, 0)
    start = untrained()
    before = copy.deepcopy(start.state_dict())
    found = adversarial_training(start, images, labels, eps=0.1, steps=2, epochs=1, batch_size=12, seed=3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    made = attacks.pgd(
        start,
        images[order],
        labels[order],
        eps=0.1,
        steps=2,
        early_stop=False,
        seed=3,
        index=order,
        batch_size=12,
    )
    assert float(made.linf.max()) > 0.05
    expected = copy.deepcopy(start).train()
    optimizer = torch.optim.AdamW(expected.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=2, cycle_momentum=False
    )
    nn.functional.cross_entropy(expected(made.adversarial), labels[order]).backward()
    optimizer.step()
    del schedule
    for name, weight in found.state_dict().items():
        assert torch.equal(start.state_dict()[name], before[name])
        if name.removeprefix("network.features.") in ("0.bias", "3.bias", "7.bias", "10.bias"):
            continue  # normalised away: its gradient is rounding, which Adam takes for a direction
        torch.testing.assert_close(weight, expected.state_dict()[name], atol=2e-5, rtol=1e-3)
    assert not found.training


def test_adversarial_training_withstands_what_training_does_not() -> None:
    images, labels = bars(96, 0)
    held = bars(40, 1)
    recipe = models.Recipe(epochs=6, batch_size=12, learning_rate=5e-3)
    plain = models.train(untrained(), images, labels, recipe=recipe).model
    state = torch.get_rng_state()
    given = {"eps": 0.25, "steps": 4, "epochs": 6, "batch_size": 12, "learning_rate": 5e-3}
    robust, again = (adversarial_training(untrained(), images, labels, **given) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert robust.fingerprint == again.fingerprint
    left = [
        1 - float(attacks.autoattack(each, *held, eps=0.25, steps=10, queries=100).success.double().mean())
        for each in (plain, robust)
    ]
    assert left[1] > left[0] + 0.3
    assert models.accuracy(robust, *held) > 0.9


def test_adversarial_training_says_when_it_diverges() -> None:
    images, labels = bars(24, 0)
    with pytest.raises(UserError, match="training diverged"):
        adversarial_training(untrained(), images, labels, epochs=9, steps=1, learning_rate=1e12)
