"""Relevance through BatchNorm, sums and concatenations: against zennit, against chains, and conservation."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torchvision
from lrp_reference import lrp as reference_lrp
from subjects import seeded
from torch import Tensor, nn
from torch.nn import functional
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite, SpecialFirstLayerMapComposite
from zennit.core import Composite
from zennit.layer import Sum
from zennit.rules import Epsilon, Flat, Norm, Pass, ZBox, ZPlus
from zennit.torchvision import ResNetCanonizer
from zennit.types import Activation, AvgPool, Convolution, Linear

from benchmarks import attribution_lrp
from xaicore import models
from xaicore.attribution import PRESETS, clrp, input_times_gradient, lrp, sglrp
from xaicore.core.errors import UserError

SIZES = {"inception_v3": 75, "xception": 48, "squeezenet1_0": 64, "small_cnn": 28}
IMAGES = {
    **SIZES,
    "mobilefacenet": (112, 96),
}  # a resized image is not one that the gradient is shared out by
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def photos(size: int | tuple[int, int], n: int = 2, channels: int = 3) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(1))


def with_statistics(network: nn.Module, *, biased: bool = True, eps: float = 1e-3) -> nn.Module:
    """Draw all statistics of BatchNorm layers; without biases the folded layers have none."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, BATCHNORMS):
            module.eps = eps
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 1, 2, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
            if not biased:
                deviation = (module.running_var + module.eps).sqrt()
                module.bias.data = module.running_mean * module.weight.data / deviation
        elif not biased and getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    return network.eval()


def model(
    name: str, *, biased: bool = True, eps: float = 1e-3, dtype: torch.dtype = torch.float32
) -> models.Classifier:
    options = {"width": 0.125} if models.REGISTRY[name].scalable else {}
    size = SIZES.get(name, 32)
    normalised = models.REGISTRY[name].batch_norm
    built = models.load(name, classes=4, input_size=size, batch_norm=normalised, **options).to(dtype)
    return with_statistics(built, biased=biased, eps=eps)


def error(ours: Tensor, theirs: Tensor) -> float:
    assert bool(theirs.any())
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", sorted(models.REGISTRY.keys() - {"resnet101"}))
def test_relevance_is_conserved_on_every_architecture(name: str) -> None:
    """In float64, where rounding cannot hide a loss: all arrives at the pixels where there is no bias."""
    network = model(name, biased=False, dtype=torch.float64)
    batch = photos(IMAGES.get(name, 32), n=1).double()
    logits = network(batch).detach().max(1).values
    heatmaps = lrp(network, batch, None, "z")
    # Xception's logits are small differences of large terms: rounding of 1e-16 shows up as 1e-12.
    torch.testing.assert_close(heatmaps.sum((1, 2, 3)), logits, rtol=1e-9, atol=0)
    # For networks of ReLU, pooling and sums without bias the z rule is the gradient times the input.
    if "lite" not in name:  # ReLU6 is flat above 6, where relevance passes but no gradient
        assert error(heatmaps, input_times_gradient(network, batch)) < 1e-9


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *(("vgg16", preset) for preset in ("z", "alpha1-beta0", "alpha2-beta1", "w-square", "flat")),
        *(("resnet18", preset) for preset in ("z", "alpha1-beta0", "alpha2-beta1", "preset-b-flat")),
    ],
)
def test_relevance_is_conserved_in_single_precision(name: str, preset: str) -> None:
    network, batch = model(name, biased=False), photos(SIZES.get(name, 32))
    options = {"epsilon": 0.0} if PRESETS[preset].uses("epsilon") else {}
    logits = network(batch).detach().max(1).values
    heatmaps = lrp(network, batch, None, preset, **options)
    torch.testing.assert_close(heatmaps.sum((1, 2, 3)), logits, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", models.REGISTRY)
def test_every_preset_works_on_every_architecture(name: str) -> None:
    network, batch = model(name), photos(SIZES.get(name, 32), n=1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    presets = ("preset-a-flat", "deep-taylor-bounded")
    if name in ("vgg16", "small_cnn", "squeezenet1_0", "mobilefacenet"):
        presets = tuple(PRESETS)
    for preset in presets:
        if name == "mobilefacenet" and PRESETS[preset].positive_output:
            with pytest.raises(UserError, match=r"no rule for 'conv1\.prelu', an activation"):
                lrp(network, batch, 1, preset)
            continue
        heatmaps = lrp(network, batch, 1, preset)
        assert heatmaps.shape == batch.shape
        assert bool(torch.isfinite(heatmaps).all())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_a_model_folded_beforehand_gives_the_same(name: str) -> None:
    network, batch = model(name), photos(32)
    target = positive_target(network, batch)
    folded = lrp(network.fold_batchnorm(), batch, target, "deep-taylor")
    # All terms of this rule are positive, so float32 loses no digits but through max-pool ties.
    assert error(lrp(network, batch, target, "deep-taylor"), folded) < 1e-4


def nonzero(values: Tensor) -> Tensor:
    return values.masked_fill(values == 0, 1e-7)


LOW, HIGH = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
Z_PLUS = ZPlus(stabilizer=nonzero, zero_params=["bias"])


def zennit_composite(preset: str, canonizer: Any) -> Composite:
    """The composite whose arithmetic is that of the preset."""
    shared = [(Activation, Pass()), (Sum, Norm(stabilizer=nonzero))]
    if preset == "epsilon":
        rules = [*shared, (AvgPool, Norm(stabilizer=nonzero)), (Linear, Epsilon(epsilon=0.1))]
        return LayerMapComposite(rules, canonizers=[canonizer])
    if preset == "deep-taylor":
        return LayerMapComposite([*shared, (Linear, Z_PLUS)], canonizers=[canonizer])
    if preset == "deep-taylor-bounded":
        first = [(Linear, ZBox(LOW, HIGH, stabilizer=nonzero, zero_params=["bias"]))]
        return SpecialFirstLayerMapComposite([*shared, (Linear, Z_PLUS)], first, canonizers=[canonizer])
    assert preset == "preset-a-flat"
    rules = [
        *shared,
        (AvgPool, Norm(stabilizer=nonzero)),
        (Convolution, ZPlus(stabilizer=nonzero)),
        (nn.Linear, Epsilon(epsilon=0.1)),
    ]
    first = [(Linear, Flat(stabilizer=nonzero))]
    return SpecialFirstLayerMapComposite(rules, first, canonizers=[canonizer])


def zennit_lrp(network: nn.Module, batch: Tensor, target: int, preset: str, canonizer: Any) -> Tensor:
    def start(logits: Tensor) -> Tensor:
        only = torch.zeros_like(logits)
        only[:, target] = logits[:, target]
        return only.clamp(min=0) if preset.startswith("deep-taylor") else only

    with Gradient(network, zennit_composite(preset, canonizer)) as attributor:
        return attributor(batch, start)[1].detach()


def positive_target(network: nn.Module, batch: Tensor) -> int:
    smallest, target = network(batch).amin(0).max(0)
    assert smallest > 0  # or deep Taylor decomposition has nothing to say
    return int(target)


@pytest.mark.parametrize("preset", ["epsilon", "deep-taylor-bounded", "preset-a-flat"])
def test_residual_networks_agree_with_zennit(preset: str) -> None:
    """On torchvision's network with our weights: BatchNorm merged and sums made layers by zennit's canonizer."""
    # zennit's alpha1-beta0 keeps the positive part of the bias only, ours all of it: alike without bias.
    # A BatchNorm that zennit has merged still divides by sqrt(1 + eps): alike with eps = 0.
    ours = model("resnet18", biased=preset != "preset-a-flat", eps=0.0, dtype=torch.float64).network
    theirs = torchvision.models.resnet18(num_classes=4).double().eval()
    theirs.load_state_dict(ours.state_dict())
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    batch = photos(32).double()
    target = positive_target(ours, batch)
    bounds = {"low": 0.0, "high": 1.0} if preset == "deep-taylor-bounded" else {}
    expected = zennit_lrp(copy.deepcopy(theirs), batch, target, preset, ResNetCanonizer())
    assert error(lrp(ours, batch, target, preset, **bounds), expected) < 1e-8
    assert error(lrp(theirs, batch, target, preset, **bounds), expected) < 1e-8


@pytest.mark.parametrize("preset", ["epsilon", "deep-taylor", "deep-taylor-bounded", "preset-a-flat"])
def test_fire_modules_agree_with_zennit(preset: str) -> None:
    """On torchvision's SqueezeNet with our weights; preset-a-flat without biases, as for residual networks."""
    ours = model("squeezenet1_0", dtype=torch.float64).network
    biased = preset != "preset-a-flat"
    for module in ours.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(
                module.bias, 0.05 * biased, 0.1 * biased, generator=torch.Generator().manual_seed(5)
            )
    theirs = torchvision.models.squeezenet1_0(num_classes=4).double().eval()
    theirs.load_state_dict(ours.state_dict())
    batch = photos(64).double()
    target = positive_target(ours, batch)
    bounds = {"low": 0.0, "high": 1.0} if preset == "deep-taylor-bounded" else {}
    expected = zennit_lrp(copy.deepcopy(theirs), batch, target, preset, SequentialMergeBatchNorm())
    assert error(lrp(ours, batch, target, preset, **bounds), expected) < 1e-8


def test_leaky_activations_pass_relevance_as_in_zennit() -> None:
    network = seeded(
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 4, 3, padding=1), nn.PReLU(4), nn.Conv2d(4, 3, 3), nn.LeakyReLU(0.2)),
            *(nn.Flatten(), nn.Linear(108, 3)),
        )
    ).double()
    nn.init.uniform_(network[1].weight, -0.4, 0.4)
    batch = photos(8, channels=2).double() - 0.5
    expected = zennit_lrp(copy.deepcopy(network), batch, 1, "epsilon", SequentialMergeBatchNorm())
    assert error(lrp(network, batch, 1, "epsilon"), expected) < 1e-8
    as_function = copy.deepcopy(network)
    as_function[3] = Leaky()
    assert error(lrp(as_function, batch, 1, "alpha2-beta1"), lrp(network, batch, 1, "alpha2-beta1")) < 1e-12
    for method in (clrp, sglrp):
        with pytest.raises(UserError, match=r"'deep-taylor-bounded' .* no rule for '1', an activation"):
            method(network, batch, 1, low=-1)


class Leaky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.2)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resizing_divides_relevance_by_its_weights(mode: str) -> None:
    """What arrives at the resized image is that of the network alone; its parts go where they were taken from."""
    resize = nn.Upsample((7, 6), mode=mode)
    rest = seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(60, 3))
    ).double()
    batch = photos(9, channels=2).double()
    inner = lrp(rest, resize(batch), 1, "alpha1-beta0")
    found = lrp(nn.Sequential(resize, *rest), batch, 1, "alpha1-beta0")
    matrix = torch.stack([resize(pixel.view(1, 1, 9, 9)).flatten() for pixel in torch.eye(81).double()])
    expected = (inner.flatten(2) @ matrix.T).view_as(batch)
    assert error(found, expected) < 1e-12
    torch.testing.assert_close(found.sum((1, 2, 3)), inner.sum((1, 2, 3)))
    with pytest.raises(UserError, match="its mode must be nearest"):
        lrp(nn.Sequential(nn.Upsample((7, 6), mode="bicubic"), *rest), batch, 1)


@pytest.mark.parametrize("preset", ["epsilon", "deep-taylor", "deep-taylor-bounded"])
@pytest.mark.parametrize("name", ["vgg16", "small_cnn"])
def test_batchnorm_agrees_with_zennit(name: str, preset: str) -> None:
    network = model(name, eps=0.0, dtype=torch.float64).network
    batch = photos(SIZES.get(name, 32)).double()
    target = positive_target(network, batch)
    bounds = {"low": 0.0, "high": 1.0} if preset == "deep-taylor-bounded" else {}
    expected = zennit_lrp(copy.deepcopy(network), batch, target, preset, SequentialMergeBatchNorm())
    assert error(lrp(network, batch, target, preset, **bounds), expected) < 1e-8


@pytest.mark.parametrize("preset", PRESETS)
def test_batchnorm_agrees_with_the_formulas_on_folded_weights(preset: str) -> None:
    network = with_statistics(seeded(batchnorm_net, 9)).double()
    folded = [module for module in network if not isinstance(module, BATCHNORMS)]
    for before, norm in zip(list(network)[:-1], list(network)[1:], strict=True):
        if isinstance(norm, BATCHNORMS):
            place = folded.index(before)
            folded[place] = by_hand(before, norm)
    batch = photos(8, channels=2).double() * 2 - 1
    target = positive_target(network, batch)
    bounds = {"low": -1.0, "high": 1.0} if preset == "deep-taylor-bounded" else {}
    theirs = torch.stack(
        [torch.from_numpy(reference_lrp(folded, x.numpy(), target, preset, -1.0, 1.0)) for x in batch]
    )
    assert error(lrp(network, batch, target, preset, **bounds), theirs) < 1e-9


def batchnorm_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def by_hand(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """The layer that computes norm(layer(x)), one output at a time."""
    folded = copy.deepcopy(layer)
    bias = torch.zeros(len(layer.weight), dtype=torch.float64)
    for k in range(len(layer.weight)):
        scale = norm.weight[k] / (norm.running_var[k] + norm.eps) ** 0.5
        folded.weight.data[k] = layer.weight[k] * scale
        old = 0 if layer.bias is None else layer.bias[k]
        bias[k] = (old - norm.running_mean[k]) * scale + norm.bias[k]
    folded.bias = nn.Parameter(bias)
    return folded


class Parts(nn.Module):
    """Layers to make branching networks of, and the forward pass that joins them."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.wide, self.head, self.tail = nn.Conv2d(3, 8, 3), nn.Linear(64, 3), nn.Linear(128, 3)
        self.relu, self.joined = nn.ReLU(inplace=True), forward
        self.wide.weight.data = torch.cat([self.left.weight, self.right.weight])
        self.wide.bias.data = torch.cat([self.left.bias, self.right.bias])

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(self, x)


def summed(net: Parts, x: Tensor) -> Tensor:
    x = net.relu(net.stem(x))
    y = net.left(x)
    y += net.right(x)
    return net.head(functional.relu(y, inplace=True).view(x.size(0), -1))


def added_weights(net: Parts, x: Tensor) -> Tensor:
    x = net.wide(net.relu(net.stem(x)))
    return net.head(net.relu(x).flatten(1))


def concatenated(net: Parts, x: Tensor) -> Tensor:
    x = net.relu(net.stem(x))
    return net.tail(torch.flatten(torch.cat([net.left(x), net.right(x)], 1).relu(), 1))


def stacked_weights(net: Parts, x: Tensor) -> Tensor:
    return net.tail(torch.flatten(net.wide(net.relu(net.stem(x))).relu(), 1))


def doubled(net: Parts, x: Tensor) -> Tensor:
    x = net.left(net.relu(net.stem(x)))
    x = torch.relu(x)
    return net.head(torch.flatten(torch.add(x, x), 1))


def twice_the_weights(net: Parts, x: Tensor) -> Tensor:
    return net.head(torch.flatten(net.left(net.relu(net.stem(x))).relu(), 1))


def compared(one: Any, other: Any, preset: str, change: Any = None) -> float:
    first, second = (seeded(lambda f=forward: Parts(f)).double() for forward in (one, other))
    if change is not None:
        change(second)
    batch = photos(8, channels=2).double() * 2 - 1
    torch.testing.assert_close(first(batch), second(batch))
    bounds = {"low": -1.0, "high": 1.0} if preset == "deep-taylor-bounded" else {}
    target = positive_target(first, batch)
    return error(lrp(first, batch, target, preset, **bounds), lrp(second, batch, target, preset, **bounds))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_concatenation_is_one_layer_with_all_filters(preset: str) -> None:
    assert compared(concatenated, stacked_weights, preset) < 1e-9


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset not in ("w-square", "flat")])
def test_a_tensor_that_is_used_twice_collects_both_relevances(preset: str) -> None:
    """(w-square and flat give relevance to zeros as well, and a sum of zeros cannot hand it on.)"""

    def change(net: Parts) -> None:
        net.head.weight.data *= 2

    assert compared(doubled, twice_the_weights, preset, change) < 1e-9


def test_by_the_z_rule_a_sum_of_two_layers_is_the_layer_of_their_sum() -> None:
    """x·w/z_left · z_left/(z_left + z_right) and the same on the right make x·(w + w')/(z_left + z_right)."""

    def change(net: Parts) -> None:
        net.wide.weight.data = net.left.weight + net.right.weight
        net.wide.bias.data = net.left.bias + net.right.bias

    assert compared(summed, added_weights, "z", change) < 1e-9


@pytest.mark.parametrize(("values", "expected"), [((1.0, 2.0), (3.0, 2.0)), ((2.0, -1.0), (6.0, -1.0))])
def test_a_sum_divides_in_proportion_to_its_summands(
    values: tuple[float, float], expected: tuple[float, float]
) -> None:
    """By hand: 3·x₀ on the left, x₁ on the right, both kept as they are; what arrives is 3·x₀ and x₁."""
    first, second = nn.Conv2d(2, 1, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)
    first.weight.data, second.weight.data = (torch.tensor(w).view(1, 2, 1, 1) for w in ([3.0, 0], [0, 1.0]))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = first, second, nn.Linear(1, 1, bias=False)
            nn.init.ones_(self.head.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.first(x) + self.second(x)).flatten(1))

    batch = torch.tensor(values).view(1, 2, 1, 1)
    for preset in ("z", "alpha1-beta0") if min(values) > 0 else ("z",):
        torch.testing.assert_close(lrp(Net(), batch, 0, preset).flatten(), torch.tensor(expected))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(functional.max_pool2d(self.one(x), 2, stride=1, padding=1))
        x = functional.avg_pool2d(input=x, kernel_size=3, stride=2, padding=1)
        x = functional.dropout(functional.relu(self.two(x)), 0.5, self.training, inplace=True)
        x = functional.adaptive_avg_pool2d(x, (2, 2)).mean((-1, -2), keepdim=True)
        return self.head(torch.flatten(x, start_dim=1))


def as_modules(net: Functional) -> nn.Sequential:
    return nn.Sequential(
        net.one, nn.MaxPool2d(2, 1, 1), nn.ReLU6(), nn.AvgPool2d(3, 2, 1), net.two, nn.ReLU(), nn.Dropout(),
        nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.head,
    )  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_functions_are_taken_as_the_layers_they_are(preset: str) -> None:
    network, batch = seeded(Functional).double(), photos(8, channels=2).double()
    bounds = {"low": 0.0, "high": 1.0} if preset == "deep-taylor-bounded" else {}
    target = positive_target(network.eval(), batch)
    expected = lrp(as_modules(network), batch, target, preset, **bounds)
    assert error(lrp(network, batch, target, preset, **bounds), expected) < 1e-9


@pytest.mark.parametrize("preset", ["z", "epsilon", "alpha1-beta0", "preset-a", "deep-taylor-bounded"])
def test_padding_before_a_convolution_is_its_own_padding(preset: str) -> None:
    def network(*start: nn.Module) -> nn.Module:
        return nn.Sequential(*start, nn.ReLU(), nn.Flatten(), seeded(lambda: nn.Linear(192, 3))).double()

    inside = seeded(lambda: nn.Conv2d(2, 3, 3, padding=1))
    outside = seeded(lambda: nn.Conv2d(2, 3, 3))
    batch = photos(8, channels=2).double()
    bounds = {"low": 0.0, "high": 1.0} if preset == "deep-taylor-bounded" else {}
    plain, padded = network(inside), network(nn.ZeroPad2d(1), outside)
    target = positive_target(plain, batch)
    assert error(*(lrp(net, batch, target, preset, **bounds) for net in (padded, plain))) < 1e-9


def test_the_bounds_follow_the_input_to_the_first_layers() -> None:
    """Pooled and in two branches, the input has other bounds for each layer that sees it first."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Linear(128, 4), nn.Linear(32, 4), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            pooled = functional.max_pool2d(x, 2)
            branches = [self.one(x.flatten(1)), self.two(pooled.flatten(1))]
            return self.head(torch.cat(branches, -1).relu())

    network, batch = seeded(Net).double(), photos(8, channels=2).double()
    target = positive_target(network, batch)
    heatmaps = lrp(network, batch, target, "deep-taylor-bounded", low=0.0, high=1.0)
    # The bounded rule loses nothing and gives no input a negative share; the others here lose what has no share.
    assert bool((heatmaps >= 0).all())
    total = lrp(network, batch, target, "deep-taylor-bounded", low=-5.0, high=7.0).sum((1, 2, 3))
    torch.testing.assert_close(heatmaps.sum((1, 2, 3)), total)


def test_zennits_composite_is_matched_by_the_benchmark() -> None:
    """Two float32 computations of 16 layers, whose rounding differs and is amplified by small denominators."""
    (row,) = attribution_lrp.rows(repeats=1, quick=True)
    assert row["max_relative_error"] < 1e-3
    assert row["ratio"] == pytest.approx(row["peer_ms"] / row["ours_ms"], rel=1e-3)


def test_other_threads_compute_as_ever_while_a_network_is_traced():
    network, images = with_statistics(models.load("resnet18", 3, input_size=32).network), photos(32)
    with torch.no_grad():
        expected, found = network(images), []

    def compute() -> None:
        with torch.no_grad():
            found.append(network(images))

    class Watched(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            thread = threading.Thread(target=compute)
            thread.start()
            thread.join()
            return self[1](self[0](inputs))

    watched = Watched(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    lrp(watched, images)
    assert found
    assert all(torch.equal(each, expected) for each in found)


@pytest.mark.parametrize("shared", [True, False])
def test_threads_explain_side_by_side(shared):
    network, images = with_statistics(models.load("resnet18", 3, input_size=32)), photos(32, n=6)
    expected = [lrp(network, image[None]) for image in images]
    nets = [network if shared else copy.deepcopy(network) for _ in images]
    with ThreadPoolExecutor(len(images)) as pool:
        found = list(pool.map(lambda net, image: lrp(net, image[None]), nets, images))
    for each, heatmap in zip(expected, found, strict=True):
        assert torch.equal(heatmap, each)
