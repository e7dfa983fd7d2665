"""Convolutions as matrix products against torch's own, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from xaicore import models
from xaicore.core import small_maps
from xaicore.core.small_maps import SmallMaps


@given(
    images=st.integers(1, 3),
    channels=st.sampled_from([(64, 8), (70, 3), (3, 5)]),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))),
    padding=st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 1), st.integers(0, 1)), st.just("same")),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_equals_convolution(images, channels, size, kernel, stride, padding, bias, seed):
    if padding == "same":
        stride = 1
    pads = (0, 0) if padding == "same" else (padding,) * 2 if isinstance(padding, int) else padding
    if any(s + 2 * p < k for s, p, k in zip(size, pads, kernel, strict=True)):
        return
    generator = torch.Generator().manual_seed(seed)
    given_ = [torch.randn(images, channels[0], *size, generator=generator, dtype=torch.float64)]
    given_ += [torch.randn(channels[1], channels[0], *kernel, generator=generator, dtype=torch.float64)]
    given_ += [torch.randn(channels[1], generator=generator, dtype=torch.float64)] if bias else []
    results = []
    for mode in (False, True):
        leaves = [each.clone().requires_grad_() for each in given_]
        if mode:
            with SmallMaps():
                found = functional.conv2d(*leaves, stride=stride, padding=padding)
        else:
            found = functional.conv2d(*leaves, stride=stride, padding=padding)
        weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view(found.shape)
        results.append((found, *torch.autograd.grad((found * weights).sum(), leaves)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_takes_over_only_small_ungrouped_maps(monkeypatch):
    taken = []
    original = small_maps._as_product

    def spy(*args, **kwargs):
        found = original(*args, **kwargs)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(small_maps, "_as_product", spy)
    weight = torch.randn(64, 64, 3, 3)
    with SmallMaps():
        functional.conv2d(torch.randn(2, 64, 4, 4), weight, padding=1)
        functional.conv2d(torch.randn(2, 64, 5, 5), weight, padding=1)
        functional.conv2d(torch.randn(2, 64, 4, 4), weight[:, :1], padding=1, groups=64)
        functional.conv2d(torch.randn(2, 64, 9, 9), weight, padding=1, dilation=4)
    assert taken == [True, False, False, False]


@pytest.mark.parametrize("name", ["resnet18"])
def test_a_recipe_with_it_trains_the_same_network_up_to_rounding(name):
    model = models.load(name, classes=("a", "b"), channels=1, input_size=48)
    images = torch.rand(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 1])
    recipe = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-5, "precision": "float32"}
    plain, fast = (
        models.train(model, images, labels, recipe=models.Recipe(**recipe, small_maps=which))
        for which in (False, True)
    )
    assert fast.history[0]["train_loss"] == pytest.approx(plain.history[0]["train_loss"], rel=1e-4)
    assert fast.model.fingerprint != plain.model.fingerprint
    before = model.network.state_dict()
    for key, value in plain.model.network.state_dict().items():
        torch.testing.assert_close(fast.model.network.state_dict()[key], value, rtol=1e-3, atol=3e-5)
    assert any(not torch.equal(before[key], value) for key, value in plain.model.network.state_dict().items())


@pytest.mark.parametrize(
    ("weight", "side", "taken"),
    [
        ((512, 256, 3, 3), 5, False),
        ((128, 63, 3, 3), 4, False),
        ((128, 64, 3, 3), 4, True),
        ((512, 3, 1, 1), 4, True),
    ],
)
def test_which_sizes_are_taken_over(weight, side, taken):
    images, kernel = torch.zeros(1, weight[1], side, side), torch.zeros(weight)
    assert (small_maps._as_product(images, kernel, padding=weight[2] // 2) is not None) is taken
