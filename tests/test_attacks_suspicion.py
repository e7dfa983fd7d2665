"""Warnings and suspicions: each fires on a model or result made for it, and not beside it."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from xaicore import attacks
from xaicore.attacks import ATTACKS, AttackResult, AttackWarning, suspicions

quiet = pytest.mark.filterwarnings("ignore::xaicore.attacks.AttackWarning")


class Mean(nn.Module):
    """Class 1 where the mean is over a half; a smooth model that attacks beat."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = x.mean(dim=(1, 2, 3))
        return torch.stack([torch.full_like(brightness, 0.5), brightness], dim=1)


class Quantised(Mean):
    """The same behind a defence that rounds its input to 6 levels: its gradient is zero everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 5).round() / 5)


class Restless(Mean):
    """Adds noise to its input, also in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.01 * torch.randn_like(x))


def grey(count: int = 6, value: float = 0.45) -> tuple[Tensor, Tensor]:
    return torch.full((count, 1, 6, 6), value), torch.zeros(count, dtype=torch.int64)


def result(success: list[bool], linf: list[float], **info: Tensor) -> AttackResult:
    """A result on 1 x 1 images, with all norms alike; not a product of any attack."""
    n, norm = len(success), torch.tensor(linf)
    given = {
        "initially_wrong": torch.zeros(n, dtype=torch.bool),
        "nonfinite": torch.zeros(n, dtype=torch.bool),
    }
    return AttackResult(
        adversarial=torch.zeros(n, 1, 1, 1),
        success=torch.tensor(success),
        l0=norm.ceil().long(),
        l2=norm,
        linf=norm,
        queries=torch.ones(n, dtype=torch.int64),
        seconds=0.0,
        info=given | info,
    )


def found(kind: str, *arguments: object, **options: object) -> list[attacks.Suspicion]:
    return [s for s in suspicions(*arguments, **options) if s.kind == kind]


def test_nonfinite_logits_are_warned_of() -> None:
    class Sick(Mean):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.where(x[:, 0, 0, 0] > 0.9, torch.nan, 1.0)[:, None]

    images, labels = grey(3)
    images[1, 0, 0, 0] = 0.95
    with pytest.warns(AttackWarning, match="NaN or infinite logits for 1 of 3 images") as caught:
        sick = attacks.fgsm(Sick(), images, labels)
    assert len(caught) == 1
    [suspicion] = found("nonfinite", {"fgsm": sick})
    assert (suspicion.attack, suspicion.count, suspicion.n) == ("fgsm", 1, 3)
    assert not found("nonfinite", {"fgsm": attacks.fgsm(Mean(), images, labels)})


@quiet
def test_a_defence_without_gradients_is_found_out() -> None:
    images, labels = grey(value=0.45)
    options = {"eps": 0.2, "random_start": False}
    results = {
        "pgd": attacks.pgd(Quantised(), images, labels, **options),
        "gaussian": attacks.gaussian(Quantised(), images, labels, mean=0.1, std=0.03),
    }
    assert not results["pgd"].success.any()
    assert results["gaussian"].success.all()
    [zero] = found("zero-gradient", results)
    assert (zero.attack, zero.count, zero.n) == ("pgd", 6, 6)
    # From the clean image pgd spends nothing, so that its budget must be told; a random start spends it.
    assert not found("black-box-wins", results)
    assert results["gaussian"].linf.max() < 0.21
    [beaten] = found("black-box-wins", results, budgets={"pgd": 0.21})
    assert beaten.count == 6
    assert not found("black-box-wins", results, budgets={"pgd": 0.1})
    started = results | {"pgd": attacks.pgd(Quantised(), images, labels, eps=0.21, steps=2)}
    assert not started["pgd"].success.any()
    assert started["pgd"].linf.max() > results["gaussian"].linf.max()
    [beaten] = found("black-box-wins", started)
    assert (beaten.attack, beaten.count, beaten.n) == ("pgd", 6, 6)
    assert "gaussian" in beaten.message

    honest = {
        "pgd": attacks.pgd(Mean(), images, labels, **options),
        "gaussian": attacks.gaussian(Mean(), images, labels, mean=0.1, std=0.03),
    }
    assert honest["gaussian"].success.all()
    assert suspicions(honest, model=Mean(), images=images, labels=labels, clean_accuracy=1.0) == []


def test_budgets_of_the_black_box_check() -> None:
    white = result([True, False, False, False], [0.1, 0.3, 0.2, 0.1])
    black = result([True, True, True, False], [0.05, 0.3, 0.31, 0.1])
    # Within the largest norm spent, 0.3, where the white-box attack failed: the second image alone.
    [beaten] = found("black-box-wins", {"pgd": white, "one_pixel": black})
    assert (beaten.attack, beaten.count, beaten.n) == ("pgd", 1, 4)
    assert not found("black-box-wins", {"pgd": white, "one_pixel": result([True] * 4, [0.31] * 4)})
    assert not found("black-box-wins", {"pgd": white, "bim": black})
    assert not found("black-box-wins", {"dlfuzz": white, "one_pixel": black})

    # A minimum-norm attack has no limit where it fails, and is beaten by clearly less where it succeeds.
    least = result([True, True, True, False], [0.2, 0.2, 0.2, 0.2])
    rival = result([True, True, False, True], [0.19, 0.17, 0.1, 5.0])
    [beaten] = found("black-box-wins", {"cw_l2": least, "boundary": rival})
    assert (beaten.count, beaten.n) == (2, 4)

    # An image that one of the two did not attack is no evidence.
    left_out = result([False] * 4, [0.3] * 4, initially_wrong=torch.tensor([False, True, True, False]))
    [beaten] = found("black-box-wins", {"pgd": left_out, "one_pixel": black})
    assert (beaten.count, beaten.n) == (1, 2)


def test_the_norm_of_an_l2_attack_is_given_by_its_row() -> None:
    white = dataclasses.replace(result([False], [0.1]), l2=torch.tensor([1.0]))
    black = dataclasses.replace(result([True], [0.5]), l2=torch.tensor([0.9]))
    results = {"pgd_l2": white, "boundary": black}
    known = {**ATTACKS, "pgd_l2": dataclasses.replace(ATTACKS["pgd"], norm="l2")}
    assert len(found("black-box-wins", results, attacks=known)) == 1
    assert not found("black-box-wins", {"pgd": white, "boundary": black})
    with pytest.raises(ValueError, match="'pgd_l2' is not among them"):
        suspicions(results)


def test_clean_accuracy_and_disagreement() -> None:
    wrong = torch.tensor([True, False, False, False])
    results = {"fgsm": result([False] * 4, [0.1] * 4, initially_wrong=wrong)}
    assert suspicions(results, clean_accuracy=0.75) == []
    [off] = suspicions(results, clean_accuracy=1.0)
    assert (off.kind, off.attack, off.count, off.n) == ("clean-accuracy", "fgsm", 1, 4)
    other = results | {"bim": result([False] * 4, [0.1] * 4, initially_wrong=wrong.flip(0))}
    [disagree] = suspicions(other, clean_accuracy=0.75)
    assert (disagree.kind, disagree.attack, disagree.count, disagree.n) == ("clean-disagreement", "bim", 2, 4)
    # A reported accuracy is rounded: 2 of 3 as 0.667.
    thirds = {"fgsm": result([False] * 3, [0.1] * 3, initially_wrong=wrong[:3])}
    assert suspicions(thirds, clean_accuracy=0.667) == []


def test_a_random_model_is_found_out() -> None:
    images, labels = grey()
    results = {"fgsm": attacks.fgsm(Mean(), images, labels)}
    torch.manual_seed(0)  # Two draws of the noise agree within 1e-5 once in some hundred images.
    state = torch.get_rng_state()
    [restless] = suspicions(results, model=Restless(), images=images)
    assert torch.equal(torch.get_rng_state(), state)
    assert (restless.kind, restless.attack, restless.count, restless.n) == ("random-model", None, 6, 6)
    dropout = nn.Sequential(nn.Dropout(0.5), Mean()).train()
    assert suspicions(results, model=dropout, images=images) == []
    assert dropout.training
    assert dropout[0].training


def test_success_lost_to_eight_bits() -> None:
    images, labels = grey(4, 0.45)
    images[2:] = 0.2
    near = attacks.fgsm(Mean(), images, labels, eps=0.0501)
    assert near.success.tolist() == [True, True, False, False]
    assert (near.adversarial.mul(255).round().div(255)[:2] > 0.5).all()
    assert suspicions({"fgsm": near}, model=Mean(), labels=labels) == []

    # 0.5001 rounds to 128/255; 0.5001 + 0.45 - 0.45 does so too, but 0.4981 = 127/255 is what 0.4999 becomes.
    class Edge(Mean):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.0011)

    edge = attacks.fgsm(Edge(), images, labels, eps=0.0491)
    assert edge.success.tolist() == [True, True, False, False]
    [lost] = suspicions({"fgsm": edge}, model=Edge(), labels=labels)
    assert (lost.kind, lost.attack, lost.count, lost.n) == ("uint8-rounding", "fgsm", 2, 2)
    targeted = attacks.fgsm(Edge(), images, labels, eps=0.0491, target=1)
    [lost] = suspicions({"fgsm": targeted}, model=Edge(), labels=labels, target=1)
    assert lost.count == 2


def test_order_and_nothing_to_suspect() -> None:
    assert suspicions({}) == []
    clean = result([True, False], [0.1, 0.1])
    assert suspicions({"pgd": clean, "gaussian": clean}) == []


@pytest.mark.parametrize(
    ("results", "options", "message"),
    [
        ({"pgd": 3}, {}, "results must hold AttackResults"),
        ({"madry": result([True], [0.1])}, {}, "'madry' is not among them"),
        ({"pgd": result([True], [0.1]), "bim": result([True] * 2, [0.1] * 2)}, {}, "for the same images"),
        ({"pgd": result([True], [0.1])}, {"budgets": {"bim": 0.1}}, "budgets must be for attacks in results"),
        ({"pgd": result([True], [0.1])}, {"budgets": {"pgd": 0}}, "the budget of pgd must be"),
        ({"pgd": result([True], [0.1])}, {"clean_accuracy": 1.5}, "clean_accuracy must be"),
        ({"pgd": result([True], [0.1])}, {"model": "vgg16", "images": grey(1)[0]}, "model must be"),
        ({"pgd": result([True], [0.1])}, {"model": Mean(), "images": grey(2)[0]}, "images must be the 1"),
    ],
)
def test_bad_input_is_one_clear_error(
    results: dict[str, AttackResult], options: dict[str, object], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        suspicions(results, **options)
