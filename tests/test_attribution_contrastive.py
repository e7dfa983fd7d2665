"""CLRP and SGLRP: against plain float64 loops over the papers' definitions, their guards, and what they promise."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from xaicore.attribution import clrp, lrp, sglrp
from xaicore.core.errors import UserError

Array = NDArray[np.float64]
LOW, HIGH = -0.5, 1.0
CLASSES = 4
METHODS = {"clrp": clrp, "sglrp": sglrp}
each_method = pytest.mark.parametrize("name", METHODS)


def network(seed: int = 0) -> nn.Sequential:
    """A convolution of 2x2 on 4x4 pixels, ReLU, 2x2 max-pool with stride 1, and a linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(12, CLASSES)
        ).eval()


def batch(n: int = 3, seed: int = 1) -> Tensor:
    return torch.rand(n, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * (HIGH - LOW) + LOW


def by_loops(name: str, net: nn.Sequential, image: Array, target: int | None) -> Array:
    """Write out forward pass, z-plus and z-B rules and the contrast of the papers, number by number."""
    kernel, bias, dense, dense_bias = (p.detach().numpy().astype(np.float64) for p in net.parameters())
    hidden = np.zeros((3, 3, 3))
    for k in range(3):
        for y in range(3):
            for x in range(3):
                hidden[k, y, x] = (kernel[k] * image[:, y : y + 2, x : x + 2]).sum() + bias[k]
    active = np.maximum(hidden, 0)
    pooled, origin = np.zeros((3, 2, 2)), {}
    for k in range(3):
        for y in range(2):
            for x in range(2):
                window = active[k, y : y + 2, x : x + 2]
                pooled[k, y, x] = window.max()
                i, j = divmod(int(window.argmax()), 2)
                origin[k, y, x] = (k, y + i, x + j)
    a = pooled.ravel()
    z = dense @ a + dense_bias
    t = int(z.argmax()) if target is None else target

    def down(start: Array) -> Array:
        of_a = np.zeros(12)
        for n in range(CLASSES):
            q = np.maximum(a * dense[n], 0)
            of_a += q / (q.sum() if q.sum() != 0 else 1e-7) * start[n]
        of_active = np.zeros_like(active)
        for place, source in origin.items():
            of_active[source] += of_a.reshape(3, 2, 2)[place]
        result = np.zeros_like(image)
        for k in range(3):
            up, dn = np.maximum(kernel[k], 0), np.minimum(kernel[k], 0)
            for y in range(3):
                for x in range(3):
                    q = image[:, y : y + 2, x : x + 2] * kernel[k] - LOW * up - HIGH * dn
                    result[:, y : y + 2, x : x + 2] += q / q.sum() * of_active[k, y, x]
        return result

    if name == "clrp":
        positive = np.array([z[t] if n == t else 0.0 for n in range(CLASSES)])
        negative = np.array([0.0 if n == t else z[t] / (CLASSES - 1) for n in range(CLASSES)])
        if z[t] <= 0:
            return np.zeros_like(image)
    else:
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        positive = np.array([p[t] * (1 - p[t]) if n == t else 0.0 for n in range(CLASSES)])
        negative = np.array([0.0 if n == t else p[n] * p[t] for n in range(CLASSES)])
    plus, minus = down(positive), down(negative)
    return plus - minus * (plus.sum() / minus.sum() if minus.sum() != 0 else 0.0)


def explained(name: str, net: nn.Module, images: Tensor, targets: Any = None, **options: Any) -> Tensor:
    return METHODS[name](net, images, targets, low=LOW, high=HIGH, **options)


@each_method
@pytest.mark.parametrize("target", [None, 0, 1, 2, 3])
def test_agrees_with_the_definition(name: str, target: int | None) -> None:
    net, images = network(), batch(6)
    expected = np.stack([by_loops(name, net, x.double().numpy(), target) for x in images])
    assert expected.any() or (name == "clrp" and target is not None)
    logits = net(images).detach()
    chosen = logits.max(1).values if target is None else logits[:, target]
    # Sums of a few dozen terms, eps = 6e-8 each; the difference of two maps loses no more than a digit here.
    ours = explained(name, net, images, target).numpy()
    assert np.abs(ours - expected).max() <= 1e-5 * max(np.abs(expected).max(), float(chosen.abs().max()))
    exact = explained(name, net.double(), images.double(), target).numpy()
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-12)


@each_method
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), target=st.integers(0, CLASSES - 1))
def test_nothing_is_left_over(name: str, seed: int, target: int) -> None:
    """The subtracted map has the sum of the other, so an image's values sum to 0, or nothing is subtracted."""
    net, images = network(seed).double(), batch(2, seed).double()
    heatmaps = explained(name, net, images, target)
    assert bool(torch.isfinite(heatmaps).all())
    relevance = lrp(net, images, target, "deep-taylor-bounded", low=LOW, high=HIGH)
    for heatmap, of_target in zip(heatmaps, relevance, strict=True):
        balanced = abs(float(heatmap.sum())) < 1e-9
        assert (
            balanced or (name == "clrp" and torch.allclose(heatmap, of_target)) or bool((heatmap >= 0).all())
        )


def test_two_classes_make_opposite_maps_of_one_picture() -> None:
    """With two classes and equal logits the roles of target and other only swap: h changes its sign."""
    net, images = network().double(), batch().double()
    head = nn.Linear(12, 2).double()
    head.weight.data = torch.cat([net[4].weight[:1].abs(), net[4].weight[:1].abs().flip(1)])
    with torch.no_grad():
        features = net[:4](images) @ head.weight.T
    for position, logits in enumerate(features):
        head.bias.data = 1 - logits
        model, image = nn.Sequential(*net[:4], head), images[position : position + 1]
        for name in METHODS:
            first, second = (explained(name, model, image, target) for target in (0, 1))
            assert bool(first.any())
            torch.testing.assert_close(first, -second)


def test_no_positive_logit_no_contrast() -> None:
    net, images = network(), batch()
    nn.init.constant_(net[4].bias, -10.0)
    assert bool((net(images) < 0).all())
    assert not bool(clrp(net, images, 1, low=LOW, high=HIGH).any())
    shifted = network()
    nn.init.zeros_(shifted[4].bias)  # softmax does not see what all logits share
    torch.testing.assert_close(explained("sglrp", net, images, 1), explained("sglrp", shifted, images, 1))


@each_method
def test_others_that_hand_down_nothing_take_nothing(name: str) -> None:
    net, images = network(), batch()
    net[4].weight.data[1:] = -net[4].weight.data[1:].abs()  # no positive share on the other classes
    net[4].weight.data[0] = net[4].weight.data[0].abs()
    nn.init.ones_(net[4].bias)
    heatmaps = explained(name, net, images, 0)
    assert bool(heatmaps.any())
    relevance = lrp(net, images, 0, "deep-taylor-bounded", low=LOW, high=HIGH)
    shares = [h / h.flatten(1).abs().amax(1).view(-1, 1, 1, 1) for h in (heatmaps, relevance)]
    torch.testing.assert_close(*shares)


@pytest.mark.parametrize("gap", [10.0, 25.0, 60.0])
def test_a_saturated_softmax_still_has_a_map(gap: float) -> None:
    """Where p_t rounds to 1 in float32, 1 - p_t must not round to 0: float64 has the same map up to scale."""
    net, images = network(), batch()
    net[4].bias.data[0] += gap
    ours, expected = (
        explained("sglrp", net.to(dtype), images.to(dtype), 0).double()
        for dtype in (torch.float32, torch.float64)
    )
    assert bool(expected.any())
    # The scale p_t(1 - p_t) is exp of a gap that float32 knows to gap·6e-8; the maps lose about a digit.
    assert float((ours - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@each_method
def test_deterministic_and_independent_of_the_batch(name: str) -> None:
    net, images = network().double(), batch(5).double()
    targets = torch.tensor([0, 1, 2, 3, 0])
    whole = explained(name, net, images, targets)
    assert torch.equal(whole, explained(name, net, images, targets))
    torch.testing.assert_close(explained(name, net, images, targets, batch_size=2), whole)
    for position, target in enumerate(targets.tolist()):
        alone = explained(name, net, images[position : position + 1], target)
        torch.testing.assert_close(alone, whole[position : position + 1])


@each_method
def test_a_classifier_needs_no_bounds(name: str) -> None:
    from xaicore import models

    model = models.load("small_cnn", classes=3, width=0.125, channels=1, input_size=8)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    low, high = (model.normalize(torch.full((1, 1, 1, 1), value))[0] for value in (0.0, 1.0))
    inside = METHODS[name](model.network, model.normalize(images), 1, low=low, high=high)
    assert torch.equal(METHODS[name](model, images, 1), inside)


@each_method
def test_leaves_no_trace(name: str) -> None:
    net, images = network().train(), batch().requires_grad_()
    random = torch.get_rng_state()
    heatmaps = explained(name, net, images)
    assert not heatmaps.requires_grad
    assert images.grad is None
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())
    assert torch.equal(random, torch.get_rng_state())


@each_method
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"low": None}, "which are 0 and 1 where not given"),
        ({"low": 1.0, "high": 0.0}, "low must be below high"),
        ({"low": 0.5}, "images must lie between"),
        ({"targets": CLASSES}, r"targets must lie in 0\.\.3"),
        ({"images": torch.full((1, 2, 4, 4), float("nan"))}, "images must be finite"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(32, 1))}, "at least two classes"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(32, 2), nn.Tanh())}, "no rule for '2', an activation"),
    ],
)  # fmt: skip
def test_wrong_arguments_name_themselves(name: str, arguments: dict[str, Any], match: str) -> None:
    call = {"model": network(), "images": batch(), "low": LOW, "high": HIGH, **arguments}
    with pytest.raises(ValueError, match=match) as caught:
        METHODS[name](**call)
    assert isinstance(caught.value, UserError) or "must" in str(caught.value) or "needs" in str(caught.value)
