"""Masks of heatmaps by hand and against scikit-learn's Jaccard index; neuron coverage against a plain loop."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from sklearn.metrics import jaccard_score
from torch import Tensor, nn

from xaicore import models
from xaicore.attacks.neurons import PREDICTIONS, activations, covered
from xaicore.metrics import (
    NeuronCoverage,
    mask_fraction,
    mask_iou,
    mean_iou_with_others,
    placed,
    relevance_mask,
)

few = settings(max_examples=50, deadline=None)
booleans = arrays(np.bool_, (3, 4, 5)).map(torch.from_numpy)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_relevance_mask_by_hand() -> None:
    # One pixel of 1 in 25: mean 0.04, deviation sqrt(0.04 - 0.0016) = 0.196; 1 > 0.432, and 0 is not.
    one = torch.zeros(1, 5, 5)
    one[0, 2, 3] = -1
    mask = relevance_mask(one)
    assert mask.dtype == torch.bool
    assert mask.nonzero().tolist() == [[0, 2, 3]]
    assert mask_fraction(mask).item() == 0.04
    # A half of ones: mean and deviation 0.5; 1 is not above 1.5, but above 0.5 + 0.9 · 0.5.
    half = torch.cat([torch.zeros(1, 2, 4), torch.ones(1, 2, 4)], dim=1)
    assert mask_fraction(relevance_mask(half)).item() == 0
    assert torch.equal(relevance_mask(half, k_std=0.9), half.bool())


def test_channels_count_by_their_absolute_values() -> None:
    image = torch.zeros(1, 2, 5, 5)
    image[0, :, 1, 1] = torch.tensor([3.0, -3.0])
    assert relevance_mask(image).nonzero().tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.7])
def test_a_constant_map_has_an_empty_mask(value: float) -> None:
    assert not relevance_mask(torch.full((2, 3, 7, 9), value)).any()


@pytest.mark.parametrize("k_std", [-1.0, 0.0, 2.0])
def test_relevance_mask_is_numpys(k_std: float) -> None:
    maps = draw(6, 3, 9, 8) ** 6 - 0.2
    for values, mask in zip(maps.double().numpy(), relevance_mask(maps, k_std=k_std).numpy(), strict=True):
        pixels = np.abs(values).sum(0)
        np.testing.assert_array_equal(mask, pixels > pixels.mean() + k_std * np.std(pixels))
    assert torch.equal(relevance_mask(-5 * maps), relevance_mask(maps))


@few
@given(booleans, booleans)
def test_iou_is_scikit_learns(a: Tensor, b: Tensor) -> None:
    found = mask_iou(a, b)
    assert torch.equal(found.isnan(), ~(a | b).flatten(1).any(1))
    for x, y, value in zip(a, b, found.tolist(), strict=True):
        if (x | y).any():
            assert value == pytest.approx(jaccard_score(x.flatten().numpy(), y.flatten().numpy()))
    torch.testing.assert_close(found, mask_iou(b, a), equal_nan=True)
    own = mask_iou(a, a)
    assert (own[~own.isnan()] == 1).all()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: mask_iou(x, x), TypeError, "a must be a boolean"),
        (lambda x: mask_iou(x > 0, x[:1] > 0), ValueError, "same shape"),
        (lambda x: mask_iou(x[0] > 0, x > 0), ValueError, "a must have the shape"),
        (lambda x: mask_fraction(x), TypeError, "masks must be a boolean"),
        (lambda x: relevance_mask(x, k_std=float("nan")), ValueError, "k_std must be a finite number"),
        (lambda x: relevance_mask(x / 0), ValueError, "maps must be finite"),
        (lambda x: relevance_mask(x[0]), ValueError, "maps must have the shape"),
    ],
)
def test_bad_masks_are_named(call: Callable[[Tensor], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call(draw(2, 4, 4) + 1)


def naive_coverage(model: nn.Sequential, images: Tensor, threshold: float) -> dict[str, list[np.ndarray]]:
    """Run an untrained network layer by layer in float64 and tell for each image which neurons it covers."""
    found: dict[str, list[np.ndarray]] = {}
    for image in images:
        values = image[None].double()
        for name, layer in model.named_children():
            values = layer(values)
            if isinstance(layer, nn.ReLU | nn.MaxPool2d):
                found.setdefault(name, []).append(above(values[0].detach().numpy(), threshold))
        found.setdefault(PREDICTIONS, []).append(above(values.softmax(1)[0].detach().numpy(), threshold))
    return found


def above(outputs: np.ndarray, threshold: float) -> np.ndarray:
    low, high = outputs.min(), outputs.max()
    return np.array([((channel - low) / (high - low)).mean() > threshold for channel in outputs])


def small() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 20, 3), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(20 * 9, 15), nn.ReLU(), nn.Linear(15, 4)),
        )


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.5])
def test_neuron_coverage_is_a_plain_loops(threshold: float) -> None:
    images, model = draw(7, 3, 12, 12), small()
    coverage = NeuronCoverage(model, threshold=threshold)
    coverage.update(images[:3])
    coverage.update(images[3:])
    expected = naive_coverage(small().double(), images, threshold)
    layers = {name: np.logical_or.reduce(rows) for name, rows in expected.items()}
    assert coverage.coverage.share_by_layer() == pytest.approx(
        {name: rows.mean() for name, rows in layers.items()}
    )
    assert coverage.share() == pytest.approx(np.concatenate(list(layers.values())).mean())
    curve = [
        np.concatenate([np.logical_or.reduce(rows[: n + 1]) for rows in expected.values()]).mean()
        for n in range(len(images))
    ]
    assert coverage.progress == pytest.approx(curve)
    assert len(set(curve)) > 1


def test_neuron_coverage_grows_and_leaves_the_model_alone() -> None:
    model = models.load("small_cnn", classes=3, channels=1, input_size=28).train()
    images = draw(5, 1, 28, 28)
    coverage = NeuronCoverage(model, batch_size=2)
    for image in images:
        coverage.update(image[None])
    assert coverage.progress == sorted(coverage.progress)
    at_once = NeuronCoverage(model)
    at_once.update(images)
    assert at_once.progress == coverage.progress
    assert torch.equal(at_once.coverage.counts, covered(activations(model, images)).sum(0))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_neuron_coverage_of_no_image_and_bad_ones() -> None:
    coverage = NeuronCoverage(small())
    with pytest.raises(ValueError, match=r"call update\(images\) first"):
        coverage.share()
    coverage.update(draw(1, 3, 12, 12))
    before = list(coverage.progress)
    with pytest.raises(ValueError, match="images"):
        coverage.update(draw(1, 3, 12, 12) + 1)
    assert coverage.progress == before
    with pytest.raises(ValueError, match="threshold"):
        NeuronCoverage(small(), threshold=2).update(draw(1, 3, 12, 12))
    only = NeuronCoverage(small(), layers=["1"])
    only.update(draw(1, 3, 12, 12))
    assert list(only.coverage.share_by_layer()) == ["1"]


def test_overlap_with_the_masks_of_other_images() -> None:
    masks = torch.rand(4, 5, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    pairs = torch.stack([mask_iou(masks, masks[[k] * 4]) for k in range(4)], 1)
    expected = (pairs.sum(1) - 1) / 3
    np.testing.assert_allclose(mean_iou_with_others(masks), expected, atol=1e-12)
    assert np.isnan(mean_iou_with_others(masks[:1])).all()


def test_values_at_the_places_of_their_images() -> None:
    whole = placed([[1.0, 2.0], [3.0, 4.0]], torch.tensor([False, True, True]), 5)
    assert np.isnan(whole[[0, 3, 4]]).all()
    assert whole[1:3].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="as many as among has images, 1, not 2"):
        placed([1.0, 2.0], [True, False], 2)
