"""Training a head alone: nothing else moves, and it equals training on features by hand."""

import pytest
import torch
from torch.nn import functional

from xaicore import models
from xaicore.models import heads


def blobs(n=48, size=32, channels=1):
    """Images of three classes, told apart by where they are bright."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(n) % 3
    images = 0.2 * torch.rand(n, channels, size, size, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, :, 10 * label : 10 * label + 10] += 0.7
    return images.clamp(0, 1), labels


NETWORKS = ["vgg16", "resnet18", "inception_v3", "efficientnet_lite0", "squeezenet1_0", "mobilefacenet"]


@pytest.mark.parametrize("name", NETWORKS)
def test_only_the_head_moves(name):
    images, labels = blobs()
    options = {"width": 0.1} if name == "vgg16" else {}
    model = models.load(name, classes=3, channels=1, input_size=32, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recipe = models.Recipe(epochs=10, batch_size=16, learning_rate=1e-2)
    result = models.train_head(model, images, labels, validation=(images, labels), recipe=recipe)
    prefix = f"network.{models.REGISTRY[name].head}"
    after = result.model.state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith(prefix) for key in moved)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    # What training saw is what the whole network computes.
    seen = functional.cross_entropy(models.predict(result.model, images), labels).item()
    assert result.history[result.best_epoch - 1]["validation_loss"] == pytest.approx(seen, abs=1e-4)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_features_are_what_enters_the_head():
    images, _ = blobs(5)
    model = models.load("resnet18", classes=3, channels=1, input_size=32)
    found = heads.features(model, model.network.fc, images, batch_size=2)
    assert found.shape == (5, 512, 1, 1)
    torch.testing.assert_close(model.network.fc(found.flatten(1)), model(images), atol=1e-5, rtol=0)
    assert not model.network.fc._forward_pre_hooks
    model = models.load("squeezenet1_0", classes=3, channels=1, input_size=64)
    images = torch.rand(5, 1, 64, 64)
    maps = heads.features(model, model.network.classifier, images, batch_size=2)
    assert maps.shape == (5, 512, 3, 3)
    torch.testing.assert_close(model.network.classifier(maps).flatten(1), model(images), atol=1e-5, rtol=0)


def test_augmentation_is_refused():
    images, labels = blobs(6)
    model = models.load("resnet18", classes=3, channels=1, input_size=32)
    with pytest.raises(ValueError, match="recipe must not augment"):
        models.train_head(model, images, labels, recipe=models.Recipe(augment="flip"))


def test_small_images_are_enlarged_by_inception_itself():
    small = models.load("inception_v3", classes=3, channels=1, input_size=48, seed=2)
    large = models.load("inception_v3", classes=3, channels=1, input_size=75, seed=2)
    images = torch.rand(2, 1, 48, 48)
    enlarged = functional.interpolate(images, (75, 75), mode="bilinear", align_corners=False)
    torch.testing.assert_close(small(images), large(enlarged), atol=1e-4, rtol=0)
    assert small.fingerprint != large.fingerprint


def test_fused_steps_train_the_same_network():
    images, labels = blobs()
    model = models.load("small_cnn", classes=3, channels=1, input_size=32)
    losses = []
    for fused in (False, True):
        recipe = models.Recipe(epochs=2, batch_size=16, precision="float32", fused=fused)
        losses.append(models.train(model, images, labels, recipe=recipe).history[-1]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
