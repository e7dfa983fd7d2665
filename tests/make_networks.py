"""Train and write the networks of tests/networks: ``python tests/make_networks.py [FOLDER] [--seed N] [--noise SHARE]``.

Each is trained from the recipe below on the training digits of mnist-5k, then its weights are rounded to whole numbers
(:func:`subjects.write`). Its images are the test digits (for "marks", none) that it gets right, as rounded, by
at least one unit of the logits, so that no rounding of another processor makes it wrong.

The committed ones are those of seed 0 without noise. To see whether a test depends on the network, write others into
a folder of their own and name it: ``XAICORE_TEST_NETWORKS=FOLDER python -m pytest tests/test_attacks_iterated.py``.
``--noise 0.02`` multiplies every weight by a normal number of mean 1 and deviation 0.02.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import subjects
import torch
from torch import Tensor, nn
from torch.nn import functional

from xaicore import data, models
from xaicore.attribution.sanity import planted_marks

ROOM = 1.0
"""By how much of the logits a network must be right on its images."""


def _digits(count: int | None, pool: int = 1) -> tuple[Tensor, Tensor]:
    images, labels = data.load("mnist-5k", split="train", n=count).stack()
    return functional.avg_pool2d(images, pool), labels


def _by_recipe(images: Tensor, labels: Tensor, **recipe: float) -> Callable[[nn.Module, int], nn.Module]:
    def train(model: nn.Module, seed: int) -> nn.Module:
        options = {"epochs": 3, "precision": "float32", "seed": seed, **recipe}
        return models.train(model, images, labels, recipe=models.Recipe(**options)).model

    return train


def _plainly(model: nn.Module, seed: int) -> nn.Module:
    """Train with Adam for eight epochs."""
    images, labels = _digits(2000)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(8):
        for batch in torch.randperm(len(images), generator=generator).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
    return model


def _with_marks() -> tuple[Tensor, Tensor]:
    marked, labels, _ = planted_marks(_digits(1200)[0], seed=1)
    return marked, labels


TRAIN: dict[str, Callable[[], Callable[[nn.Module, int], nn.Module]]] = {
    "digits": lambda: _by_recipe(*_digits(2000)),
    "two-strides": lambda: _plainly,
    "transformer": lambda: _plainly,
    "coarse-digits": lambda: _by_recipe(*_digits(2000, pool=2), learning_rate=4e-3),
    "marks": lambda: _by_recipe(*_with_marks(), learning_rate=2e-3),
}


def _right(name: str, model: nn.Module) -> Tensor:
    """Return the numbers of the test digits that the network gets right with room."""
    if name == "marks":
        return torch.zeros(0, dtype=torch.int64)
    images, labels = data.load("mnist-5k", split="test").stack()
    size = getattr(model, "input_size", 28)
    with torch.no_grad():
        logits = model(functional.avg_pool2d(images, 28 // size))
    true = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return (true - others >= ROOM).nonzero()[:, 0]


def make(folder: Path, seed: int, noise: float) -> None:
    """Write all networks into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    for name, build in subjects.ARCHITECTURES.items():
        model = TRAIN[name]()(build(seed), seed).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + noise * torch.randn(parameter.shape, generator=generator))
        subjects.write(folder, name, model, torch.zeros(0, dtype=torch.int64))
        rounded, _ = subjects.read(name, folder)
        right = _right(name, rounded)
        subjects.write(folder, name, rounded, right)
        print(f"{name}: {len(right)} test digits")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=subjects.NETWORKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.0)
    given = parser.parse_args()
    make(given.folder, given.seed, given.noise)
