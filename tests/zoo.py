"""Small untrained networks of all kinds, for images (N, 1, 8, 8) and 3 classes: what "any network" means in tests.

:data:`NETWORKS` return logits; :data:`OUTPUTS` return something else, :data:`HELD` hide a network in an object of
PyTorch. Each is made anew, with the same weights, by calling its entry.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xaicore import models

CLASSES = 3


def images(count: int = 4, seed: int = 1) -> Tensor:
    """Return random images (count, 1, 8, 8) in [0, 1]."""
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


class View(nn.Module):
    """Two convolutions, ``view``, two linear layers: the usual example for MNIST, which needs contiguous maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3)
        self.pool, self.relu1, self.relu2, self.relu3 = nn.MaxPool2d(2), nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.fc1, self.fc2 = nn.Linear(24, 12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu2(self.conv2(self.pool(self.relu1(self.conv1(x)))))
        return self.fc2(self.relu3(self.fc1(x.view(-1, 24))))


class Residual(nn.Module):
    """A convolution around which its input is added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.relu1, self.relu2, self.pool, self.fc = (
            nn.ReLU(),
            nn.ReLU(),
            nn.AvgPool2d(4),
            nn.Linear(24, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.stem(x))
        x = self.relu2(x + self.conv(x))
        return self.fc(self.pool(x).flatten(1))


class Functional(nn.Module):
    """Activations and pools as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(96, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(functional.max_pool2d(functional.relu(self.conv(x)), 2), 1))


class InPlace(nn.Module):
    """Works in place, and so on its input too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = (
            nn.Conv2d(1, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Linear(384, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.sub_(0.4).div_(0.3))
        x += 0.1
        return self.fc(self.relu(x).flatten(1))


class Shared(nn.Module):
    """One activation module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.relu, self.pool, self.fc = nn.ReLU(), nn.MaxPool2d(2), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        return self.fc(self.pool(self.relu(self.conv2(x))).flatten(1))


class Attention(nn.Module):
    """A vision transformer of one block: 16 patches of 2 x 2 pixels, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.place = nn.Conv2d(1, 8, 2, stride=2), nn.Parameter(0.1 * torch.randn(1, 16, 8))
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        return self.fc(x.mean(dim=1))


class DataDependent(nn.Module):
    """Needs contiguous maps where its images are dark, and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Linear(384, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.relu(self.conv(x))
        return self.fc(maps.view(len(x), -1) if x.max() < 0.99 else maps.flatten(1))


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return (2 * gradient.view(-1)).view(ctx.shape)


class OwnGradient(nn.Module):
    """A function with a gradient of its own, which needs contiguous maps; the function itself does not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3)
        self.relu, self.fc = nn.ReLU(), nn.Linear(216, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv2(_Doubled.apply(self.conv1(x)))).flatten(1))


class Returning(nn.Module):
    """A network whose output is put into something else."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.network(x))


def activated(activation: Callable[[], nn.Module]) -> nn.Module:
    """Return two convolutions with an activation."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), activation(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), activation(),
        nn.Flatten(), nn.Linear(32, CLASSES),
    )  # fmt: skip


def _layer_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.LayerNorm([6, 8, 8]),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(384, CLASSES),
    )


def _classifier() -> nn.Module:
    return models.load("small_cnn", classes=CLASSES, channels=1, input_size=8)


def _seeded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def seeded() -> nn.Module:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return build().eval()

    return seeded


def _returning(change: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    return _seeded(lambda: Returning(activated(nn.ReLU), change))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "view": _seeded(View),
    "residual": _seeded(Residual),
    "functional": _seeded(Functional),
    "in-place": _seeded(InPlace),
    "shared activation": _seeded(Shared),
    "GELU": _seeded(lambda: activated(nn.GELU)),
    "SiLU": _seeded(lambda: activated(nn.SiLU)),
    "layer norm": _seeded(_layer_norm),
    "attention": _seeded(Attention),
    "data-dependent": _seeded(DataDependent),
    "own gradient": _seeded(OwnGradient),
    "compiled": _seeded(lambda: torch.compile(activated(nn.ReLU), backend="eager")),
    "compiled view": _seeded(lambda: torch.compile(View(), backend="eager")),
    "channels_last": _seeded(lambda: activated(nn.ReLU).to(memory_format=torch.channels_last)),
    "wrapper": _seeded(lambda: nn.Sequential(nn.Identity(), _classifier())),
}

OUTPUTS: dict[str, Callable[[], nn.Module]] = {
    "tuple": _returning(lambda logits: (logits, 2 * logits)),
    "dict": _returning(lambda logits: {"features": 2 * logits, "logits": logits}),
    "one column": _returning(lambda logits: logits[:, :1]),
    "one number": _returning(lambda logits: logits[:, 0]),
    "class numbers": _returning(lambda logits: logits.argmax(dim=1)),
    "probabilities": _returning(lambda logits: logits.softmax(dim=1)),
}

HELD: dict[str, Callable[[], nn.Module]] = {
    "DataParallel": _seeded(lambda: nn.DataParallel(activated(nn.ReLU))),
    "scripted": _seeded(lambda: torch.jit.script(activated(nn.ReLU))),
    "traced": _seeded(lambda: torch.jit.trace(activated(nn.ReLU), images())),
    "scripted part": _seeded(lambda: nn.Sequential(nn.Identity(), torch.jit.script(activated(nn.ReLU)))),
}
