"""DLFuzz as paper 3's code runs it: one image after the other, with one table of covered neurons for all of them.

``DLFuzz/DLFuzz.py`` (Renkhoff et al. 2022, commit 6c14757) keeps ``model_layer_times1`` from the first image to the last.
An image's neurons are drawn by what all images before have covered, and a point becomes a seed where it covers more than
0.01/(i + 1) new neurons, i being the image's place. So the result depends on the order of the images; several
independent orders say how much. The first change of class ends an image here; the code stores it and goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xaicore.attacks import dlfuzz
from xaicore.attacks.neurons import Coverage, activations

if TYPE_CHECKING:
    from xaicore.models import Classifier
    from xaicore.run.engine import Engine

TABLES = ("shared", "per-image")
IMAGENET_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
"""What Keras' ``preprocess_input`` takes off red, green and blue: the code's distances are relative to what is left."""
L2_LIMIT = 0.02


class Fuzzed(NamedTuple):
    """What DLFuzz made of N images in R orders.

    Attributes:
        success: (N,) bool, in the first order.
        adversarial: (N, C, H, W) in [0, 1], in the first order; a failed image is the last one made.
        iterations: (N,) int64, steps taken in the first order; several where a kept point was a seed.
        every: (R, N) bool, the success in each order.
    """

    success: Tensor
    adversarial: Tensor
    iterations: Tensor
    every: Tensor


def fuzzed(
    engine: Engine,
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    orders: int = 1,
    table: str = "shared",
    seed: int = 0,
    step: str = "DLFuzz",
    **options: Any,
) -> Fuzzed:
    """Fuzz images in several independent orders, each order a batch of its own.

    Args:
        engine: where orders run; it keeps each finished one.
        model: whose neurons count, on images (N, C, H, W) in [0, 1] with true classes ``labels`` (N,) int64.
        orders: how many.
        table: ``"shared"``, as the code has it, or ``"per-image"``: each image begins with nothing covered.
        seed: of the orders and of the neurons drawn.
        step: what the progress line says.
        options: of :func:`xaicore.attacks.dlfuzz`.
    """
    if table not in TABLES:
        raise ValueError(f"table must be one of {', '.join(TABLES)}, not {table!r}")
    drawn = [np.random.default_rng([seed, number]).permutation(len(images)) for number in range(orders)]
    arrays = {"order": torch.from_numpy(np.stack(drawn)), "number": torch.arange(orders)}
    constants = {"model": model, "images": images, "labels": labels, "table": table, "seed": seed}
    found = engine.map(step, _orders, arrays, constants={**constants, "options": options}, batch_size=1)
    first = (found[name][0] for name in ("success", "adversarial", "iterations"))
    return Fuzzed(*first, found["success"])  # type: ignore[call-arg]


def _orders(*, order: Tensor, number: Tensor, **given: Any) -> dict[str, Tensor]:
    rows = [in_order(order=row, number=int(which), **given) for row, which in zip(order, number, strict=True)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def in_order(
    *,
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    order: Tensor,
    number: int,
    table: str,
    seed: int,
    options: dict[str, Any],
) -> dict[str, Tensor]:
    """Fuzz the images of one ``order``, (N,) int64, the ``number``-th; see :func:`fuzzed`.

    Returns:
        ``success`` (N,) bool, ``adversarial`` (N, C, H, W), ``iterations`` (N,) int64, each in the order of ``images``.
    """
    sizes = {name: values.shape[1] for name, values in activations(model, images[:1]).items()}
    coverage = Coverage(sizes)
    success, iterations = torch.zeros(len(images), dtype=torch.bool), torch.zeros(len(images)).long()
    adversarial = images.clone()
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) >> 1
    for place, row in enumerate(order.tolist()):
        one = slice(row, row + 1)
        limit = L2_LIMIT * centred_norm(images[row]) / float(images[row].norm())
        result = dlfuzz(
            model,
            images[one],
            labels[one],
            coverage=coverage if table == "shared" else None,
            index=torch.tensor([place]),
            l2_limit=limit,
            seed=own,
            batch_size=1,
            **options,
        )
        if table == "shared":
            coverage.update(result.info["covered"])
        success[row], iterations[row] = result.success[0], result.info["iterations"][0]
        adversarial[one] = result.adversarial
    return {"success": success, "adversarial": adversarial, "iterations": iterations}


def centred_norm(image: Tensor) -> float:
    """Return the norm of an image (C, H, W) in [0, 1] less ImageNet's mean colour; of one channel, less its mean."""
    mean = torch.tensor(IMAGENET_MEAN, device=image.device)
    centre = mean if len(image) == len(IMAGENET_MEAN) else mean.mean()[None]
    return float((image - centre[:, None, None]).norm())
