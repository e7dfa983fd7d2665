"""Classifiers: every architecture against its original, activations, normalisation, folding, fingerprints."""

import copy
from collections import Counter

import pytest
import timm
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn import functional

from xaicore import data, models
from xaicore.core.errors import UserError
from xaicore.models import efficientnet_lite
from xaicore.models.batchnorm import fold, has_batchnorm

SMALL = {"vgg16": 0.125, "vgg19": 0.125, "small_cnn": 0.25}


def build(name: str, **options) -> models.Classifier:
    size = max(32, models.REGISTRY[name].min_size)
    return models.load(name, **{"classes": 3, "input_size": size, "width": SMALL.get(name, 1.0), **options})


def unsettle(network: nn.Module, seed: int = 0) -> None:
    """Give batch normalisation statistics and parameters as after training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.7)
            module.weight.data.copy_(torch.rand(module.num_features, generator=generator) * 0.5 + 0.6)
            module.bias.data.copy_(torch.randn(module.num_features, generator=generator) * 0.1)


def images(model: models.Classifier, n: int = 2) -> torch.Tensor:
    shape = (n, model.channels, model.input_size, model.input_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", models.REGISTRY)
def test_every_module_is_called_once_and_folding_keeps_the_function(name: str) -> None:
    model = build(name)
    unsettle(model.network)
    calls: Counter[str] = Counter()
    leaves = [(key, module) for key, module in model.named_modules() if not list(module.children())]
    handles = [
        module.register_forward_hook(lambda module, args, out, key=key: calls.update([key]))
        for key, module in leaves
    ]
    batch = images(model)
    with torch.no_grad():
        logits = model(batch)
    for handle in handles:
        handle.remove()
    assert logits.shape == (2, 3)
    assert set(calls.values()) == {1}
    assert set(calls) == {key for key, _ in leaves}
    assert not any(getattr(module, "inplace", False) for module in model.modules())

    folded = model.fold_batchnorm()
    assert has_batchnorm(model.network) == models.REGISTRY[name].batch_norm == model.options["batch_norm"]
    assert not has_batchnorm(folded.network)
    with torch.no_grad():
        difference = (folded(batch) - logits).abs().max() / logits.abs().max().clamp_min(1)
    assert float(difference) < 1e-5
    assert folded.options == {**model.options, "batch_norm": False}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "inception_v3", "squeezenet1_0"])
def test_same_function_as_torchvision(name: str) -> None:
    options = {"init_weights": False, "aux_logits": False} if name == "inception_v3" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = getattr(torchvision.models, name)(num_classes=3, **options).eval()
    unsettle(original)
    ours = build(name, input_size=75)
    ours.network.load_state_dict(original.state_dict())
    normalised = ours.normalize(images(ours))
    with torch.no_grad():
        wanted = original(normalised)
        assert torch.allclose(ours.network(normalised), wanted, atol=1e-5 * float(wanted.abs().max()))


def test_inception_normalisation_is_that_of_its_weights() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = torchvision.models.inception_v3(
            num_classes=3, transform_input=True, aux_logits=False, init_weights=False
        ).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    ours = build("inception_v3", input_size=75)
    batch = images(ours)
    with torch.no_grad():
        assert torch.allclose(
            original._transform_input((batch - mean) / std), ours.normalize(batch), atol=1e-5
        )


def test_same_function_as_timm_xception() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = timm.create_model("legacy_xception", num_classes=3).eval()
    unsettle(original)
    ours = build("xception")
    ours.network.load_state_dict(original.state_dict())
    normalised = ours.normalize(images(ours))
    with torch.no_grad():
        assert torch.allclose(ours.network(normalised), original(normalised), atol=1e-5)


@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_efficientnet_is_the_packages_and_knows_the_photographs(number: int, size: int) -> None:
    model = models.load(f"efficientnet_lite{number}", weights="imagenet")
    original = EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    original.load_state_dict(efficientnet_lite.imagenet_weights(number))
    assert (model.input_size, original._global_params.dropout_rate) == (size, model.options["dropout"])
    assert model.network.state_dict().keys() == original.state_dict().keys()
    photographs, labels = data.load("imagenet-20", size=size, n=6, seed=1).stack()
    with torch.no_grad():
        assert torch.equal(model(photographs), original(model.normalize(photographs)))
    assert len(model.classes) == 1000
    assert models.accuracy(model, photographs, labels) >= 4 / 6


def face_network_by_hand(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The 128 features of MobileFaceNet, from the table of its layers, for normalised faces (N, 3, 112, 96)."""

    def layer(name: str, x: torch.Tensor, parts: str = "conv bn prelu", **options) -> torch.Tensor:
        conv, norm, slope = (f"{name}.{part}" for part in (*parts.split(), "none")[:3])
        x = functional.conv2d(x, state[f"{conv}.weight"], **options)
        moments = (state[f"{norm}.{each}"] for each in ("running_mean", "running_var", "weight", "bias"))
        x = functional.batch_norm(x, *moments)
        return functional.prelu(x, state[f"{slope}.weight"]) if f"{slope}.weight" in state else x

    x = layer("dw_conv1", layer("conv1", x, stride=2, padding=1), padding=1, groups=64)
    fan_in, number = 64, 0
    for expansion, fan_out, count, first in [
        *((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
    ]:
        for place in range(count):
            stride, wide, block = first if place == 0 else 1, fan_in * expansion, f"blocks.{number}.conv"
            y = layer(block, x, "0 1 2")
            y = layer(block, y, "3 4 5", stride=stride, padding=1, groups=wide)
            y = layer(block, y, "6 7")
            x, fan_in, number = x + y if stride == 1 and fan_in == fan_out else y, fan_out, number + 1
    x = layer("linear7", layer("conv2", x), "conv bn", groups=512)
    return layer("linear1", x, "conv bn").flatten(1)


def test_mobilefacenet_is_the_table_of_its_layers() -> None:
    model = build("mobilefacenet")
    unsettle(model.network)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.3, 0.5, generator=torch.Generator().manual_seed(4))
    faces = torch.rand(2, 3, 112, 96, generator=torch.Generator().manual_seed(1))
    network, state = model.network.double(), model.network.state_dict()
    assert len([name for name in state if not name.endswith("num_batches_tracked")]) == 283 + 2
    assert sum(p.numel() for n, p in network.named_parameters() if not n.startswith("fc")) == 1_002_261 - 2709
    normalised = ((255 * faces - 127.5) / 128).double()
    with torch.no_grad():
        wanted = network.fc(face_network_by_hand(state, normalised))
        assert torch.allclose(network(normalised), wanted, rtol=1e-9)
        # What is square is resized; what has the size stays as it is.
        square = torch.rand(1, 3, 80, 80).double()
        resized = functional.interpolate(square, (112, 96), mode="bilinear")
        assert torch.allclose(network(square), network(resized), rtol=1e-9)
    assert torch.allclose(model.normalize(faces), normalised.float(), atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["vgg16", "vgg16_bn", "vgg19", "resnet18", "resnet50", "resnet101", "inception_v3", "squeezenet1_0"],
)
def test_torchvision_weights_fit_by_name_and_shape(name: str) -> None:
    options = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        original = getattr(torchvision.models, name)(**options).state_dict()
        architecture = models.REGISTRY[name.removesuffix("_bn")]
        network = architecture.build(
            models.shape.Shape(1000, 3, architecture.input_size, 1.0, "vgg" not in name or "bn" in name, 0.5)
        )
    ignored = architecture.ignored or "none"
    assert {k: v.shape for k, v in original.items() if not k.startswith(ignored)} == {
        k: v.shape for k, v in network.state_dict().items()
    }


def test_vgg_layers_by_width_and_size() -> None:
    model = models.load("vgg16", classes=2, width=0.25, channels=1, input_size=32)
    widths = [m.out_channels for m in model.network.features if isinstance(m, nn.Conv2d)]
    assert widths == [16] * 2 + [32] * 2 + [64] * 3 + [128] * 6
    assert [m.out_features for m in model.network.classifier if isinstance(m, nn.Linear)] == [128, 2]
    assert model.network.classifier[0].in_features == 128
    with torch.device("meta"):
        large = models.vgg.VGG("vgg19", models.shape.Shape(5, 3, 112, 1.0, batch_norm=False, dropout=0.5))
    assert large.classifier[0].in_features == 512 * 9
    kinds = [type(m).__name__ for m in model.fold_batchnorm().network.features][:6]
    assert kinds == ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Conv2d"]


def test_building_is_seeded_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (build("small_cnn", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), wanted)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert not one.training


def test_fingerprint_follows_weights_and_architecture() -> None:
    model = build("small_cnn")
    before = model.fingerprint
    other = copy.deepcopy(model)
    assert other.fingerprint == before
    with torch.no_grad():
        other.network.classifier[0].bias[0] += 1e-6
    assert other.fingerprint != before
    assert build("small_cnn", dropout=0.5).fingerprint != before
    model.to(memory_format=torch.channels_last)
    assert model.fingerprint == before


def test_images_that_do_not_fit_are_refused() -> None:
    model = build("small_cnn", channels=1)
    for shape in ((1, 3, 32, 32), (1, 1, 28, 28), (1, 32, 32)):
        with pytest.raises(ValueError, match="images must be"):
            model(torch.rand(shape))
    with pytest.raises(TypeError, match="float"):
        model(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))
    assert build("resnet18")(torch.rand(1, 3, 40, 48)).shape == (1, 3)


def test_predict_restores_modes_and_ignores_the_batch_size() -> None:
    model = build("vgg16")
    model.network.classifier.train()
    modes = [module.training for module in model.modules()]
    batch = images(model, 5)
    logits = models.predict(model, batch, batch_size=2)
    assert [module.training for module in model.modules()] == modes
    assert not logits.requires_grad
    assert torch.allclose(logits, models.predict(model, batch), atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(models.predict(model, batch, batch_size=2), logits)
    labels = logits.argmax(1)
    assert models.accuracy(model, batch, labels) == 1.0
    with pytest.raises(ValueError, match="batch_size"):
        models.predict(model, batch, batch_size=0)
    with pytest.raises(ValueError, match="labels"):
        models.accuracy(model, batch, labels[:2])
    with pytest.raises(ValueError):
        models.predict(model, batch[:, :2])
    assert [module.training for module in model.modules()] == modes


def test_folding_needs_a_convolution() -> None:
    with pytest.raises(ValueError, match="does not follow a convolution"):
        fold(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vgg11", {}, "no model 'vgg11'; there are vgg16"),
        ("vgg16", {"classes": 1}, "classes must be at least 2"),
        ("vgg16", {"classes": None}, "classes must be given"),
        ("vgg16", {"classes": ("cat",)}, "at least two names"),
        ("vgg16", {"channels": 4}, "channels must be 1 or 3"),
        ("vgg16", {"input_size": 31}, "at least 32"),
        ("inception_v3", {"input_size": 31}, "at least 32"),
        ("vgg16", {"width": 0}, "width must be positive"),
        ("resnet18", {"width": 0.5}, "resnet18 has no width"),
        ("resnet18", {"dropout": 0.5}, "it has none"),
        ("vgg16", {"dropout": 1.0}, "it must lie in"),
        ("small_cnn", {"weights": "imagenet"}, "no ImageNet weights for small_cnn"),
        ("mobilefacenet", {"weights": "imagenet"}, "no ImageNet weights for mobilefacenet"),
        ("squeezenet1_0", {"batch_norm": True}, "no batch normalisation"),
        ("small_cnn", {"mean": (0.5,) * 3}, "give both or neither"),
        ("small_cnn", {"mean": (0.5,), "std": (0.5,)}, "must be 3 finite numbers each"),
        ("small_cnn", {"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, "std above 0"),
        ("vgg16", {"weights": "imagenet", "channels": 1}, "channels=3"),
        ("vgg16", {"weights": "imagenet", "width": 0.5}, "width=1"),
    ],
)
def test_bad_parameters_are_named(name: str, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        models.load(name, **{"classes": 2, **options})


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16)])
def test_residual_blocks_can_start_as_identity(name, blocks):
    model = models.load(name, classes=3, channels=1, input_size=32, seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    started = models.start_as_identity(model)
    changed = {key for key, value in started.state_dict().items() if not torch.equal(value, before[key])}
    assert len(changed) == blocks
    assert all(key.endswith(("bn2.weight", "bn3.weight")) for key in changed)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    # Within a stage, a block after the first gives what it gets: both are behind a ReLU.
    seen = {}
    for position, block in enumerate(started.network.layer1):
        block.register_forward_hook(lambda _, __, output, position=position: seen.update({position: output}))
    with torch.no_grad():
        started(torch.rand(2, 1, 32, 32))
    assert float(seen[0].abs().max()) > 0
    torch.testing.assert_close(seen[1], seen[0], atol=0, rtol=0)


def test_a_network_without_residual_blocks_is_copied():
    model = models.load("small_cnn", classes=3, channels=1, input_size=28)
    started = models.start_as_identity(model)
    assert started is not model
    assert all(torch.equal(a, b) for a, b in zip(started.parameters(), model.parameters(), strict=True))


def test_the_kept_fingerprint_notices_writes_that_leave_no_trace_but_the_bytes() -> None:
    model = build("small_cnn")
    before = model.fingerprint
    weight = model.network.classifier[0].weight
    version = weight._version
    weight.data.mul_(-1)
    assert weight._version == version
    after = model.fingerprint
    assert after != before
    weight.data.mul_(-1)
    assert model.fingerprint == before
    model.options["width"] = 2.0
    assert model.fingerprint not in (before, after)
