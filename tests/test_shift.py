"""The shift of Grad-CAM maps against a plain loop with Captum, scikit-image and torch's own resizing."""

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from skimage.metrics import structural_similarity
from torch.nn import functional

from xaicore import models
from xaicore.core.errors import UserError
from xaicore.metrics import shift
from xaicore.run.engine import LocalEngine
from xaicore.run.store import Store
from xaicore.studies import steps


@pytest.fixture(scope="module")
def versions():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(5, 1, 28, 28, generator=generator)
    noise = 0.3 * torch.randn(5, 3, 1, 28, 28, generator=generator)
    return clean, (clean[:, None] + noise).clamp(0, 1)


def by_hand(model, name, before, after):
    module = dict(model.network.named_modules())[name]
    maps = []
    for image in (before, after):
        target = int(model(image[None]).argmax())
        # Captum's map of the ReLU behind the convolution: our maps are of activations.
        raw = LayerGradCam(model, module).attribute(image[None], target=target, relu_attributions=True)
        large = functional.interpolate(raw.detach(), (28, 28), mode="bilinear", align_corners=False)[0, 0]
        if not large.any():
            return float("nan")
        maps.append((large / large.max()).double().numpy())
    similarity = structural_similarity(*maps, data_range=1, win_size=7)
    return (1 - similarity) / 2


def test_equals_a_loop_of_captum_and_scikit_image(model, versions):
    clean, after = versions
    modules = dict(model.network.named_modules())
    relus = [name for name, module in modules.items() if isinstance(module, torch.nn.ReLU)][:3]
    found = shift.layer_shift(model, clean, after, layers=relus, batch_size=2)
    assert found.layers == tuple(relus)
    assert found.dissimilarity.shape == (5, 3, 3)
    for image in range(5):
        for version in range(3):
            for position, name in enumerate(relus):
                expected = by_hand(model, name, clean[image], after[image, version])
                got = found.dissimilarity[image, version, position].item()
                assert got == pytest.approx(expected, abs=2e-5, nan_ok=True), (image, version, name)


def test_an_image_has_not_moved_from_itself(model, versions):
    clean, _ = versions
    values = shift.layer_shift(model, clean, clean[:, None]).dissimilarity
    assert float(values[values.isfinite()].abs().max()) < 1e-15


def test_the_class_can_be_held(model, versions):
    clean, after = versions
    predicted = models.predict(model, clean).argmax(1)
    other = (predicted + 1) % 4
    held = predicted[:, None].expand(-1, 3)
    layers = ["features.0"] if "features.0" in dict(model.network.named_modules()) else "last"
    free = shift.layer_shift(model, clean, after, layers=layers, targets=predicted, targets_after=held)
    swapped = shift.layer_shift(
        model, clean, after, layers=layers, targets=predicted, targets_after=other[:, None].expand(-1, 3)
    )
    assert not torch.equal(free.dissimilarity, swapped.dissimilarity)


def test_maps_without_content_are_undefined():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(2 * 64, 3)
    )
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.fill_(-1)
    images = torch.rand(2, 1, 8, 8)
    values = shift.layer_shift(network, images, images[:, None]).dissimilarity
    assert bool(values.isnan().all())


def test_comparable_maps_end_at_one_and_zero_stays_zero():
    maps = torch.stack([torch.tensor([[0.0, 4.0], [1.0, 2.0]]), torch.zeros(2, 2)])
    large = shift.comparable(maps, (8, 6))
    assert large.shape == (2, 8, 6)
    assert large[0].max() == 1
    assert not large[1].any()
    assert np.isfinite(large.numpy()).all()


def test_the_deepest_layer_with_so_many_cells():
    model = models.load("vgg16", classes=3, channels=1, input_size=48, width=0.1)
    images = torch.rand(1, 1, 48, 48)
    # 48, 24, 12, 6, 3 cells in the five blocks; the last convolution of a block closes it.
    names = {cells: shift.deepest_layer(model, images, cells) for cells in (1, 3, 4, 6, 7, 48)}
    convolutions = [n for n, m in model.network.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert names == {
        1: convolutions[12],
        3: convolutions[12],
        4: convolutions[9],
        6: convolutions[9],
        7: convolutions[6],
        48: convolutions[1],
    }
    with pytest.raises(UserError, match="no layer's map has 49 x 49 cells"):
        shift.deepest_layer(model, images, 49)


def test_batches_and_the_store_change_nothing(model, versions, tmp_path):
    clean, after = versions
    direct = shift.layer_shift(model, clean, after)
    store = Store(tmp_path)
    for _ in range(2):
        kept = steps.shifted(LocalEngine(store, workers=2), model, clean, after, batch_size=2)
        assert kept.layers == direct.layers
        torch.testing.assert_close(
            kept.dissimilarity, direct.dissimilarity, atol=1e-6, rtol=0, equal_nan=True
        )
    assert (store.computed, store.reused) == (3, 3)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (5, 2, 1, 28, 27), (4, 2, 1, 28, 28), (5, 0, 1, 28, 28)])
def test_versions_that_do_not_fit(model, versions, shape):
    with pytest.raises(ValueError, match="after must hold versions"):
        shift.layer_shift(model, versions[0], torch.rand(shape))


def test_targets_that_do_not_fit(model, versions):
    with pytest.raises(ValueError, match="targets_after must be"):
        shift.layer_shift(model, *versions, targets_after=torch.zeros(5, dtype=torch.int64))
