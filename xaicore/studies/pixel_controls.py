"""What a single pixel does without a search for it: controls of the one-pixel attack.

Pixels at random, as many as the search may try (:func:`random_pixels`), and, for an image that an attack has turned, the
attack's own colour at another place, where it does not turn it (:func:`harmless_pixels`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from xaicore.attacks import AttackResult
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.few_pixels import Evolution
from xaicore.attacks.goal import Goal
from xaicore.attacks.victim import Victim
from xaicore.models import Classifier, predict

if TYPE_CHECKING:
    from xaicore.run.engine import Engine

BATCH = 100
"""Images in a batch."""


def random_pixels(
    engine: Engine, model: Classifier, images: Tensor, labels: Tensor, *, tries: int, seed: int = 0
) -> AttackResult:
    """Try pixels at random places in random colours, the first population of :func:`xaicore.attacks.one_pixel` alone.

    Args:
        engine: runs the batches and keeps each finished one.
        model: see :mod:`xaicore.attacks`, as for ``images`` (N, C, H, W) and ``labels`` (N,).
        images: in [0, 1].
        labels: the true classes.
        tries: pixels an image, at least 4.
        seed: of the draws.

    Returns:
        What ``one_pixel`` returns; ``info["queries_to_success"]`` says which try was the first to turn the image, and
        ``info["pixels"]`` and ``info["colours"]`` which pixel the image has.
    """
    arrays = {"images": images, "labels": labels, "index": torch.arange(len(images))}
    found = engine.map(
        "random pixels",
        _batch,
        arrays,
        constants={"model": model, "tries": tries, "seed": seed},
        batch_size=BATCH,
        code=random_pixels,
    )
    return AttackResult.from_arrays(found, seconds=found.seconds)


def _batch(
    *, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor, tries: int, seed: int
) -> dict[str, Tensor]:
    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        streams = [np.random.default_rng((seed, int(number))) for number in index]
        search = Evolution(victim, images, goal, streams, 1, tries, 0)
        if len(search.active):
            search.advance(0)
        return search.attempt()

    return run(step, model, images, labels, target=None, index=index, batch_size=BATCH).arrays()


class Harmless(NamedTuple):
    """Images with a pixel that does not turn them.

    Attributes:
        images: (N, C, H, W).
        pixels: (N, 2) int64, row and column of the pixel.
        found: (N,) bool, whether one of the places tried leaves the answer as it is.
    """

    images: Tensor
    pixels: Tensor
    found: Tensor


def harmless_pixels(
    model: Classifier, images: Tensor, colours: Tensor, answers: Tensor, *, tries: int = 20, seed: int = 0
) -> Harmless:
    """Paint a colour at a random place of each image where the model keeps its answer: the first of some places tried.

    Args:
        model: maps images to logits.
        images: (N, C, H, W) in [0, 1].
        colours: (N, C) in [0, 1], such as those of an attack.
        answers: (N,) int64, to be kept.
        tries: places an image.
        seed: of the places.
    """
    height, width = images.shape[2:]
    draws = torch.Generator().manual_seed(seed)
    places = torch.stack(
        [torch.randint(0, size, (tries, len(images)), generator=draws) for size in (height, width)], -1
    )
    everyone = torch.arange(len(images))
    painted, pixels = images.clone(), torch.zeros(len(images), 2, dtype=torch.int64)
    found = torch.zeros(len(images), dtype=torch.bool)
    for place in places if len(images) else ():
        tried = images.clone()
        tried[everyone, :, place[:, 0], place[:, 1]] = colours.to(tried)
        fits = (predict(model, tried).argmax(1) == answers) & ~found
        painted[fits], pixels[fits], found = tried[fits], place[fits], found | fits
    return Harmless(painted, pixels, found)
