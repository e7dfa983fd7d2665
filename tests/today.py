"""Small networks of today's architectures for images (N, 3, 32, 32) and three classes, in float64."""

from collections.abc import Callable

import torch
from subjects import seeded
from torch import Tensor, nn

from xaicore.studies.architectures import ARCHITECTURES, CLASSES, in_use


def images(count: int = 2, channels: int = 3, size: int = 32) -> Tensor:
    """Return random images in [0, 1], float64."""
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1)).double()


def _group_norm() -> nn.Module:
    """A convolution, group normalisation and SiLU; attention between the pixels, written out; a GLU."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 8, 4, stride=4), nn.GroupNorm(2, 8)
            self.qkv, self.wide, self.head = nn.Linear(8, 24), nn.Linear(8, 16), nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            maps = nn.functional.silu(self.norm(self.stem(x)))
            tokens = maps.flatten(2).transpose(1, 2)
            q, k, v = self.qkv(tokens).chunk(3, dim=-1)
            tokens = tokens + nn.functional.scaled_dot_product_attention(q, k, v)
            value, gate = self.wide(tokens).chunk(2, -1)
            return self.head((value * torch.sigmoid(gate)).mean(dim=1))

    return Attending()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{name.split()[0]: build for name, build in ARCHITECTURES.items()},
    "attention, written out": _group_norm,
}


def network(name: str, *, biased: bool = True) -> nn.Module:
    """Return an untrained network whose weights, statistics and biases are all in use, or without biases."""
    return seeded(lambda: in_use(NETWORKS[name]().double(), biased=biased).requires_grad_(False), 0)
