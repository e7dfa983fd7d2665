"""Other ways to look for one pixel than :func:`xaicore.attacks.one_pixel`, and a pixel that does no harm.

Pixels at random, as many as the search may try (:func:`random_pixels`), are its control. Differential evolution as the
code cited by Klawikowska et al. (2020, Ref. 36) has it (:func:`cited_pixels`) is scipy's ``best1bin``: every child starts
from the best member so far,

    child_i = c_best + F (c_r1 - c_r2),   F uniform in [0.5, 1], drawn anew in each generation,

crossover takes all of it, and a gene beyond its bounds is drawn anew; 400 members and 75 generations are 30,400 passes an
image. The attack's own colour at a place where it does not turn the image (:func:`harmless_pixels`) is the control of its
map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from xaicore.attacks import AttackResult
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.few_pixels import Evolution, three_others
from xaicore.attacks.goal import Goal
from xaicore.attacks.victim import Victim
from xaicore.models import Classifier, predict

if TYPE_CHECKING:
    from xaicore.run.engine import Engine

BATCH = 100
"""Images in a batch."""
DITHER = 0.5, 1.0
"""Between these scipy draws F."""


class BestOne(Evolution):
    """The populations of :class:`~xaicore.attacks.few_pixels.Evolution` with children of the best member."""

    def _mutants(self) -> Tensor:
        count, genes = self.shape[0], self.shape[1] * self.shape[2]
        draws = self._random((count, 4 + genes))
        parents, everyone = self.genes[self.active], torch.arange(len(self.active))
        best = parents[everyone, self.scores[self.active].argmax(dim=1)][:, None]
        first, second, _ = three_others(draws[..., 1:4])
        low, high = DITHER
        factor = (low + (high - low) * draws[:, :1, 0])[..., None, None]
        mutants = best + factor * (parents[everyone[:, None], first] - parents[everyone[:, None], second])
        outside = (mutants < 0) | (mutants >= 1)
        return torch.where(outside, draws[..., 4:].view(mutants.shape), mutants)


def random_pixels(
    engine: Engine, model: Classifier, images: Tensor, labels: Tensor, *, tries: int, seed: int = 0
) -> AttackResult:
    """Try pixels at random places in random colours, the first population of ``one_pixel`` alone.

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
    return _searched(engine, "random pixels", model, images, labels, (tries, 0, seed))


def cited_pixels(
    engine: Engine,
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    population: int = 400,
    generations: int = 75,
    seed: int = 0,
) -> AttackResult:
    """Look for a pixel as the code cited by the paper does, see the module.

    Args:
        engine: as for :func:`random_pixels`, whose result this is too, as are ``model``, ``images`` and ``labels``.
        model: to be fooled.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) the true classes.
        population: members, at least 4.
        generations: after the first population, at least 1.
        seed: of the draws.
    """
    return _searched(
        engine, "one pixel as in the cited code", model, images, labels, (population, generations, seed)
    )


def _searched(
    engine: Engine,
    step: str,
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    options: tuple[int, int, int],
) -> AttackResult:
    found = engine.map(
        step,
        _batch,
        {"images": images, "labels": labels, "index": torch.arange(len(images))},
        constants={"model": model, "options": options},
        batch_size=BATCH,
    )
    return AttackResult.from_arrays(found, seconds=found.seconds)


def _batch(
    *, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor, options: tuple[int, int, int]
) -> dict[str, Tensor]:
    population, generations, seed = options

    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        streams = [np.random.default_rng((seed, int(number))) for number in index]
        return BestOne(victim, images, goal, streams, 1, population, generations).run()

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
    left = torch.arange(len(images))
    painted, pixels = images.clone(), torch.zeros(len(images), 2, dtype=torch.int64)
    for place in places:
        if not len(left):
            break
        tried, at = images[left], place[left]
        tried[torch.arange(len(left)), :, at[:, 0], at[:, 1]] = colours[left].to(tried)
        fits = predict(model, tried).argmax(1) == answers[left]
        painted[left[fits]], pixels[left[fits]] = tried[fits], at[fits]
        left = left[~fits]
    found = torch.ones(len(images), dtype=torch.bool)
    found[left] = False
    return Harmless(painted, pixels, found)
