"""The base of all attacks: checks, success, untouched images, no influence of the batch, no trace left."""

import math
import re
import warnings
from collections import defaultdict
from typing import Any

import pytest
import torch
from subjects import convolutional, draw, net, right
from torch import Tensor, nn

from xaicore import attacks
from xaicore.attacks import ATTACKS, AttackResult
from xaicore.attacks.goal import Goal, log_odds
from xaicore.attacks.neurons import Coverage
from xaicore.attacks.victim import Victim

SMALL: defaultdict[str, dict[str, Any]] = defaultdict(
    dict,
    {
        "lbfgs": {"search_steps": 4, "iterations": 8},
        "patch": {"steps": 4, "samples": 3, "trials": 2},
        "boundary": {"steps": 20},
        "bim": {"eps": 0.1},
        "mim": {"eps": 0.1},
        "gaussian": {"std": 0.1},
        "pgd": {"eps": 0.1, "steps": 6, "restarts": 2},
        "apgd": {"eps": 0.1, "steps": 6, "restarts": 2},
        "autoattack": {"eps": 0.05, "steps": 5, "queries": 15},
        "fab": {"steps": 5, "restarts": 2},
        "square": {"eps": 0.1, "queries": 30},
        "deepfool": {"steps": 10},
        "dlfuzz": {"iterations": 3, "step_size": 0.05},
        "cw_l2": {"steps": 8, "search_steps": 2},
        "cw_l0": {"largest_const": 100.0, "patience": 3, "attempts": 2},
        "cw_linf": {"largest_const": 1.0, "patience": 3},
        "fgsm_search": {"steps": 12},
        "one_pixel": {"population": 8, "generations": 3},
    },
)
"""What makes an attack quick here; one that is not named runs as it is by default."""


def same(first: AttackResult, second: AttackResult, rows: Tensor | slice = slice(None)) -> None:
    assert set(first.arrays()) == set(second.arrays())
    for name, tensor in first.arrays().items():
        assert torch.equal(tensor[rows].nan_to_num(-7), second.arrays()[name].nan_to_num(-7)), name


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 4)])
@pytest.mark.parametrize("targeted", [False, True])
def test_result_is_measured_and_within_bounds(name: str, channels: int, classes: int, targeted: bool) -> None:
    model, images = net(channels, classes), draw(11, channels)
    labels = right(model, images)
    target = (labels + 1) % classes if targeted else None
    result = ATTACKS[name](model, images, labels, target=target, seed=3, **SMALL[name])
    predicted = right(model, result.adversarial)
    assert torch.equal(result.success, predicted == target if targeted else predicted != labels)
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    difference = result.adversarial - images
    assert torch.equal(result.l0, (difference != 0).any(1).sum((1, 2)))
    torch.testing.assert_close(result.l2, difference.square().sum((1, 2, 3)).sqrt())
    torch.testing.assert_close(result.linf, difference.abs().amax((1, 2, 3)))
    assert ((result.queries > 0) == (attacks.ATTACKS[name].access != "none")).all()
    assert result.seconds > 0
    assert all(len(tensor) == 11 for tensor in result.arrays().values())
    assert not any(tensor.requires_grad for tensor in result.arrays().values())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_does_not_depend_on_its_batch_mates(name: str) -> None:
    model, images = convolutional(net(3, 3, gain=4.0)), draw(23, 3)
    labels = right(model, images)
    labels[4] = (labels[4] + 1) % 3
    whole = ATTACKS[name](model, images, labels, seed=5, **SMALL[name])
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    shuffled = ATTACKS[name](model, images[order], labels[order], index=order, seed=5, **SMALL[name])
    same(whole, shuffled, order)
    parts = [
        ATTACKS[name](model, images[p], labels[p], index=p, seed=5, **SMALL[name])
        for p in torch.split(torch.arange(23), [1, 4, 11, 7])
    ]
    same(whole, AttackResult.cat(parts))


@pytest.mark.parametrize("rows", [1, 4, 7, 8, 16, 20, 32])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_logits_and_gradients_depend_on_the_place_in_the_batch_by_the_sums_of_linear_layers_only(
    rows: int, classes: int
) -> None:
    images, weights = draw(rows + 5, 3), torch.linspace(-1, 1, classes)
    order = torch.randperm(rows + 5, generator=torch.Generator().manual_seed(0))

    def changes(model: nn.Module) -> tuple[Tensor, Tensor]:
        victim = Victim(model, rows)
        passes = [
            victim.differentiate(batch, lambda logits, part: logits @ weights)
            for batch in (images, images[order])
        ]
        assert torch.equal(victim.logits(images), passes[0][0])
        return tuple((one[order] - other).abs() for one, other in zip(*passes, strict=True))

    linear = net(3, classes)
    logits, gradients = changes(convolutional(linear))
    assert not logits.any()
    assert not gradients.any()
    # A sum of n numbers errs by at most n 2^-24 times the sum of their sizes, in whatever order it is made.
    logits, gradients = changes(linear)
    with torch.no_grad():
        sizes = linear[:-1](images[order]) @ linear[-1].weight.abs().T + linear[-1].bias.abs()
    assert (logits <= 2 * 33 * 2**-24 * sizes).all()
    # Gradients are up to 0.08; measured with three kinds of kernels of MKL: 1.2e-8 apart.
    assert gradients.max() < 1e-7


@pytest.mark.parametrize("name", ATTACKS)
def test_groups_do_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = convolutional(net()), draw(9)
    labels = right(model, images)
    whole = ATTACKS[name](model, images, labels, **SMALL[name])
    monkeypatch.setattr("xaicore.attacks.base.GROUP", 4 * 64)
    same(whole, ATTACKS[name](model, images, labels, **SMALL[name]))


@pytest.mark.parametrize("name", ATTACKS)
def test_batch_size_matters_in_the_last_bits_only(name: str) -> None:
    model, images = net(), draw(9)
    labels = right(model, images)
    # A quasi-Newton search turns last bits into other steps, and agrees again where it has converged.
    settings = {} if name == "lbfgs" else SMALL[name]
    first = ATTACKS[name](model, images, labels, batch_size=1, **settings)
    second = ATTACKS[name](model, images, labels, batch_size=50, **settings)
    if name == "lbfgs":
        assert torch.equal(first.success, second.success)
        torch.testing.assert_close(first.l2, second.l2, rtol=1e-3, atol=0)
        return
    torch.testing.assert_close(first.adversarial, second.adversarial, atol=1e-6, rtol=0)
    assert torch.equal(first.queries, second.queries)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("targeted", [False, True])
def test_misclassified_images_are_left_alone(name: str, targeted: bool) -> None:
    model, images = net(classes=3), draw(6)
    predicted = right(model, images)
    labels = predicted.clone()
    labels[:4] = (predicted[:4] + 1) % 3
    target = (labels + torch.tensor([1, 2, 1, 2, 1, 2])) % 3 if targeted else None
    result = ATTACKS[name](model, images, labels, target=target, **SMALL[name])
    wrong = torch.tensor([True] * 4 + [False] * 2)
    assert torch.equal(result.info["initially_wrong"], wrong)
    assert torch.equal(result.adversarial[wrong], images[wrong])
    assert (result.queries[wrong] == 0).all()
    assert (result.l0[wrong] == 0).all()
    expected = predicted[wrong] == target[wrong] if targeted else torch.ones(4, dtype=torch.bool)
    assert torch.equal(result.success[wrong], expected)
    assert result.success_rate() == pytest.approx(result.success[4:].float().mean().item())


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_to_attack_still_has_every_entry(name: str) -> None:
    model, images = net(), draw(3)
    labels = right(model, images)
    full = ATTACKS[name](model, images, labels, **SMALL[name])
    empty = ATTACKS[name](model, images, (labels + 1) % 3, **SMALL[name])
    for key, tensor in full.arrays().items():
        assert empty.arrays()[key].shape == tensor.shape
        assert empty.arrays()[key].dtype == tensor.dtype
    assert torch.isnan(torch.tensor(empty.success_rate()))
    assert len(AttackResult.cat([full, empty])) == 6


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_left_behind(name: str) -> None:
    model = nn.Sequential(net(), nn.Dropout(0.9)).train()
    model[0].eval()
    model[0][0].weight.requires_grad_(False)
    before = [(m, m.training) for m in model.modules()], [p.requires_grad for p in model.parameters()]
    weights = [(p.data_ptr(), p.stride(), p.clone()) for p in model.parameters()]
    images = draw(5).requires_grad_()
    labels = right(net(), images.detach())
    state = torch.get_rng_state()

    ATTACKS[name](model, images, labels, **SMALL[name])

    class Broken(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("boom")
            return self.inner(x)

    broken = Broken(model)
    with pytest.raises(RuntimeError, match="boom"):
        ATTACKS[name](broken, images, labels, **SMALL[name])
    assert broken.training
    assert (
        [(m, m.training) for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
    ) == before
    for parameter, (pointer, stride, value) in zip(model.parameters(), weights, strict=True):
        assert (parameter.data_ptr(), parameter.stride()) == (pointer, stride)
        assert torch.equal(parameter, value)
        assert parameter.grad is None
    for module in broken.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert images.requires_grad
    assert images.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ATTACKS)
def test_the_callers_modes_do_not_matter(name: str) -> None:
    model, images = net(), draw(4)
    labels = right(model, images)
    plain = ATTACKS[name](model, images, labels, **SMALL[name])
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        same(plain, ATTACKS[name](model, images.clone(), labels.clone(), **SMALL[name]))
    training = net().train()
    with torch.no_grad():
        same(plain, ATTACKS[name](training, images, labels, **SMALL[name]))


@pytest.mark.parametrize("name", ATTACKS)
def test_same_seed_same_result(name: str) -> None:
    model, images = net(), draw(6)
    labels = right(model, images)
    torch.manual_seed(1)
    first = ATTACKS[name](model, images, labels, seed=2, **SMALL[name])
    torch.manual_seed(2)
    same(first, ATTACKS[name](model, images, labels, seed=2, **SMALL[name]))


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "vgg16"}, "model must be"),
        ({"model": net().double()}, "model must have float32"),
        ({"model": nn.Flatten(0)}, "model must return logits"),
        ({"images": draw(4).numpy()}, "images must be a torch.Tensor"),
        ({"images": draw(4)[0]}, "images must have the shape"),
        ({"images": draw(4)[:0]}, "images must have the shape"),
        ({"images": draw(4).double()}, "images must be float32"),
        ({"images": draw(4) * 2}, "images must lie in"),
        ({"images": draw(4) - 0.5}, "images must lie in"),
        ({"images": torch.full((4, 1, 8, 8), torch.nan)}, "images must be finite"),
        ({"labels": [0, 1, 0, 1]}, "labels must be a torch.Tensor"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels must have the shape"),
        ({"labels": torch.zeros(4, dtype=torch.int32)}, "labels must be int64"),
        ({"labels": torch.tensor([0, 0, 0, 3])}, "labels must lie in"),
        ({"labels": torch.tensor([0, 0, 0, -1])}, "labels must lie in"),
        ({"target": 0}, "target must differ"),
        (
            {"target": torch.tensor([1, 1, 0, 1])},
            "target must differ from the label; it does not for image 2",
        ),
        ({"target": 3}, "target must lie in"),
        ({"target": "cat"}, "target must be"),
        ({"index": torch.arange(3)}, "index must have the shape"),
        ({"index": torch.arange(4) - 1}, "index must not be negative"),
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": 1.5}, "seed must be an integer"),
        ({"batch_size": 0}, "batch_size must be an integer"),
    ],
)
def test_bad_input_is_one_clear_error(name: str, change: dict[str, object], message: str) -> None:
    if change.keys() & {"seed", "index"} and not ATTACKS[name].accepts("index"):
        return  # nothing there is random
    arguments = {"model": net(), "images": draw(4), "labels": torch.zeros(4, dtype=torch.int64)} | change
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        ATTACKS[name](**arguments)
    assert "\n" not in str(caught.value)


STEPS = {
    "eps": (0, -0.1, 1.5, "0.1", True),
    "steps": (0, 2.5, "3"),
    "step_size": (0, math.nan, "1"),
    "early_stop": (1,),
}
CARLINI_WAGNER = {
    "confidence": (-1, math.nan, "0"),
    "steps": (0, 1.5),
    "learning_rate": (0, math.inf),
    "initial_const": (0, -1.0),
}
RAISED = {**CARLINI_WAGNER, "largest_const": (0.5,), "const_factor": (1.0,), "patience": (2.5,)}
BAD: dict[str, dict[str, tuple[object, ...]]] = {
    "fgsm": {"eps": (0, -0.1, 1.5, math.nan, "8/255", True)},
    "fgsm_search": {"eps_max": (0, math.inf), "steps": (0, 2.0)},
    "bim": STEPS,
    "mim": {**STEPS, "decay": (-1, math.inf)},
    "pgd": {**STEPS, "norm": ("l1", 2), "random_start": (0,), "restarts": (0,)},
    "cw_l2": {**CARLINI_WAGNER, "search_steps": (0, True), "abort_early": (1,), "space": ("cosine",)},
    "cw_linf": {**RAISED, "decrease_factor": (1.0, 0)},
    "cw_l0": {**RAISED, "share": (1.5, 0), "attempts": (0,)},
    "lbfgs": {
        "initial_const": (0, -1.0, math.inf, "1"),
        "search_steps": (0, 2.5, True),
        "iterations": (0, "9"),
        "confidence": (-0.1, math.nan, True),
    },
    "boundary": {
        "steps": (0, 2.0, True),
        "start_tries": (0, -1, 1.5),
        "spherical_step": (0, 0.6, math.nan),
        "source_step": (0, 1, "0.1"),
        "step_adaptation": (1, 0.5, math.inf),
        "source_step_convergence": (0, math.nan),
    },
    "one_pixel": {"population": (3, 10.5, "40"), "generations": (0, 1.0), "pixels": (0, 65)},
    "dlfuzz": {
        "iterations": (0, 1.0),
        "step_size": (0, 2, math.nan),
        "neurons": (0, 2.5),
        **dict.fromkeys(("neuron_weight", "class_weight", "coverage_gain", "l2_limit"), (-0.1,)),
        "strategy": ("best",),
        "threshold": (-0.1, 1.1),
        "coverage": (torch.zeros(27), Coverage({"1": 5})),
        "layers": (["nowhere"],),
    },
}
"""Values that a parameter must not have: attack → parameter → values."""


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [(name, parameter, bad) for name, of in BAD.items() for parameter, all_ in of.items() for bad in all_],
)
def test_bad_parameter_is_one_clear_error(name: str, parameter: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{parameter} must be") as caught:
        ATTACKS[name](net(), draw(2), torch.zeros(2, dtype=torch.int64), **{parameter: value})
    assert "\n" not in str(caught.value)


class Dead(nn.Module):
    """Looks at the image only where its first pixel is over a half."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * (x[:, 0, 0, 0] > 0.5).float()[:, None] + torch.tensor([0.01, 0, 0])


STILL: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("fgsm", "fgsm_search", "bim", "mim", "cw_l2", "cw_linf", "cw_l0", "lbfgs")},
    "pgd": {"random_start": False, "restarts": 1},
    "dlfuzz": {"neuron_weight": 0},
}
"""Attacks that move an image by nothing but the gradient of its classes, and the settings that make them so."""


@pytest.mark.parametrize("name", STILL)
def test_an_image_without_a_gradient_is_reported_and_left_alone(name: str) -> None:
    images, settings = draw(10), {**SMALL[name], **STILL[name]}
    labels, dead = right(Dead(), images), images[:, 0, 0, 0] <= 0.5
    assert 0 < dead.sum() < 10
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = ATTACKS[name](Dead(), images, labels, **settings)
        ATTACKS[name](net(), images[:4], right(net(), images[:4]), **settings)
    (warned,) = caught
    assert warned.category is attacks.AttackWarning
    assert re.fullmatch(rf".*no usable gradient for {dead.sum()} of 10 images.*", str(warned.message))
    assert warned.filename == __file__
    assert torch.equal(result.info["zero_gradient"], dead)
    assert torch.equal(result.adversarial[dead], images[dead])
    assert not result.success[dead].any()
    assert result.success[~dead].any() or name == "dlfuzz"
    assert (result.queries[dead] == 1).all()
    for size in ("eps", "constant"):
        assert size not in result.info or not result.info[size][dead].isfinite().any()


class Sick(nn.Module):
    """Gives NaN where the first pixel is over a half."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * torch.where(x[:, 0, 0, 0] > 0.5, torch.nan, 1.0)[:, None]


@pytest.mark.parametrize("name", ATTACKS)
def test_nan_logits_are_reported_and_never_a_success(name: str) -> None:
    images = draw(6)
    images[:, 0, 0, 0] = torch.tensor([0.9, 0.1, 0.1, 0.9, 0.1, 0.499])
    labels = right(net(), images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", attacks.AttackWarning)
        result = ATTACKS[name](Sick(), images, labels, **SMALL[name])
    assert result.info["nonfinite"][[0, 3]].all()
    assert result.info["initially_wrong"][[0, 3]].all()
    assert not (result.success & result.info["nonfinite"]).any()


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double() * 3
    classes = torch.arange(40) % 5
    p = logits.softmax(1).gather(1, classes[:, None]).squeeze(1)
    torch.testing.assert_close(log_odds(logits, classes), (p / (1 - p)).log())
    wide = torch.tensor([[300.0, 0.0, 0.0]])
    assert log_odds(wide, torch.tensor([0])).item() == pytest.approx(300 - 0.6931472)


def test_goal() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [torch.nan, 0.0, 0.0]])
    labels = torch.tensor([0, 0, 1])
    assert Goal(labels, None).reached(logits).tolist() == [False, True, False]
    assert Goal(labels, torch.tensor([1, 2, 0])).reached(logits).tolist() == [False, True, False]


def test_arrays_round_trip_and_concatenation() -> None:
    model, images = net(), draw(5)
    result = attacks.one_pixel(model, images, right(model, images), population=5, generations=2)
    again = AttackResult.from_arrays(result.arrays(), seconds=result.seconds)
    same(result, again)
    assert again.seconds == result.seconds
    twice = AttackResult.cat([result, result])
    assert len(twice) == 10
    assert twice.seconds == 2 * result.seconds
    same(twice, result, slice(5, None))
    with pytest.raises(ValueError, match="arrays must hold"):
        AttackResult.from_arrays({"success": result.success}, seconds=0.0)
    with pytest.raises(ValueError, match="at least one"):
        AttackResult.cat([])
    with pytest.raises(ValueError, match="same attack"):
        AttackResult.cat([result, attacks.fgsm(model, images, right(model, images))])


def test_success_after_uint8() -> None:
    class Threshold(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([torch.zeros(len(x)), x[:, 0, 0, 0] - 100 / 255 - 1e-5], dim=1)

    images = torch.tensor([100.2, 100.6]).div(255).view(2, 1, 1, 1)
    labels = torch.zeros(2, dtype=torch.int64)
    assert right(Threshold(), images).tolist() == [1, 1]
    assert attacks.success_after_uint8(Threshold(), images, labels).tolist() == [False, True]
    assert attacks.success_after_uint8(Threshold(), images, labels, target=1).tolist() == [False, True]
    with pytest.raises(ValueError, match="labels must lie"):
        attacks.success_after_uint8(Threshold(), images, labels + 2)
