"""fgsm and fgsm_search against foolbox, the formula, a plain loop, and saturated or dead models."""

from functools import partial

import foolbox
import pytest
import subjects
import torch
from torch import Tensor, nn

from xaicore import attacks
from xaicore.attacks.goal import Goal
from xaicore.attacks.victim import Victim


def net(channels: int = 1, classes: int = 3, seed: int = 0) -> nn.Sequential:
    def build() -> nn.Sequential:
        first, second, last = (
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3),
            nn.Conv2d(8, classes, 4),
        )
        return nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.Tanh(), last, nn.Flatten())

    return subjects.seeded(build, seed).eval()


draw = partial(subjects.draw, side=12)


def logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy's gradient in float64."""
    double = images.double().requires_grad_()
    model.double()
    try:
        loss = nn.functional.cross_entropy(model(double), labels, reduction="sum")
        return torch.autograd.grad(loss, double)[0]
    finally:
        model.float()


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 10)])
@pytest.mark.parametrize("eps", [4 / 255, 0.3])
@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_equals_foolbox(channels: int, classes: int, eps: float, targeted: bool) -> None:
    model, images = net(channels, classes), draw(40, channels)
    labels = logits(model, images).argmax(1)
    target = (labels + 1) % classes if targeted else None
    ours = attacks.fgsm(model, images, labels, eps=eps, target=target, batch_size=16)
    if target is None:
        theirs, success = subjects.by_foolbox(foolbox.attacks.FGSM(), model, images, labels, eps=eps)
    else:  # foolbox 3.3.4 refuses targets here: step by the formula
        theirs = (images - eps * gradient(model, images, target).sign().float()).clamp(0, 1)
        success = logits(model, theirs).argmax(1) == target
    exact = gradient(model, images, labels if target is None else target).abs()
    certain = exact > 1e-5 * exact.amax(dim=(1, 2, 3), keepdim=True)
    assert certain.float().mean() > 0.99
    torch.testing.assert_close(ours.adversarial[certain], theirs[certain], atol=1e-6, rtol=0)
    assert torch.equal(ours.success, success)
    assert (ours.queries == 1).all()


def test_saturated_model_keeps_its_gradient() -> None:
    model, images = net(classes=2), draw(12)
    labels = logits(model, images).argmax(1)
    plain = attacks.fgsm(model, images, labels, eps=0.05)
    with torch.no_grad():
        for parameter in model[-2].parameters():  # of the layer of logits, before they are flattened
            parameter.mul_(2.0**14)
    gap = logits(model, images).diff(dim=1).abs()
    assert gap.min() > 103
    wanted = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(wanted), labels, reduction="sum")
    assert (torch.autograd.grad(loss, wanted)[0] == 0).all()
    saturated = attacks.fgsm(model, images, labels, eps=0.05)
    assert not saturated.info["zero_gradient"].any()
    assert torch.equal(saturated.adversarial, plain.adversarial)
    assert torch.equal(saturated.success, plain.success)


def naive_search(
    model: nn.Module,
    image: Tensor,
    label: int,
    target: int | None,
    eps_max: float,
    steps: int,
    batch_size: int,
) -> tuple[float, Tensor, int]:
    """The definition, one image and one forward pass at a time."""
    goal = Goal(torch.tensor([label]), None if target is None else torch.tensor([target]))
    victim = Victim(model, batch_size)
    direction = victim.gradient(image[None], goal)[0].sign()
    for i in range(1, steps + 1):
        eps = torch.tensor(i * eps_max / steps, dtype=torch.float32)
        candidate = (image + eps * direction).clamp(0, 1)
        predicted = int(victim.logits(candidate[None]).argmax())
        if (predicted != label) if target is None else (predicted == target):
            return float(eps), candidate, 1 + i
    return float("inf"), candidate, 1 + steps


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("batch_size", "count"), [(4, 14), (32, 14), (32, 1)])
def test_search_equals_the_plain_loop(targeted: bool, batch_size: int, count: int) -> None:
    model, images = net(), draw(count, seed=7)
    labels = logits(model, images).argmax(1)
    target = (labels + 1) % 3 if targeted else None
    result = attacks.fgsm_search(
        model, images, labels, eps_max=0.06, steps=23, target=target, batch_size=batch_size
    )
    with torch.no_grad():
        for i in range(count):
            wanted = None if target is None else int(target[i])
            eps, adversarial, queries = naive_search(
                model, images[i], int(labels[i]), wanted, 0.06, 23, batch_size
            )
            assert result.info["eps"][i].item() == eps
            assert torch.equal(result.adversarial[i], adversarial)
            assert result.queries[i] == queries
            assert result.success[i] == (eps < float("inf"))
    if count > 1:
        assert result.success.any()
        assert not result.success.all()


def test_search_takes_the_smallest_where_success_is_not_monotone() -> None:
    class Window(nn.Module):
        """Class 1 while the first pixel lies in (0.30, 0.36); a positive slope everywhere."""

        def forward(self, x: Tensor) -> Tensor:
            first = x[:, 0, 0, 0]
            inside = ((first > 0.30) & (first < 0.36)).float()
            return torch.stack([torch.zeros_like(first), first * 1e-3 + inside - 0.5], dim=1)

    images = torch.full((1, 1, 2, 2), 0.2)
    label = torch.zeros(1, dtype=torch.int64)
    result = attacks.fgsm_search(Window(), images, label, eps_max=0.5, steps=50)
    assert result.info["eps"].item() == pytest.approx(0.11)
    assert result.success.all()
    assert not attacks.fgsm(Window(), images, label, eps=0.5).success.any()


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 10)])
def test_direction_is_foolbox_s_for_every_image_right_or_wrong(channels: int, classes: int) -> None:
    model, images = net(channels, classes), draw(40, channels)
    answers = logits(model, images).argmax(1)
    labels = torch.where(torch.arange(40) % 2 == 0, answers, (answers + 1) % classes)
    direction = attacks.fgsm_direction(model, images, labels, batch_size=16)
    ours = (images + 0.1 * direction).clamp(0, 1)
    theirs, _ = subjects.by_foolbox(foolbox.attacks.FGSM(), model, images, labels, eps=0.1)
    steady = gradient(model, images, labels).abs() > 1e-6  # elsewhere the sign is a matter of rounding
    assert steady.flatten(1).double().mean(1).min() > 0.9
    assert torch.equal(ours[steady], theirs[steady])
    attacked = attacks.fgsm(model, images, labels, eps=0.1, batch_size=16)
    wrong = labels != answers
    rounding = torch.finfo(torch.float32).eps / 2  # which the attack takes back where it left the ball
    torch.testing.assert_close(attacked.adversarial[~wrong], ours[~wrong], rtol=0, atol=rounding)
    assert torch.equal(attacked.adversarial[wrong], images[wrong]), "an attack leaves a wrong image alone"
    assert (ours != images).flatten(1).any(1).all()


def test_direction_refuses_what_fgsm_refuses() -> None:
    model, images = net(), draw(2)
    with pytest.raises(ValueError, match="labels"):
        attacks.fgsm_direction(model, images, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="images"):
        attacks.fgsm_direction(model, images * 2, torch.tensor([0, 1]))
