"""The extended set of paper 1, and retraining on it."""

import pytest
import torch
from torch import Tensor

from xaicore import attacks, models
from xaicore.attacks import AttackResult
from xaicore.defenses import adversarial_retraining, distill, extended_set


def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy 8x8 images, horizontal (0) or vertical (1) stripes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    wave = (torch.arange(8) % 2).float()
    images = torch.where((labels == 0)[:, None, None], wave[:, None].expand(8, 8), wave[None, :].expand(8, 8))
    noise = torch.rand(count, 8, 8, generator=generator)
    return (0.6 * images + 0.4 * noise)[:, None], labels


def trained() -> tuple[models.Classifier, models.Recipe]:
    recipe = models.Recipe(epochs=6, batch_size=16, learning_rate=3e-3, precision="float32")
    model = models.load("small_cnn", classes=2, channels=1, input_size=8)
    return models.train(model, *stripes(96, 0), recipe=recipe).model, recipe


def result_of(images: Tensor, success: list[bool], wrong: list[bool]) -> AttackResult:
    count = len(images)
    zeros = torch.zeros(count)
    return AttackResult(
        adversarial=(images + 0.1).clamp(0, 1),
        success=torch.tensor(success),
        l0=zeros.long(),
        l2=zeros,
        linf=zeros,
        queries=zeros.long(),
        seconds=0.0,
        info={"initially_wrong": torch.tensor(wrong)},
    )


def test_extended_set_is_clean_then_successful() -> None:
    images, labels = stripes(4, 1)
    result = result_of(images, [True, False, True, True], [False, False, True, False])
    extended, extended_labels = extended_set(images, labels, result)
    assert torch.equal(extended, torch.cat([images, result.adversarial[[0, 3]]]))
    assert torch.equal(extended_labels, torch.cat([labels, labels[[0, 3]]]))


def test_extended_set_refuses_what_does_not_belong_together() -> None:
    images, labels = stripes(4, 1)
    result = result_of(images, [True] * 4, [False] * 4)
    with pytest.raises(ValueError, match="images and those of the attack, result, must have the same shape"):
        extended_set(images[:3], labels[:3], result)
    with pytest.raises(ValueError, match=r"labels must have the shape \(4,\)"):
        extended_set(images, labels[:3], result)


def test_retraining_restores_the_accuracy() -> None:
    model, recipe = trained()
    images, labels = stripes(96, 0)
    attack = attacks.fgsm_search(model, images, labels, eps_max=0.5, steps=50)
    assert attack.success_rate() > 0.25  # networks of four seeds gave 0.51 to 0.95
    before = model.fingerprint
    extended, extended_labels = extended_set(images, labels, attack)
    new, new_labels = extended[96:], extended_labels[96:]
    immune = adversarial_retraining(
        model, images, labels, new, new_labels, validation=(extended, extended_labels), recipe=recipe
    ).model
    assert model.fingerprint == before
    # The attack ends beside the border, where rounding may decide for an image or two.
    assert models.accuracy(model, new, new_labels) < 0.05
    assert models.accuracy(immune, new, new_labels) > 0.9  # networks of four seeds gave 0.98 to 1
    assert models.accuracy(immune, images, labels) > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": torch.zeros(3, dtype=torch.int64)}, r"train_labels must have the shape \(4,\)"),
        ({"adversarial_labels": torch.zeros(2)}, "adversarial_labels must be"),
        ({"adversarial_images": torch.rand(2, 1, 9, 9)}, "must be of the size"),
        (
            {
                "adversarial_images": torch.rand(0, 1, 8, 8),
                "adversarial_labels": torch.zeros(0, dtype=torch.int64),
            },
            "never succeeded",
        ),
    ],
)
def test_retraining_refuses_bad_input(change: dict[str, Tensor], message: str) -> None:
    images, labels = stripes(4, 1)
    arguments = {
        "train_images": images,
        "train_labels": labels,
        "adversarial_images": images[:2],
        "adversarial_labels": labels[:2],
    } | change
    model = models.load("small_cnn", classes=2, channels=1, input_size=8)
    with pytest.raises(ValueError, match=message):
        adversarial_retraining(model, **arguments, validation=None, recipe=models.Recipe(epochs=1))


def test_a_distillation_leaves_the_cards_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    model = models.load("small_cnn", classes=2, channels=1, input_size=8)
    before = torch.get_rng_state()
    distill(model, *stripes(4, 0), epochs=1, batch_size=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded
