"""The classifiers that attacks are proven on: networks that read digits, a published one of ImageNet, small ones.

The networks that read digits are committed (tests/networks, made by tests/make_networks.py), since training comes out
otherwise on each kind of processor, and with it every number that an attack reaches. They come with images that they
classify correctly, with room. ``XAICORE_TEST_NETWORKS`` names a folder with others, to see which tests depend on them.
"""

import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import foolbox
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer

from xaicore import data, models
from xaicore.models import Classifier

NETWORKS = Path(os.environ.get("XAICORE_TEST_NETWORKS", Path(__file__).parent / "networks"))
LARGEST = 127
TEN = [str(digit) for digit in range(10)]


def _two_strides() -> nn.Sequential:
    """A network without pools or normalisation."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def _transformer() -> VisionTransformer:
    """torchvision's vision transformer on grey digits: 7 x 7 patches, two blocks of four heads."""
    model = VisionTransformer(28, 4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10)
    model.conv_proj = nn.Conv2d(1, 32, 4, stride=4)
    return model


def _small_cnn(seed: int, classes: list[str] = TEN, **options: object) -> Classifier:
    return models.load("small_cnn", classes=classes, channels=1, seed=seed, **options)


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "digits": lambda seed: _small_cnn(seed, input_size=28),
    "two-strides": lambda seed: seeded(_two_strides, seed),
    "transformer": lambda seed: seeded(_transformer, seed),
    "coarse-digits": lambda seed: _small_cnn(seed, input_size=14, width=0.25),
    "marks": lambda seed: _small_cnn(
        seed, ["horizontal", "vertical"], input_size=28, batch_norm=False, width=0.5
    ),
}
"""The committed networks before training: name → seed → network."""


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Return what is built with this seed; the global generator stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def write(folder: Path, name: str, model: nn.Module, images: Tensor) -> None:
    """Write a network, its weights as whole numbers of -127..127 and one scale for each output, and its images.

    Args:
        folder: where ``<name>.safetensors`` goes.
        name: one of ``ARCHITECTURES``.
        model: the trained network.
        images: (N,) numbers of the images of the test set that it classifies correctly.
    """
    tensors = {"images": images.to(torch.int16)}
    for key, value in model.state_dict().items():
        if value.ndim < 2:
            tensors[key] = value
            continue
        scale = value.flatten(1).abs().amax(1) / LARGEST
        tensors[f"{key}.scale"] = scale
        tensors[key] = (value / scale.view(-1, *[1] * (value.ndim - 1))).round().to(torch.int8)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")


def read(name: str, folder: Path = NETWORKS) -> tuple[nn.Module, Tensor]:
    """Return a network that :func:`write` wrote, in evaluation mode, and the numbers (N,) of its images."""
    tensors = load_file(folder / f"{name}.safetensors")
    images = tensors.pop("images").long()
    for key in [key for key in tensors if key.endswith(".scale")]:
        scale, weight = tensors.pop(key), tensors[key.removesuffix(".scale")]
        tensors[key.removesuffix(".scale")] = weight.float() * scale.view(-1, *[1] * (weight.ndim - 1))
    model = ARCHITECTURES[name](0)
    model.load_state_dict(tensors)
    return model.eval(), images


@cache
def trained(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network that reads digits, and all test digits (N, 1, H, W) it gets right, with their labels (N,)."""
    model, chosen = read(name)
    images, labels = data.load("mnist-5k", split="test").stack()
    size = getattr(model, "input_size", 28)
    return model, functional.avg_pool2d(images, 28 // size)[chosen], labels[chosen]


@cache
def _photographs(size: int) -> tuple[Classifier, Tensor, Tensor]:
    photographs = data.load("imagenet-20", size=size)
    model = models.load("efficientnet_lite0", weights="imagenet", classes=photographs.classes)
    images, labels = photographs.stack()
    right = models.predict(model, images, batch_size=4).argmax(dim=1) == labels
    return model, images[right], labels[right]


def digits(count: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the digit network and ``count`` test digits of all classes, (count, 1, 28, 28), it gets right."""
    model, images, labels = trained("digits")
    chosen = (labels.argsort(stable=True).view(-1)[:: max(1, len(labels) // count)])[:count]
    return model, images[chosen], labels[chosen]


def coarse_digits(count: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a small network for digits of 14 x 14 pixels, and ``count`` digits of all classes that it gets right."""
    model, images, labels = trained("coarse-digits")
    chosen = torch.linspace(0, len(labels) - 1, count).long()
    return model, images[chosen], labels[chosen]


def photographs(count: int, size: int = 224) -> tuple[Classifier, Tensor, Tensor]:
    """Return EfficientNet-Lite0 and ``count`` photographs (count, 3, size, size) that it gets right (17 of 20 at 224)."""
    model, images, labels = _photographs(size)
    return model, images[:count], labels[:count]


def two_convolutions(channels: int, classes: int, seed: int) -> nn.Sequential:
    """Return an untrained network for images of 12 x 12 pixels; the global generator stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 16, classes),
        ).eval()


def net(channels: int = 1, classes: int = 3, seed: int = 0, gain: float = 1.0) -> nn.Sequential:
    """Return an untrained network for images of 8 x 8 pixels; ``gain`` multiplies its logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 4, classes),
        )
    with torch.no_grad():
        model[-1].weight.mul_(gain)
        model[-1].bias.mul_(gain)
    return model.eval()


def convolutional(model: nn.Sequential) -> nn.Sequential:
    """Return a network that ends in ``Flatten, Linear`` with a convolution over its whole maps in their place.

    The weights stay. A convolution treats each image of a batch alike on every processor, a linear layer does not (see
    :mod:`xaicore.attacks.victim`): only such a network shows to the last bit that an attack keeps its images apart.
    """
    *layers, flatten, linear = model
    channels = [layer for layer in layers if isinstance(layer, nn.Conv2d)][-1].out_channels
    side = math.isqrt(linear.in_features // channels)
    whole = nn.utils.skip_init(nn.Conv2d, channels, linear.out_features, side)
    whole.weight = nn.Parameter(linear.weight.detach().view_as(whole.weight))
    whole.bias = linear.bias
    return nn.Sequential(*layers, whole, flatten).eval()


def draw(count: int, channels: int = 1, side: int = 8, seed: int = 1) -> Tensor:
    """Return random images (count, channels, side, side) in [0, 1]."""
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def draw_12(count: int, channels: int = 1, side: int = 12, seed: int = 1) -> Tensor:
    """Return random images as :func:`draw` does, of the size that :func:`two_convolutions` takes."""
    return draw(count, channels, side, seed)


class HalfSpace(nn.Module):
    """Logits (0, w.x + b) of two classes, with w.x + b = -lead at an image (C, H, W)."""

    def __init__(self, w: Tensor, image: Tensor, lead: float) -> None:
        super().__init__()
        self.w, self.bias = w, -lead - (w * image).sum()

    def forward(self, x: Tensor) -> Tensor:
        value = (x * self.w).flatten(1).sum(dim=1) + self.bias
        return torch.stack([torch.zeros_like(value), value], dim=1)


def by_foolbox(
    attack: foolbox.Attack,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    target: Tensor | None = None,
    eps: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what an attack of foolbox makes of the images, (N, C, H, W), and where it succeeds, (N,)."""
    goal = foolbox.criteria.Misclassification(labels)
    if target is not None:
        goal = foolbox.criteria.TargetedMisclassification(target)
    peer = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    _, found, success = attack(peer, images, goal, epsilons=eps)
    return found, success


def right(model: nn.Module, images: Tensor) -> Tensor:
    """Return the classes (N,) that the model gives the images, the labels that make it right on all of them."""
    with torch.no_grad():
        return model(images).argmax(dim=1)
