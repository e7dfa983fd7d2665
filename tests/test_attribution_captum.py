"""Integrated gradients, GradientSHAP, DeepLIFT, guided methods and SmoothGrad against Captum, by hand and plainly."""

import warnings
from typing import Any

import captum.attr as captum
import pytest
import torch
from attribution_networks import (
    Functional,
    Shared,
    Wrapper,
    error,
    images,
    normalised_net,
    package_network,
    plain_deep_lift,
    plain_net,
    pooled_net,
    seeded,
    spread,
)
from torch import Tensor, nn

from xaicore.attribution import (
    METHODS,
    deep_lift,
    gradient,
    gradient_shap,
    guided_backprop,
    guided_grad_cam,
    input_times_gradient,
    integrated_gradients,
    smooth_grad,
)
from xaicore.core.errors import UserError

TARGETS = torch.tensor([2, 0, 3])


@pytest.fixture(autouse=True)
def _quiet_captum() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="captum")
        yield


@pytest.mark.parametrize("baselines", [None, 0.3, images(1, seed=5), images(3, seed=6)], ids=str)
@pytest.mark.parametrize("batch_size", [2, 32])
def test_integrated_gradients_and_deep_lift_are_captums(baselines: Any, batch_size: int) -> None:
    network, batch = seeded(plain_net), images()
    start = torch.zeros_like(batch) + (0 if baselines is None else baselines)
    options = {"baselines": baselines, "return_convergence_delta": True, "batch_size": batch_size}
    maps, delta = integrated_gradients(network, batch, TARGETS, n_steps=20, **options)
    theirs, their_delta = captum.IntegratedGradients(network).attribute(
        batch, start, TARGETS, n_steps=20, return_convergence_delta=True
    )
    assert error(maps, theirs) < 1e-5
    assert (delta - their_delta).abs().max() < 1e-5 * theirs.abs().sum((1, 2, 3)).max()
    maps, delta = deep_lift(network, batch, TARGETS, **options)
    theirs = captum.DeepLift(network).attribute(batch.clone(), start, TARGETS)
    assert error(maps, theirs) < 1e-5
    assert delta.abs().max() < 1e-6 * maps.abs().sum((1, 2, 3)).max()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Tanh])
def test_deep_lift_is_the_paper(activation: type[nn.Module]) -> None:
    network = spread(seeded(lambda: pooled_net(activation))).double()
    batch, start = images().double(), images(3, seed=7).double()
    bent = network[:1](batch)
    assert ((bent < 0).any() and (bent > 6).any()) or activation is nn.Tanh
    maps, delta = deep_lift(network, batch, 1, baselines=start, return_convergence_delta=True)
    for number in range(3):
        expected = plain_deep_lift(network, batch[number], start[number], 1)
        assert error(maps[number], expected) < 1e-9
    change = (network(batch) - network(start))[:, 1]
    torch.testing.assert_close(maps.sum((1, 2, 3)) - change, delta)
    assert delta.abs().max() < 1e-12 * change.abs().max()


ALIKE = {
    "deep_lift": lambda *given: deep_lift(*given, baselines=images(1, seed=7)),
    "guided_backprop": guided_backprop,
}


@pytest.mark.parametrize("method", ALIKE.values(), ids=ALIKE.keys())
@pytest.mark.parametrize("written", [Functional, Shared])
def test_functional_and_shared_activations_are_modules(method: Any, written: Any) -> None:
    modules = seeded(pooled_net)
    other = written(modules)
    torch.testing.assert_close(other(images()), modules(images()))
    torch.testing.assert_close(method(other, images(), 1), method(modules, images(), 1))


def test_guided_grad_cam_with_functional_activations() -> None:
    modules = seeded(pooled_net)
    found = False
    for target in range(4):
        expected = guided_grad_cam(modules, images(), target)
        torch.testing.assert_close(guided_grad_cam(Functional(modules), images(), target), expected)
        named = guided_grad_cam(Shared(modules), images(), target, layer="second")
        torch.testing.assert_close(named, expected)
        found = found or bool(expected.any())
    assert found


def test_guided_backprop_by_hand_and_captums() -> None:
    line = nn.Sequential(nn.Flatten(), nn.Linear(1, 4), nn.ReLU6(), nn.Linear(4, 1))
    line[1].weight.data, line[1].bias.data = torch.tensor([[1.0], [1.0], [9.0], [-1.0]]), torch.zeros(4)
    line[3].weight.data = torch.tensor([[2.0, -3.0, 5.0, 7.0]])
    # Of the slopes 2, -3, 0 (beyond 6) and 0 (below 0) the negative one is held back.
    assert guided_backprop(line, torch.ones(1, 1, 1, 1)).item() == 2
    network, batch = seeded(plain_net), images()
    theirs = captum.GuidedBackprop(network).attribute(batch.clone().requires_grad_(), TARGETS)
    assert error(guided_backprop(network, batch, TARGETS), theirs) < 1e-5
    theirs = captum.GuidedGradCam(network, network[5]).attribute(
        batch.clone().requires_grad_(), TARGETS, interpolate_mode="bilinear"
    )
    assert error(guided_grad_cam(network, batch, TARGETS), theirs) < 1e-5


COMPLETE_ON = [
    "vgg16",
    "resnet18",
    "inception_v3",
    "xception",
    "efficientnet_lite0",
    "squeezenet1_0",
    "mobilefacenet",
]


def test_deep_lift_of_prelu_is_captums_of_the_leaky_relu_that_it_equals() -> None:
    """(Captum itself takes a PReLU for linear.)"""
    network, batch, start = seeded(lambda: leaky_net(nn.PReLU)), images(), images(1, seed=7)
    theirs = captum.DeepLift(seeded(lambda: leaky_net(lambda: nn.LeakyReLU(0.25))))
    expected = theirs.attribute(batch.clone(), start, TARGETS)
    assert error(deep_lift(network, batch, TARGETS, baselines=start), expected) < 1e-5
    for slope, activation in zip((-0.3, 0.6), (network[1], network[3]), strict=True):
        nn.init.constant_(activation.weight, slope)
    network = network.double()
    maps = deep_lift(network, batch.double(), 1, baselines=start.double())
    for row, image in zip(maps, batch.double(), strict=True):
        assert error(row, plain_deep_lift(network, image, start[0].double(), 1)) < 1e-9


def leaky_net(activation: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), activation(), nn.Conv2d(4, 4, 3, padding=1), activation(),
        nn.Flatten(), nn.Linear(256, 4),
    )  # fmt: skip


@pytest.mark.parametrize("name", COMPLETE_ON)
def test_deep_lift_is_complete_on_networks_of_the_package(name: str) -> None:
    model, batch = package_network(name)
    maps, delta = deep_lift(model, batch, 1, return_convergence_delta=True)
    with torch.no_grad():
        after, before = model(batch)[:, 1], model(torch.zeros_like(batch))[:, 1]
    scale = maps.abs().sum((1, 2, 3)) + after.abs() + before.abs()
    # Rounding: a hundred layers, each of some units of the last place, 6e-8.
    assert (delta.abs() / scale).max() < 1e-5
    assert ((maps.sum((1, 2, 3)) - (after - before)).abs() / scale).max() < 1e-5
    assert maps.any()


class Calls(nn.Module):
    """A convolution, then ``how``, then a linear layer."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        self.conv, self.how, self.last = nn.Conv2d(2, 2, 1), how, nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.how(self.conv(x)).flatten(1))


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.abs()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope


@pytest.mark.parametrize(
    ("how", "match"),
    [
        (nn.Softmax(1), "no rule for the function 'softmax'"),
        (lambda x: x * x.mean((2, 3), keepdim=True), "no rule for the function 'mul'"),
        (lambda x: 1 / (x + 9), "no rule for the function"),
        (lambda x: x.max(1, keepdim=True)[0].expand(-1, 2, -1, -1), "no rule for the function 'max'"),
        (nn.GroupNorm(1, 2), "no rule for the function 'group_norm'"),
        (nn.BatchNorm2d(2, track_running_stats=False), "no rule for the function 'batch_norm'"),
        (lambda x: x * (x > 0), "miss the difference of the logits"),
        (Step.apply, "miss the difference of the logits"),
        (lambda x: x.relu() if x.mean() > 0.05 else x, "another way for the baseline"),
    ],
)  # fmt: skip
def test_deep_lift_refuses_what_it_would_get_wrong(how: Any, match: str) -> None:
    network = seeded(lambda: Calls(how))
    with torch.no_grad():
        network.conv.bias.copy_(torch.tensor([-0.2, 0.1]))
        network.conv.weight.copy_(torch.tensor([[1.0, -0.5], [0.3, 0.7]]).view(2, 2, 1, 1))
    with pytest.raises(UserError, match=match) as caught:
        deep_lift(network, images())
    assert "\n" not in str(caught.value)


def test_linear_operations_are_let_through() -> None:
    def how(x: Tensor) -> Tensor:
        x = 2 * x - 1 / torch.tensor(3.0)
        left, right = x.chunk(2, 1)
        x = torch.cat([left + right, (right - left) / 4], 1)
        x *= torch.full((2, 1, 1), 0.5)
        return nn.functional.interpolate(nn.functional.avg_pool2d(x, 2), scale_factor=2.0).permute(0, 1, 3, 2)

    network = seeded(lambda: Calls(how))
    gradients = gradient(network, images(), 1)
    torch.testing.assert_close(deep_lift(network, images(), 1, baselines=0.5), gradients * (images() - 0.5))
    normalised = seeded(normalised_net)
    deep_lift(normalised, images())


@pytest.mark.parametrize(
    ("how", "match"),
    [
        (lambda x: x.clamp(min=0), "'clamp'"),
        (lambda x: torch.maximum(x, 0 * x), "'maximum'"),
        (lambda x: torch.max(x, torch.zeros(())), "'max'"),
        (lambda x: torch.fmax(x, torch.zeros(())), "'fmax'"),
        (lambda x: -torch.minimum(-x, torch.zeros(())), "'minimum'"),
        (lambda x: -(-x).clamp_max(0), "'clamp_max'"),
        (lambda x: (x + x.abs()) / 2, "'abs'"),
        (lambda x: x * (x > 0), "'gt'"),
        (lambda x: x * torch.ge(x, 0), "'ge'"),
        (lambda x: x - x * torch.lt(x, 0), "'lt'"),
        (lambda x: x.masked_fill(x.detach() < 0, 0), "'masked_fill'"),
        (lambda x: x.clone().index_put_((x.detach() < 0,), torch.zeros(())), "'index_put'"),
        (lambda x: nulled(x), "'setitem'"),
    ],
)
def test_guided_methods_refuse_relus_in_disguise(how: Any, match: str) -> None:
    for method in (guided_backprop, guided_grad_cam):
        with pytest.raises(UserError, match=match):
            method(seeded(lambda: Calls(how)), images())


def nulled(x: Tensor) -> Tensor:
    x = x.clone()
    x[x.detach() < 0] = 0
    return x


def test_a_reduction_is_no_relu_in_disguise() -> None:
    def how(x: Tensor) -> Tensor:
        x = x.relu()
        x = x / x.max() + x.max(1, keepdim=True).values + x.min(1, True)[0]
        x[:, :, 0] = 0
        return x

    assert guided_backprop(seeded(lambda: Calls(how)), images(), 1).any()


def linear_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(108, 4))


@pytest.mark.parametrize("std", [0.0, 0.2])
def test_gradient_shap_is_exact_on_linear_networks(std: float) -> None:
    network, batch, many = seeded(linear_net).double(), images().double(), images(4, seed=8).double()
    maps, delta = gradient_shap(
        network, batch, TARGETS, baselines=many, n_samples=8, std=std, return_convergence_delta=True
    )
    if std:
        assert delta.abs().max() > 1e-6
        assert torch.isfinite(maps).all()
        return
    picked = torch.arange(3)
    change = network(batch)[picked, TARGETS] - network(many).mean(0)[TARGETS]
    torch.testing.assert_close(maps.sum((1, 2, 3)), change)
    torch.testing.assert_close(maps, gradient(network, batch, TARGETS) * (batch - many.mean(0)))
    assert delta.abs().max() < 1e-12
    _, delta = gradient_shap(
        network, batch, TARGETS, baselines=many, n_samples=3, return_convergence_delta=True
    )
    assert delta.abs().max() < 1e-12  # against the three baselines that were taken


def test_gradient_shap_is_captums_in_expectation() -> None:
    network, batch, many = seeded(plain_net), images(2), images(4, seed=8)
    samples, std = 400, 0.05
    ours = torch.stack(
        [
            gradient_shap(
                network, batch, 1, baselines=many, n_samples=samples, std=std, seed=seed, batch_size=800
            )
            for seed in range(8)
        ]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.stack(
            [
                captum.GradientShap(network).attribute(batch, many, n_samples=samples, stdevs=std, target=1)
                for _ in range(8)
            ]
        ).detach()
    spread_of_means = ((ours.var(0) + theirs.var(0)) / 8).sqrt()
    distance = (ours.mean(0) - theirs.mean(0)) / spread_of_means
    # With 8 + 8 runs each is about a t of 14 degrees, whose variance is 14/12; there are 256 pixels.
    assert distance.square().mean() < 2
    assert error(ours.mean(0), theirs.mean(0)) < 0.1


def test_gradient_shap_approaches_integrated_gradients() -> None:
    network, batch = seeded(plain_net), images(2)
    exact = integrated_gradients(network, batch, 1, n_steps=200)
    few, many = (gradient_shap(network, batch, 1, n_samples=n) for n in (20, 2000))
    assert error(many, exact) < 0.05
    assert error(many, exact) < error(few, exact)


def test_baselines_and_noise_are_in_the_units_of_the_images() -> None:
    model, batch = Wrapper(seeded(plain_net)), images()
    inside, grey = model.normalize(batch), model.normalize(torch.full((1, 2, 8, 8), 0.25))
    for method in (integrated_gradients, deep_lift, gradient_shap):
        expected = method(model.network, inside, 1, baselines=grey)
        torch.testing.assert_close(method(model, batch, 1, baselines=0.25), expected)
        each = torch.tensor([0.25, 0.25]).view(2, 1, 1)
        torch.testing.assert_close(method(model, batch, 1, baselines=each), expected)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(128, 1, bias=False))
    noisy = smooth_grad(Wrapper(flat), batch, 0, method="input_times_gradient", std=0.1, n_samples=200)
    clean = input_times_gradient(Wrapper(flat), batch, 0)
    deviation = (
        (noisy - clean)
        / (0.1 / 200**0.5 / torch.tensor([0.2, 0.25]).view(1, 2, 1, 1))
        / flat[1].weight.view(1, 2, 8, 8)
    )
    assert abs(float(deviation.detach().std()) - 1) < 4 / (2 * 384) ** 0.5


def test_smooth_grad_is_the_mean_over_noise() -> None:
    network, batch = seeded(plain_net).double(), images().double()
    seen = []

    def spy(model: nn.Module, rows: Tensor, targets: Tensor, *, batch_size: int) -> Tensor:
        seen.append((rows, targets))
        assert len(rows) <= batch_size
        return gradient(model, rows, targets, batch_size=batch_size)

    ours = smooth_grad(network, batch, method=spy, n_samples=5, std=0.3, seed=4, batch_size=8)
    rows, targets = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert rows.shape == (15, 2, 8, 8)
    assert torch.equal(targets.view(5, 3), network(batch).argmax(1).expand(5, 3))
    torch.testing.assert_close(ours, gradient(network, rows, targets).view(5, 3, 2, 8, 8).mean(0))
    noise = rows.view(5, 3, 2, 8, 8) - batch
    assert abs(float(noise.std()) / 0.3 - 1) < 4 / (2 * noise.numel()) ** 0.5
    assert abs(float(noise.mean())) < 4 * 0.3 / noise.numel() ** 0.5
    assert torch.equal(ours, smooth_grad(network, batch, n_samples=5, std=0.3, seed=4, batch_size=8))
    assert not torch.equal(ours, smooth_grad(network, batch, n_samples=5, std=0.3, seed=5, batch_size=8))
    torch.testing.assert_close(smooth_grad(network, batch, std=0.0, n_samples=2), gradient(network, batch))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("smooth_grad", "clrp", "sglrp")])
def test_smooth_grad_over_every_method(name: str) -> None:
    network, batch = seeded(plain_net), images()
    smooth = smooth_grad(network, batch, 1, method=name, n_samples=2, std=0.0)
    # GradientSHAP draws anew for every sample.
    expected = METHODS[name](network, batch, 1)
    if name == "gradient_shap":  # and not what the noise is drawn from
        expected = sum(gradient_shap(network, batch, 1, seed=seed) for seed in (1, 2)) / 2
    torch.testing.assert_close(smooth, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [integrated_gradients, gradient_shap, smooth_grad, deep_lift])
def test_no_more_rows_at_once_than_the_batch_size(method: Any) -> None:
    network, rows = seeded(plain_net), []
    network[0].register_forward_hook(lambda module, given, output: rows.append(len(output)))
    method(network, images(5), batch_size=3)
    assert max(rows) == 3


@pytest.mark.parametrize(
    ("method", "arguments", "kind", "match"),
    [
        (integrated_gradients, {"n_steps": 0}, ValueError, "n_steps must be an integer of at least 1"),
        (integrated_gradients, {"baselines": torch.zeros(2, 2, 8, 8)}, ValueError, "one for each of 3, not 2"),
        (integrated_gradients, {"baselines": torch.zeros(3, 8, 8)}, ValueError, r"\(3, 8, 8\) do not fit"),
        (deep_lift, {"baselines": float("nan")}, ValueError, "baselines must be finite"),
        (deep_lift, {"baselines": "black"}, TypeError, "baselines must be None, a number"),
        (deep_lift, {"baselines": True}, TypeError, "baselines must be None, a number"),
        (gradient_shap, {"baselines": torch.zeros(0, 2, 8, 8)}, ValueError, "at least one"),
        (gradient_shap, {"n_samples": 2.5}, ValueError, "n_samples must be an integer of at least 1"),
        (gradient_shap, {"std": -1.0}, ValueError, "std must be a finite number"),
        (gradient_shap, {"seed": -1}, ValueError, "seed must be an integer"),
        (smooth_grad, {"std": float("inf")}, ValueError, "std must be a finite number"),
        (smooth_grad, {"method": "saliency"}, UserError, "method must be one of gradient, "),
        (smooth_grad, {"method": 3}, TypeError, "method must be a name or a function"),
        (guided_grad_cam, {"layer": "conv"}, UserError, "no module 'conv'"),
    ],
)  # fmt: skip
def test_wrong_arguments_name_themselves(
    method: Any, arguments: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        method(seeded(plain_net), images(), **arguments)
