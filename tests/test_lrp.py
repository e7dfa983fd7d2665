"""Relevance propagation and gradients: against the formulas, conservation, refusals, no trace left."""

import copy
from typing import Any

import pytest
import torch
from lrp_reference import lrp as reference_lrp
from subjects import seeded
from torch import Tensor, nn
from torch.nn import functional

from xaicore.attribution import PRESETS, Preset, gradient, input_times_gradient, lrp
from xaicore.attribution.rules import RULES
from xaicore.core.errors import UserError

LOW, HIGH = -1.0, 1.0


def images(n: int = 3, channels: int = 2, size: int = 8, seed: int = 1) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def max_pool_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 10), nn.ReLU(), nn.Linear(10, 4),
    ).eval()  # fmt: skip


def average_pool_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(4, 3, 2, bias=False), nn.Flatten(), nn.Linear(3, 4),
    ).eval()  # fmt: skip


def dense_net() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 12), nn.ReLU(), nn.Linear(12, 4)).eval()


NETS = {"max-pool": max_pool_net, "average-pool": average_pool_net, "dense": dense_net}


def options(preset: str) -> dict[str, float]:
    return {"low": LOW, "high": HIGH} if preset == "deep-taylor-bounded" else {}


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("target", [None, 2])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_agrees_with_the_formulas(preset: str, net: str, target: int | None) -> None:
    network, batch = seeded(NETS[net]), images()
    layers = list(network)
    theirs = torch.stack(
        [torch.from_numpy(reference_lrp(layers, x.numpy(), target, preset, LOW, HIGH)) for x in batch]
    )
    if not bool(theirs.any()):
        assert preset.startswith("deep-taylor")  # which has nothing to say of negative logits
        assert not bool(lrp(network, batch, target, preset, **options(preset)).any())
        return
    ours = lrp(copy.deepcopy(network).double(), batch.double(), target, preset, **options(preset))
    assert error(ours, theirs) < 1e-9
    in_float32 = lrp(network, batch, target, preset, **options(preset))
    assert error(in_float32.double(), theirs) < 1e-4  # rounding, amplified where a denominator is close to 0


def wide_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 20), nn.ReLU(), nn.Linear(20, 4),
    ).eval()  # fmt: skip


def without_bias(network: nn.Module) -> nn.Module:
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return network


@pytest.mark.parametrize("preset", PRESETS)
def test_relevance_is_conserved_without_bias(preset: str) -> None:
    network = without_bias(seeded(wide_net, 9)).double()  # a seed for which no denominator is empty
    batch = images().double()
    keep = {"epsilon": 0.0} if PRESETS[preset].uses("epsilon") else options(preset)
    logits = network(batch).detach().max(1).values
    assert (logits > 0).all()
    torch.testing.assert_close(lrp(network, batch, None, preset, **keep).sum((1, 2, 3)), logits)


def test_epsilon_zero_is_the_z_rule_and_a_dead_layer_gives_no_nan() -> None:
    network = seeded(max_pool_net)
    torch.testing.assert_close(
        lrp(network, images(), 1, "epsilon", epsilon=0.0), lrp(network, images(), 1, "z")
    )
    dead = without_bias(network)
    nn.init.constant_(dead[0].weight, 0.0)
    for preset in PRESETS:
        assert torch.isfinite(lrp(dead, images(), 1, preset, **options(preset))).all()


def test_z_rule_is_input_times_gradient_without_bias() -> None:
    network = without_bias(seeded(max_pool_net))
    assert error(lrp(network, images(), None, "z"), input_times_gradient(network, images())) < 1e-5


def test_gradient_is_autograds() -> None:
    network, batch = seeded(max_pool_net), images().requires_grad_()
    (expected,) = torch.autograd.grad(network(batch)[:, 2].sum(), batch)
    torch.testing.assert_close(gradient(network, batch, 2, batch_size=2), expected)
    torch.testing.assert_close(input_times_gradient(network, batch, 2), expected * batch.detach())


def test_alpha_beta_with_and_without_negative_inputs_agree() -> None:
    layer = seeded(lambda: nn.Conv2d(2, 3, 3, padding=1))
    network = nn.Sequential(layer, nn.Flatten(), seeded(lambda: nn.Linear(192, 2)))
    batch = images().abs()
    with_negative = batch.clone()
    with_negative[0, 0, 0, 0] = -0.5
    for preset in ("alpha1-beta0", "alpha2-beta1", "deep-taylor"):
        fast, general = (lrp(network, x, 0, preset)[1:] for x in (batch, with_negative))
        torch.testing.assert_close(fast, general)


METHODS = {
    "preset-a-flat": lambda model, x, t=None, **k: lrp(model, x, t, "preset-a-flat", **k),
    "alpha2-beta1": lambda model, x, t=None, **k: lrp(model, x, t, "alpha2-beta1", **k),
    "gradient": gradient,
    "input times gradient": input_times_gradient,
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@each_method
def test_deterministic_and_independent_of_the_batch(method: Any) -> None:
    network, batch = seeded(max_pool_net), images(7)
    assert torch.equal(method(network, batch), method(network, batch))
    network, batch = network.double(), batch.double()
    whole = method(network, batch)
    for size in (1, 3):
        assert error(method(network, batch, batch_size=size), whole) < 1e-10
    assert error(method(network, batch[4:5]), whole[4:5]) < 1e-10
    assert method(network, batch[:0]).shape == (0, 2, 8, 8)


@each_method
def test_targets(method: Any) -> None:
    network, batch = seeded(max_pool_net), images()
    winners = network(batch).argmax(1)
    assert torch.equal(method(network, batch), method(network, batch, winners))
    network, batch = network.double(), batch.double()
    chosen = torch.tensor([0, 3, 1], dtype=torch.int32)
    mixed = method(network, batch, chosen, batch_size=2)
    for position, target in enumerate(chosen.tolist()):
        alone = method(network, batch[position : position + 1], target)
        assert error(mixed[position : position + 1], alone) < 1e-10


def vgg_like() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout2d(0.5),
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2),
    )  # fmt: skip


def state(model: nn.Module) -> list[Any]:
    hooks = [
        len(getattr(module, name))
        for module in model.modules()
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    ]
    parameters = [
        (id(p), p.requires_grad, p.grad, p._version, p.detach().clone())
        for p in (*model.parameters(), *model.buffers())
    ]
    return [hooks, [module.training for module in model.modules()], parameters]


def assert_same(before: list[Any], after: list[Any]) -> None:
    assert before[:2] == after[:2]
    for old, new in zip(before[2], after[2], strict=True):
        assert old[:4] == new[:4]
        assert torch.equal(old[4], new[4])


@each_method
@pytest.mark.parametrize("fail", [False, True])
def test_no_trace_is_left(method: Any, fail: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded(vgg_like).train()
    model[4].eval()
    model[0].weight.requires_grad_(False)
    batch = images().requires_grad_()
    before, kept, random = state(model), batch.detach().clone(), torch.get_rng_state()
    if fail:
        grad, calls = torch.autograd.grad, []

        def failing(*args: Any, **kwargs: Any) -> Any:
            calls.append(None)
            if len(calls) > (2 if "lambda" in method.__name__ else 0):
                raise KeyboardInterrupt
            return grad(*args, **kwargs)

        monkeypatch.setattr(torch.autograd, "grad", failing)
        with pytest.raises(KeyboardInterrupt):
            method(model, batch)
    else:
        result = method(model, batch)
        assert not result.requires_grad
        assert torch.equal(result, method(model.eval(), batch))
        model.train()
        model[4].eval()
    assert_same(before, state(model))
    assert batch.requires_grad
    assert batch.grad is None
    assert torch.equal(batch.detach(), kept)
    assert torch.equal(random, torch.get_rng_state())
    assert torch.is_grad_enabled()


@each_method
def test_works_without_grad_and_in_inference_mode(method: Any) -> None:
    network, batch = seeded(vgg_like).eval(), images()
    expected = method(network, batch)
    with torch.no_grad():
        assert torch.equal(method(network, batch), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert torch.equal(method(network, batch.clone()), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(method(network, batch), expected)


class Backwards(nn.Module):
    """Registers its layers in the reverse of the order in which they run, and shares one ReLU."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.last, self.dense, self.second, self.first = layers[8], layers[6], layers[2], layers[0]
        self.pool, self.relu = nn.MaxPool2d(2), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.second(self.relu(self.first(x)))))
        return self.last(self.relu(self.dense(x.view(x.size(0), -1))))


@pytest.mark.parametrize("preset", PRESETS)
def test_order_of_registration_does_not_matter(preset: str) -> None:
    network = seeded(max_pool_net)
    expected = lrp(network, images(), 1, preset, **options(preset))
    assert torch.equal(lrp(Backwards(network), images(), 1, preset, **options(preset)), expected)


class Wrapper(nn.Module):
    """The least a classifier is: a network and its normalisation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.channels = 2

    def normalize(self, x: Tensor) -> Tensor:
        return (x - torch.tensor([0.4, 0.5]).view(1, 2, 1, 1)) / torch.tensor([0.2, 0.25]).view(1, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.normalize(x))


def test_a_classifier_is_explained_on_its_normalised_input() -> None:
    model, batch = Wrapper(seeded(max_pool_net)), images().abs()
    inside = model.normalize(batch)
    for preset in PRESETS.keys() - {"deep-taylor-bounded"}:
        assert torch.equal(lrp(model, batch, 1, preset), lrp(model.network, inside, 1, preset))
    assert torch.equal(gradient(model, batch, 1), gradient(model.network, inside, 1))
    low, high = model.normalize(torch.zeros(1, 2, 1, 1))[0], model.normalize(torch.ones(1, 2, 1, 1))[0]
    bounded = lrp(model, batch, 1, "deep-taylor-bounded")
    assert torch.equal(bounded, lrp(model.network, inside, 1, "deep-taylor-bounded", low=low, high=high))
    with pytest.raises(ValueError, match="images must have 2 channels"):
        lrp(model, images(1, 1))


class Odd(nn.Module):
    """A network with one oddity, or a sound one."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second, self.head = (
            nn.Conv2d(2, 2, 3, padding=1),
            nn.Conv2d(2, 2, 1),
            nn.Linear(128, 2),
        )
        self.relu = nn.ReLU(inplace=True)
        self.shift = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.how == "control flow" and x.sum() > 0:
            x = self.second(x)
        elif self.how == "squared":
            x = x * x
        elif self.how == "inverse":
            x = 1 / x
        elif self.how == "difference":
            x = x - self.second(x)
        elif self.how == "weighted sum":
            x = torch.add(x, self.second(x), alpha=2)
        elif self.how == "rounded":
            x = torch.div(x, 2, rounding_mode="floor")
        elif self.how == "size":
            x = x * x.size(2)
        elif self.how == "with a constant":
            x = torch.cat([x, self.shift], 1)
        elif self.how == "broadcast":
            x = x + functional.adaptive_avg_pool2d(x, 1)
        elif self.how == "along images":
            x = torch.cat([x, self.second(x)]) + torch.cat([x, x])
        elif self.how == "dropout":
            x = functional.dropout(x)
        elif self.how == "mean":
            x = x.mean(1, keepdim=True) + x
        elif self.how == "in place, seen elsewhere":
            y = self.relu(x)
            x = x + self.second(y)
        elif self.how == "in place, result dropped":
            self.relu(x)
        elif self.how == "sized":
            x = functional.avg_pool2d(x, x.size(2)) + functional.avg_pool2d(x, x.shape[-1])
        elif self.how == "two":
            return self.head(torch.flatten(x, 1)), x
        return self.head(torch.flatten(x, 1))


class OwnConv(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    ("network", "match"),
    [
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sigmoid()), r"no rule for the layer '1' \(Sigmoid\)"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Softmax(1)), "Softmax"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Softmax(1), nn.Flatten()), r"layer '1' \(Softmax\) at the end"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sigmoid(), nn.Dropout()), r"layer '1' \(Sigmoid\) at the end"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2, return_indices=True)), "'1': return_indices must be"),
        (nn.Sequential(OwnConv(2, 2, 1)), r"no rule for the layer '0' \(OwnConv\)"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")), "padding_mode"),
        (nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(2, 2, 1))), "'0': its weight is made of other"),
        (nn.Sequential(nn.ReLU(), nn.Flatten()), "at least one convolution or linear layer"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)), "'1': it has no"),
        (Odd("squared"), "'preset-a-flat' of lrp has no rule for 'mul', a product of two branches"),
        (Odd("inverse"), "no rule for the function 'truediv'"),
        (Odd("difference"), "no rule for the function 'sub'"),
        (Odd("weighted sum"), "no rule for the function 'add'"),
        (Odd("rounded"), "no rule for the function 'div'"),
        (Odd("size"), "no rule for the function 'mul'"),
        (Odd("with a constant"), "no rule for 'cat' of anything but tensors that depend on the images"),
        (Odd("broadcast"), "only add tensors of equal shape"),
        (Odd("along images"), "'cat' along the first dimension"),
        (Odd("dropout"), "active in eval mode"),
        (Odd("mean"), "only add tensors of equal shape"),
        (Odd("in place, seen elsewhere"), "layers in place that others depend on"),
        (Odd("in place, result dropped"), "layers in place that others depend on"),
# torch 2.5 cannot trace it, later versions can
        (Odd("sized"), "'avg_pool2d' with options that depend on its input|cannot follow .* avg_pool2d"),
        (Odd("two"), r"must return logits \(N, K\), not a tuple"),
        (Odd("control flow"), "cannot follow the forward pass of Odd"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_explained_are_refused(network: nn.Module, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        lrp(network, images())
    assert "\n" not in str(caught.value)


class Dropped(nn.Module):
    """Overwrites what its convolution gave, directly or through a view, and drops the result."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        self.conv, self.how, self.last = nn.Conv2d(2, 2, 1, bias=False), how, nn.Linear(128, 2)
        self.conv.weight.data.abs_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.how(y)
        return self.last(y.flatten(1))


@pytest.mark.parametrize(
    "how",
    [
        lambda y: functional.relu(y, inplace=True),
        lambda y: y.clamp_(0, 100),
        lambda y: y.view(-1).mul_(1).relu_(),
        lambda y: functional.relu(functional.relu(y, inplace=True), inplace=True),
    ],
)
def test_what_is_overwritten_is_looked_for_in_every_image(how: Any) -> None:
    network, positive = seeded(lambda: Dropped(how)), images().abs()
    with pytest.raises(UserError, match="layers in place that others depend on"):
        lrp(network, torch.cat([positive, -positive]), 0, "z")


def hooked(where: int, hook: Any, *, before: bool = False) -> nn.Module:
    network = seeded(max_pool_net)
    module = network if where < 0 else network[where]
    (module.register_forward_pre_hook if before else module.register_forward_hook)(hook)
    return network


@pytest.mark.parametrize(
    "network",
    [
        hooked(-1, lambda module, given: (given[0] * 2,), before=True),
        hooked(-1, lambda module, given, output: output + 1),
        hooked(0, lambda module, given, output: output * 2),
        hooked(0, lambda module, given: (given[0] - 1,), before=True),
        hooked(1, lambda module, given, output: output.clamp(max=0.5)),
    ],
)
def test_hooks_that_change_what_a_module_gives_are_refused(network: nn.Module) -> None:
    with pytest.raises(UserError, match="or hooks or a forward of its own") as caught:
        lrp(network, torch.cat([0 * images(1), images()]), 1)
    assert "\n" not in str(caught.value)


def test_hooks_that_look_on_change_nothing() -> None:
    seen: list[Any] = []
    for where in (-1, 0, 1):
        network = hooked(where, lambda module, given, output: seen.append(output.detach()))
        assert torch.equal(lrp(network, images(), 1), lrp(seeded(max_pool_net), images(), 1))
    assert [len(each) for each in seen] == [3, 3, 3]


def test_a_forward_of_its_own_is_refused() -> None:
    network = seeded(max_pool_net)
    network.forward = lambda x: type(network).forward(network, 3 * x - 1)
    with pytest.raises(UserError, match="or hooks or a forward of its own"):
        lrp(network, images())
    network = seeded(max_pool_net)
    network[0].forward = lambda x: type(network[0]).forward(network[0], 3 * x - 1)
    with pytest.raises(UserError, match="the layer '0': it has a forward of its own"):
        lrp(network, images())


def test_what_the_logits_do_not_depend_on_does_not_matter() -> None:
    class WithExtra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.extra = seeded(max_pool_net), nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            torch.sigmoid(self.extra(x))
            return self.network(x)

    model = WithExtra()
    assert torch.equal(lrp(model, images(), 1), lrp(model.network, images(), 1))


NAN = torch.full((1, 2, 8, 8), float("nan"))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"preset": "preset-c"}, "preset must be one of z, epsilon"),
        ({"images": NAN}, "images must be finite"),
        ({"images": torch.zeros(2, 8, 8)}, r"images must have the shape \(N, C, H, W\)"),
        ({"images": torch.zeros(1, 3, 8, 8)}, r"images of shape \(1, 3, 8, 8\) do not fit"),
        ({"images": torch.zeros(1, 2, 12, 12)}, r"images of shape \(1, 2, 12, 12\) do not fit"),
        ({"images": torch.zeros(1, 2, 8, 8, dtype=torch.float64)}, "images must have the type"),
        ({"targets": 4}, r"targets must lie in 0\.\.3"),
        ({"targets": -1}, "targets must not be negative"),
        ({"targets": torch.tensor([0, 1])}, r"targets must have the shape \(3,\)"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"epsilon": -0.1}, "epsilon must be"),
        ({"epsilon": float("nan")}, "epsilon must be"),
        ({"preset": "z", "epsilon": 0.1}, "epsilon does not belong"),
        ({"low": 0.0}, "low and high do not belong"),
        ({"preset": "deep-taylor-bounded"}, "which are 0 and 1 where not given"),
        ({"preset": "deep-taylor-bounded", "low": 1.0, "high": -1.0}, "low must be below high"),
        ({"preset": "deep-taylor-bounded", "low": 0.0, "high": 1.0}, "images must lie between"),
        ({"preset": "deep-taylor-bounded", "low": torch.zeros(3), "high": 1.0}, "must be numbers"),
    ],
)  # fmt: skip
def test_wrong_arguments_name_themselves(arguments: dict[str, Any], match: str) -> None:
    call = {"images": images(), **arguments}
    with pytest.raises(ValueError, match=match):
        lrp(seeded(max_pool_net), **call)


def test_wrong_types_name_themselves() -> None:
    network = seeded(max_pool_net)
    with pytest.raises(TypeError, match="images must be"):
        lrp(network, images().long())
    with pytest.raises(TypeError, match="targets must be"):
        lrp(network, images(), torch.tensor([0.0, 1.0, 2.0]))
    with pytest.raises(TypeError, match="targets must be"):
        lrp(network, images(), True)


def test_a_model_with_nan_weights_is_refused() -> None:
    network = seeded(max_pool_net)
    nn.init.constant_(network[-1].bias, float("nan"))
    for method in METHODS.values():
        with pytest.raises(ValueError, match="logits that are NaN"):
            method(network, images())


def test_presets_name_rules_that_exist() -> None:
    for preset in PRESETS.values():
        assert isinstance(preset, Preset)
        assert {preset.conv, preset.dense, preset.first or "z"} <= RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_rules_leave_their_layer_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a moment: another thread may be using it."""
    layer, inputs = seeded(lambda: nn.Linear(5, 3)), images(1, 1, 5)[0, 0]
    before = dict(layer.named_parameters())
    touched: list[str] = []

    def recorded(module: nn.Module, attribute: str, value: Any) -> None:
        touched.extend([attribute] if module is layer else [])
        usual(module, attribute, value)

    usual = nn.Module.__setattr__
    monkeypatch.setattr(nn.Module, "__setattr__", recorded)
    options = {"low": torch.tensor(LOW), "high": torch.tensor(HIGH)} if name == "bounded" else {}
    assert RULES[name](layer, inputs, torch.ones(5, 3), **options).shape == inputs.shape
    assert not touched
    assert all(value is before[key] for key, value in layer.named_parameters())
    assert not layer._forward_hooks
