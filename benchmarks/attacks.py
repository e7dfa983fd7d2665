"""How fast our attacks are: ``python -m benchmarks.attacks [results.json] [--images 60] [--threads 1]``.

In one run, on VGG16 at a quarter of the width trained for two epochs on MNIST 4 against 9 (32x32, batch norm
folded):

- ``fgsm`` against foolbox's, at equal output;
- ``one_pixel`` against the same differential evolution written plainly, image after image, once with a
  population as a batch (as torchattacks works) and once candidate by candidate (as with scipy's function);
  same draws, same outcome.

Prints times and ratios (above 1: ours is faster) and writes them as JSON where a path is given. A time is
that of the fastest of interleaved repeats.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import torch
from torch import Tensor, nn

from xaicore import attacks, data, models

EPS = 8 / 255
POPULATION = 20
GENERATIONS = 19
SINGLES = 20


def subject(count: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a trained model and ``count`` images that it classifies correctly."""
    train = data.load("mnist-5k", split="train", size=32, classes=("4", "9"))
    model = models.load("vgg16", classes=train.classes, width=0.25, channels=1, input_size=32)
    result = models.train(model, *train.stack(), recipe=models.Recipe(epochs=2))
    model = result.model.fold_batchnorm()
    images, labels = train.stack()
    right = models.predict(model, images).argmax(dim=1) == labels
    return model, images[right][:count], labels[right][:count]


def best_seconds(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Run all in turn, ``repeats`` times, so that a busy machine slows all alike; the fastest counts."""
    seconds = dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def plain_one_pixel(model: nn.Module, image: Tensor, label: int, number: int, batched: bool) -> bool:
    """One image, one pixel, DE/rand/1 without crossover; returns success. The draws are those of ours."""
    stream = np.random.default_rng((0, number))
    channels, height, width = image.shape

    def score(population: np.ndarray) -> np.ndarray:
        painted = image.repeat(len(population), 1, 1, 1)
        for candidate, (row, column, *colour) in zip(painted, population, strict=True):
            candidate[:, int(row * height), int(column * width)] = torch.tensor(colour, dtype=torch.float32)
        with torch.no_grad():
            logits = model(painted) if batched else torch.cat([model(one[None]) for one in painted])
        others = logits.clone()
        others[:, label] = -torch.inf
        return (others.logsumexp(1) - logits[:, label]).numpy()

    parents = stream.random((POPULATION, 2 + channels))
    scores = score(parents)
    if (scores > 0).any():
        return True
    for _ in range(GENERATIONS):
        draws = stream.random((POPULATION, 5))
        children = np.empty_like(parents)
        for i in range(POPULATION):
            left = list(range(POPULATION))
            left.remove(i)
            first, second, third = (left.pop(int(draws[i, place] * len(left))) for place in range(3))
            child = parents[first] + 0.5 * (parents[second] - parents[third])
            outside = (child[:2] < 0) | (child[:2] >= 1)
            child[:2][outside] = draws[i, 3:][outside]
            children[i] = child.clip(0, 1)
        new = score(children)
        if (new > 0).any():
            return True
        better = new >= scores
        parents[better], scores[better] = children[better], new[better]
    return False


def compare_fgsm(model: nn.Module, images: Tensor, labels: Tensor, repeats: int) -> dict[str, float]:
    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    criterion = foolbox.criteria.Misclassification(labels)

    def theirs() -> Tensor:
        return foolbox.attacks.FGSM()(peer, images, criterion, epsilons=EPS)[1]

    ours = attacks.fgsm(model, images, labels, eps=EPS)
    different = (ours.adversarial - theirs()).abs() > 1e-6
    seconds = best_seconds(
        {"ours": lambda: attacks.fgsm(model, images, labels, eps=EPS), "foolbox": theirs}, repeats
    )
    return {
        "ours_ms_per_image": 1e3 * seconds["ours"] / len(images),
        "foolbox_ms_per_image": 1e3 * seconds["foolbox"] / len(images),
        "ratio": seconds["foolbox"] / seconds["ours"],
        "values_that_differ": different.float().mean().item(),
        "success": ours.success_rate(),
    }


def compare_one_pixel(model: nn.Module, images: Tensor, labels: Tensor, repeats: int) -> dict[str, float]:
    plain: dict[str, list[bool]] = {}

    def ours() -> attacks.AttackResult:
        return attacks.one_pixel(model, images, labels, population=POPULATION, generations=GENERATIONS)

    def theirs(name: str, batched: bool) -> None:
        plain[name] = [
            plain_one_pixel(model, image, int(label), number, batched=batched)
            for number, (image, label) in enumerate(zip(images, labels, strict=True))
        ]

    result = ours()
    seconds = best_seconds(
        {
            "ours": ours,
            "population_batch": lambda: theirs("population_batch", batched=True),
            "candidate_by_candidate": lambda: theirs("candidate_by_candidate", batched=False),
        },
        repeats,
    )
    queries = int(result.queries.sum())
    report = {f"{name}_ms_per_query": 1e3 * value / queries for name, value in seconds.items()}
    for name, success in plain.items():
        report[f"{name}_ratio"] = seconds[name] / seconds["ours"]
        report[f"{name}_same_outcome"] = float(np.mean(result.success.numpy() == success))
    return {**report, "success": result.success_rate()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time our attacks against others.")
    parser.add_argument("path", nargs="?", type=Path, help="where to write the JSON")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, images, labels = subject(options.images)
    report: dict[str, Any] = {
        "images": {"fgsm": len(images), "one_pixel": min(SINGLES, len(images))},
        "threads": options.threads,
        "torch": torch.__version__,
        "foolbox": foolbox.__version__,
        "machine": platform.machine(),
        "fgsm": compare_fgsm(model, images, labels, options.repeats),
        "one_pixel": compare_one_pixel(model, images[:SINGLES], labels[:SINGLES], options.repeats),
    }
    for attack in ("fgsm", "one_pixel"):
        for name, number in report[attack].items():
            print(f"{attack:10s} {name:38s} {number:.4g}")
    if options.path:
        options.path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
