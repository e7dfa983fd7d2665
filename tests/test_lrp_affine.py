"""Relevance through arithmetic with constants: a network that normalises is a classifier; BatchNorm before its ReLU."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attribution_networks import error, images, seeded
from lrp_reference import Array, apply_rule, bounded, matrix, rule_of, share_out
from torch import Tensor, nn
from torch.nn import functional
from torchvision import transforms
from torchvision.transforms import functional as images_as_functions
from torchvision.transforms import v2

from xaicore.attribution import PRESETS, clrp, input_times_gradient, lrp, sglrp
from xaicore.core.errors import UserError
from xaicore.models import Classifier

MEAN, STD = [0.4, 0.55], [0.2, 0.25]


def network() -> nn.Sequential:
    """Padded, strided, with BatchNorm: zeros of the padding are zeros of the normalised image."""
    built = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    built[1].running_mean.uniform_(-0.2, 0.2)
    built[1].running_var.uniform_(0.5, 1.5)
    return built


def classifier() -> Classifier:
    return Classifier(
        seeded(network, 12), classes="abc", name="tiny", mean=MEAN, std=STD, input_size=8, fixed_size=True
    )


class Inside(nn.Module):
    """Normalises in its forward pass."""

    mean: Tensor
    std: Tensor

    def __init__(self, inner: nn.Module, how: Callable[["Inside", Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.how = inner, how
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 2, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 2, 1, 1))
        self.learned = nn.Parameter(torch.tensor(MEAN))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.how(self, x))


def in_place(net: Inside, x: Tensor) -> Tensor:
    x -= net.mean
    return x.div_(net.std)


def leading_norm(inner: nn.Module) -> nn.Module:
    norm = nn.BatchNorm2d(2, eps=0.0, affine=False)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean = torch.tensor(MEAN).double()
    norm.running_var = torch.tensor(STD).double() ** 2
    return nn.Sequential(norm, inner)


HOWS: dict[str, Callable[[Inside, Tensor], Tensor]] = {
    "operators": lambda net, x: (x - net.mean) / net.std,
    "methods": lambda net, x: x.sub(net.mean).div(net.std),
    "functions": lambda net, x: torch.div(torch.sub(x, net.mean), other=net.std),
    "in place": in_place,
    "parameter": lambda net, x: (x - net.learned.view(1, -1, 1, 1)) / net.std,
    "literals": lambda net, x: (x - torch.tensor(MEAN).view(2, 1, 1)) / torch.tensor(STD).view(2, 1, 1),
    "torchvision's function": lambda net, x: images_as_functions.normalize(x, MEAN, STD),
    "scale and shift": lambda net, x: x * (1 / net.std) + -net.mean / net.std,
    "negative factors": lambda net, x: -((net.mean - x) * (-1 / net.std)) * -1,
}
MODELS: dict[str, Callable[[Classifier], nn.Module]] = {
    **{name: lambda model, how=how: Inside(model.network, how) for name, how in HOWS.items()},
    "Normalize": lambda model: nn.Sequential(transforms.Normalize(MEAN, STD, inplace=True), model.network),
    "Normalize v2": lambda model: nn.Sequential(v2.Normalize(MEAN, STD), model.network),
    "leading BatchNorm": lambda model: leading_norm(model.network),
    "wrapper": lambda model: nn.Sequential(nn.Identity(), model),
    "wrapper of a wrapper": lambda model: nn.Sequential(nn.Sequential(model)),
    "preprocessing": lambda model: Inside(model, lambda net, x: x * 1.0),
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled part": lambda model: nn.Sequential(
        nn.Identity(), torch.compile(nn.Sequential(model), backend="eager")
    ),
}


@pytest.mark.parametrize("how", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_that_normalises_is_explained_as_its_classifier(preset: str, how: str) -> None:
    """Exactly where it computes the same numbers; by borders, where padding shows a folded normalisation, too."""
    model, batch = classifier(), images()
    rounded = how in ("scale and shift", "negative factors", "leading BatchNorm")
    if rounded:
        model, batch = model.double(), batch.double()
    ours = MODELS[how](model).eval().to(batch.dtype)
    torch.testing.assert_close(ours(batch.clone()), model(batch))
    heatmaps, expected = lrp(ours, batch, 1, preset), lrp(model, batch, 1, preset)
    assert expected.any()
    assert error(heatmaps, expected) < 1e-9 if rounded else torch.equal(heatmaps, expected)


@pytest.mark.parametrize("how", ["operators", "wrapper", "Normalize"])
@pytest.mark.parametrize("method", [clrp, sglrp])
def test_so_is_its_contrastive_relevance(method: Any, how: str) -> None:
    model, batch = classifier(), images()
    ours = MODELS[how](model)
    assert torch.equal(method(ours, batch, 2), method(model, batch, 2))
    limits = {"low": -0.5, "high": 2.0}
    assert torch.equal(method(ours, batch, 2, **limits), method(model, batch, 2, **limits))
    assert not torch.equal(method(ours, batch, 2, **limits), method(ours, batch, 2))


def test_a_part_that_only_looks_like_a_classifier_is_refused() -> None:
    class Twice(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = Twice(seeded(network, 12), classes="abc", name="tiny", mean=MEAN, std=STD, input_size=8)
    with pytest.raises(UserError, match="that computes something else"):
        lrp(nn.Sequential(nn.Identity(), model), images(), 1)


def test_grey_images_for_a_network_of_colours_get_the_sum_of_all_channels() -> None:
    class Coloured(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.mean = inner, torch.tensor(MEAN).view(1, 2, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x - self.mean)

    inner, grey = seeded(network, 12), images(channels=1)
    coloured = lrp(Coloured(inner), grey.expand(-1, 2, -1, -1), 0)
    torch.testing.assert_close(lrp(Coloured(inner), grey, 0), coloured.sum(1, keepdim=True))


def dense_order(*, biased: bool = True) -> nn.Sequential:
    """BatchNorm, ReLU, convolution, as in a DenseNet; one BatchNorm that can be folded too."""
    built = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=biased), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1, bias=biased),
        nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3, bias=biased),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(4)
    for norm in built:
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(norm.bias, 0, 0.2, generator=generator)
            if not biased:  # in double precision, or rounding is a bias
                norm.double()
                norm.bias.data = norm.running_mean * norm.weight.data / (norm.running_var + norm.eps).sqrt()
    return built


def scale_and_shift(norm: nn.Module, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return w and b of each value of what a BatchNorm is given, in float64."""
    weight, bias, mean, variance = (
        part.detach().numpy().astype(np.float64)
        for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    scale = weight / np.sqrt(variance + norm.eps)
    each = int(np.prod(shape[1:]))
    return np.repeat(scale, each), np.repeat(bias - mean * scale, each)


def plainly(layers: list[nn.Module], image: Array, target: int, preset: str) -> Array:
    """Relevance by matrices: a BatchNorm after a layer with weights is multiplied into it, another has w and b."""
    shape: tuple[int, ...] = image.shape
    a, steps = image.ravel(), []
    for number, layer in enumerate(layers):
        before = a
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.AvgPool2d)):
            weights, bias, shape = matrix(layer, shape)
            seen = (weights != 0).astype(np.float64)
            following = layers[number + 1] if number + 1 < len(layers) else layer
            if isinstance(following, nn.BatchNorm2d):
                w, b = scale_and_shift(following, shape)
                weights, bias = weights * w[:, None], bias * w + b
            a = weights @ a + bias
            steps.append((layer, before, weights, bias, seen))
        elif isinstance(layer, nn.MaxPool2d):
            channels, height, width = shape
            picked = np.zeros((channels, height // 2, width // 2, channels, height, width))
            for c, y, x in np.ndindex(channels, height // 2, width // 2):
                window = a.reshape(shape)[c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                i, j = np.unravel_index(window.argmax(), window.shape)
                picked[c, y, x, c, 2 * y + i, 2 * x + j] = 1
            shape = picked.shape[:3]
            selection = picked.reshape(int(np.prod(shape)), -1)
            a = selection @ a
            steps.append((layer, before, selection, None, None))
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            if not isinstance(layers[number - 1], (nn.Conv2d, nn.Linear)):
                w, b = scale_and_shift(layer, shape)
                a = w * a + b
                steps.append((layer, before, w, b, None))
        elif isinstance(layer, nn.ReLU):
            a = np.maximum(a, 0)
        else:
            shape = (a.size,)
    relevance = np.zeros(a.size)
    deep_taylor = preset.startswith("deep-taylor")
    relevance[target] = max(a[target], 0) if deep_taylor else a[target]
    for layer, before, weights, bias, seen in reversed(steps):
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            if not deep_taylor and preset not in ("w-square", "flat"):
                relevance = share_out(np.diag(weights * before), weights * before + bias, relevance)
        elif isinstance(layer, nn.MaxPool2d) or (isinstance(layer, nn.AvgPool2d) and deep_taylor):
            relevance = weights.T @ relevance
        else:
            rule = "z" if isinstance(layer, nn.AvgPool2d) else rule_of(preset, layer, layer is layers[0])
            if rule == "bounded":
                relevance = bounded(weights, before, 0.0, 1.0, relevance)
            else:
                relevance = apply_rule(rule, weights, bias, seen, before, relevance)
    return relevance.reshape(image.shape)


@pytest.mark.parametrize("preset", PRESETS)
def test_batchnorm_before_its_relu_agrees_with_the_formulas(preset: str) -> None:
    net, batch = seeded(dense_order, 5).double(), images().double()
    smallest, target = net(batch).detach().amin(0).max(0)
    assert smallest > 0  # or deep Taylor decomposition has nothing to say
    theirs = torch.stack(
        [torch.from_numpy(plainly(list(net), x.numpy(), int(target), preset)) for x in batch]
    )
    assert error(lrp(net, batch, int(target), preset), theirs) < 1e-9


@pytest.mark.parametrize("preset", PRESETS)
def test_batchnorm_before_its_relu_conserves_relevance_without_bias(preset: str) -> None:
    net, batch = seeded(lambda: dense_order(biased=False), 5).double(), images().double()
    logits = net(batch).detach().max(1).values
    assert (logits > 0).all()
    options = {"epsilon": 0.0} if PRESETS[preset].uses("epsilon") else {}
    torch.testing.assert_close(lrp(net, batch, None, preset, **options).sum((1, 2, 3)), logits)


def test_by_the_z_rule_it_is_input_times_gradient_whatever_the_biases() -> None:
    net, batch = seeded(dense_order, 5).double(), images().double()
    assert error(lrp(net, batch, None, "z"), input_times_gradient(net, batch)) < 1e-9


class Mixed(nn.Module):
    """Arithmetic in the middle, written in several ways; a BatchNorm of a layer that is used elsewhere too."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.second = how, nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.norm, self.head, self.shift = nn.BatchNorm2d(2), nn.Linear(128, 2), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        if self.how == "operators":
            x = 0.5 - (x * 2 + self.shift) / 4
        elif self.how == "one layer each":
            x = torch.neg(x.mul(2).add(1).div(4)).add(0.5)
        elif self.how == "used elsewhere":
            x = self.second(x)
            x = x + self.norm(x)
        return self.head(torch.flatten(x, 1))


def test_arithmetic_in_the_middle_follows_the_z_rule() -> None:
    batch = images().double()
    for how in ("operators", "used elsewhere"):
        net = seeded(lambda name=how: Mixed(name), 33).double()
        assert error(lrp(net, batch, 0, "z"), input_times_gradient(net, batch, 0)) < 1e-9
    one, other = (
        seeded(lambda name=how: Mixed(name), 33).double() for how in ("operators", "one layer each")
    )
    for preset in PRESETS:
        assert error(lrp(one, batch, 0, preset), lrp(other, batch, 0, preset)) < 1e-9


def test_densenet_is_explained() -> None:
    import torchvision

    net = seeded(lambda: torchvision.models.densenet121(num_classes=4)).double()
    batch = images(1, 3, 32).double()
    assert error(lrp(net, batch, None, "z"), input_times_gradient(net, batch)) < 1e-6
    before = copy.deepcopy(net.state_dict())
    for preset in ("preset-a-flat", "deep-taylor-bounded"):
        assert torch.isfinite(lrp(net, batch, None, preset)).all()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
