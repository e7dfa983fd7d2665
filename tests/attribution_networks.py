"""Small networks that explanations are proven on, and DeepLIFT written out plainly for chains of layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xaicore import models


def images(n: int = 3, channels: int = 2, size: int = 8, seed: int = 1) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def seeded(build: Callable[[], Any], seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


def plain_net() -> nn.Sequential:
    """Max-pooling stands where Captum's DeepLIFT is right: apart from the activations."""
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(),
        nn.Linear(16, 4),
    )  # fmt: skip


def pooled_net(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Pools that follow activations, one with overlapping windows."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), activation(), nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3, padding=1), activation(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def spread(network: nn.Module) -> nn.Module:
    """Enlarge the values of a network so that ReLU6 meets its upper bend."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(20)
    return network


def normalised_net() -> nn.Sequential:
    """Convolutions with batch normalisation that has seen data, in-place activations."""
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU6(inplace=True), nn.Conv2d(5, 4, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3),
    )  # fmt: skip
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.5),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.1, 0.5),
            ):
                nn.init.uniform_(tensor, low, high)
    return network


class Functional(nn.Module):
    """The layers of :func:`pooled_net`, with activations and pools as functions, some in place."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.first, self.second, self.last = layers[0], layers[3], layers[7]

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu_(self.first(x)), 3, stride=2, padding=1)
        x = functional.adaptive_max_pool2d(self.second(x).relu(), 2)
        return self.last(x.flatten(1))


class Shared(nn.Module):
    """The layers of :func:`pooled_net`, with one in-place ReLU called twice."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.first, self.second, self.last = layers[0], layers[3], layers[7]
        self.relu = nn.ReLU(inplace=True)
        self.pools = nn.ModuleList([layers[2], layers[5]])

    def forward(self, x: Tensor) -> Tensor:
        x = self.pools[0](self.relu(self.first(x)))
        return self.last(self.pools[1](self.relu(self.second(x))).flatten(1))


PACKAGE_NETWORKS = {
    "vgg16": {"input_size": 32, "width": 0.25},
    "vgg16 without batch_norm": {"input_size": 32, "width": 0.25, "batch_norm": False},
    "resnet18": {"size": 48},
    "inception_v3": {"size": 75},
    "xception": {"size": 48},
    "efficientnet_lite0": {"size": 64},
    "squeezenet1_0": {"size": 48},
    "mobilefacenet": {"size": 48},
    "small_cnn": {"input_size": 16},
}


def package_network(name: str) -> tuple[models.Classifier, Tensor]:
    """Return a network of the package whose normalisations have seen data, and two images."""
    options: dict[str, Any] = dict(PACKAGE_NETWORKS[name])
    size = options.pop("size", options.get("input_size"))
    model = seeded(lambda: models.load(name.split()[0], classes=4, **options))
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.7, 1.5),
                (module.bias.data, -0.3, 0.6),
            ):
                tensor.uniform_(low, high, generator=generator)
    if name == "squeezenet1_0":  # its logits pass a ReLU, and untrained ones on small images would all be 0
        last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
        last.bias.data.fill_(1.0)
    return model, images(2, 3, size)


class Wrapper(nn.Module):
    """The least a classifier is: a network and its normalisation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def normalize(self, x: Tensor) -> Tensor:
        return (x - torch.tensor([0.4, 0.5]).view(1, 2, 1, 1)) / torch.tensor([0.2, 0.25]).view(1, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.normalize(x))


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).detach().abs().max() / theirs.detach().abs().max())


def plain_deep_lift(layers: nn.Sequential, x: Tensor, start: Tensor, target: int) -> Tensor:
    """Return the contributions (C, H, W) of one image: a dense matrix of multipliers for each layer."""
    product, now, before = torch.eye(x.numel(), dtype=x.dtype), x[None], start[None]
    for layer in layers:
        after, after_before = layer(now).detach(), layer(before).detach()
        matrix = _multipliers(layer, now, before, after, after_before)
        product, now, before = matrix @ product, after, after_before
    return (product[target] * (x - start).flatten()).view(x.shape)


def _multipliers(layer: nn.Module, now: Tensor, before: Tensor, after: Tensor, start: Tensor) -> Tensor:
    if isinstance(layer, (nn.Conv2d, nn.Linear, nn.Flatten, nn.AvgPool2d)):
        jacobian = torch.autograd.functional.jacobian(layer, now)
        return jacobian.reshape(after.numel(), now.numel())
    if not isinstance(layer, (nn.MaxPool2d, nn.AdaptiveMaxPool2d)):
        return torch.diag(((after - start) / (now - before)).flatten())
    matrix = torch.zeros(after.numel(), now.numel(), dtype=now.dtype)
    _, channels, height, width = now.shape
    number = 0
    for c in range(channels):
        for i in range(after.shape[2]):
            for j in range(after.shape[3]):
                rows, columns = _window(layer, i, height), _window(layer, j, width)
                places = [(c * height + r) * width + s for r in rows for s in columns]
                a, b = now.flatten()[places], before.flatten()[places]
                at = int(a.argmax() if a.max() >= b.max() else b.argmax())
                if a[at] != b[at]:  # otherwise nothing depends on it
                    matrix[number, places[at]] = (a.max() - b.max()) / (a[at] - b[at])
                number += 1
    return matrix


def _window(layer: nn.Module, position: int, size: int) -> range:
    if isinstance(layer, nn.AdaptiveMaxPool2d):
        count = layer.output_size
        return range(position * size // count, -(-(position + 1) * size // count))
    start = position * layer.stride - layer.padding
    return range(max(0, start), min(size, start + layer.kernel_size))
