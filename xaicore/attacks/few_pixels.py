"""The one-pixel attack: change very few pixels, to any colour, knowing only the model's output.

Differential evolution over candidates (row, column, colour) of the changed pixels, Su, Vargas & Sakurai 2019,
Eq. 3::

    child_i = c_r1 + F (c_r2 - c_r3),   r1, r2, r3, i distinct,   F = 0.5,   no crossover;

a child takes its parent's place if it is at least as good. Here the populations of all images evolve side by
side: one generation is one long batch, and an image leaves it as soon as one of its candidates succeeds. Of a
plain chain of layers only the window that a changed pixel reaches is computed
(:mod:`xaicore.attacks.pixel_windows`).
"""

import numpy as np
import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.pixel_windows import PixelWindows
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks
from xaicore.core.batched_model import wants_contiguous

SCALE = 0.5
"""F of Su et al., Sec. III-C."""


def one_pixel(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    pixels: int = 1,
    population: int = 100,
    generations: int = 20,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Change ``pixels`` pixels by differential evolution until the goal is reached or the budget is spent.

    Positions and colours start uniformly over the image and over [0, 1] per channel. A mutated colour is
    clipped to [0, 1]; a mutated position outside the image is drawn anew, as clipping would gather candidates
    at the border. (Su et al. start colours from a normal distribution and do not say what happens at the
    bounds.) Candidates are ranked by the log-odds of the true class or of the target, which is ranking by its
    probability. Su et al. use 400 candidates and 100 generations.

    Args:
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`; candidates share a pass.
        pixels: pixels to change, at most H * W. Where two coincide the later one counts.
        population: candidates per image, at least 4.
        generations: generations after the first population, at least 1.

    Returns:
        The result; a failed image carries its best candidate. ``queries`` counts all candidates evaluated, in
        whole populations. In ``info``: ``pixels`` (N, pixels, 2) int64 rows and columns; ``colours`` (N,
        pixels, C); ``generations`` (N,) int64 used, 0 if the first population held a success; ``history`` (N,
        generations + 1) float32, the best score after each (log-odds against the label, or of the target),
        NaN after the end; ``queries_to_success`` (N,) float64, the place of the first successful candidate in
        the order of evaluation, inf where none was.

    References:
        Su, Vargas & Sakurai (2019), One pixel attack for fooling deep neural networks, Sec. III.
    """
    height, width = checks.images(images).shape[2:]
    pixels = checks.integer("pixels", pixels, least=1, most=height * width)
    population = checks.integer("population", population, least=4)
    generations = checks.integer("generations", generations, least=1)
    seed = checks.integer("seed", seed, least=0)

    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        streams = [np.random.default_rng((seed, int(number))) for number in index]
        return Evolution(victim, images, goal, streams, pixels, population, generations).run()

    return run(step, model, images, labels, target=target, index=index, batch_size=batch_size)


class Evolution:
    """The populations of n images, each from its own random stream.

    A candidate is a row of genes in [0, 1]: for each pixel row/H, column/W and the colour. Genes live on the
    CPU in float64, images are made from them on the victim's device a batch at a time.
    """

    def __init__(
        self,
        victim: Victim,
        images: Tensor,
        goal: Goal,
        streams: list[np.random.Generator],
        pixels: int,
        population: int,
        generations: int,
    ) -> None:
        self.victim, self.images, self.goal, self.streams = victim, images, goal, streams
        count, channels = images.shape[:2]
        self.shape = (population, pixels, 2 + channels)
        self.genes = torch.zeros((count, *self.shape), dtype=torch.float64)
        self.scores = torch.full((count, population), -torch.inf)
        self.best = torch.zeros((count, pixels, 2 + channels), dtype=torch.float64)
        self.history = torch.full((count, generations + 1), torch.nan)
        self.first_success = torch.full((count,), torch.inf, dtype=torch.float64)
        self.generations = torch.zeros(count, dtype=torch.int64)
        self.active = torch.arange(count)
        self.windows = (
            PixelWindows.of(victim.model, images.shape[1:], victim.batch_size) if pixels == 1 else None
        )

    def run(self) -> Attempt:
        """Evolve until each image has a success or all generations are through."""
        for generation in range(self.history.shape[1]):
            if len(self.active):
                self.advance(generation)
        return self.attempt()

    def advance(self, generation: int) -> None:
        """Evaluate the first population (generation 0) or children of the last; the better ones stay."""
        active, everyone = self.active, torch.arange(len(self.active))
        candidates = self._random(self.shape) if generation == 0 else self._mutants()
        scores, works = self._evaluate(candidates)
        better = scores >= self.scores[active]
        self.genes[active] = torch.where(better[..., None, None], candidates, self.genes[active])
        self.scores[active] = torch.where(better, scores, self.scores[active])
        self.history[active, generation] = self.scores[active].amax(dim=1)
        self.generations[active] = generation

        done = works.any(dim=1)
        self.best[active] = self.genes[active][everyone, self.scores[active].argmax(dim=1)]
        winner = scores[done].where(works[done], -torch.inf).argmax(dim=1)
        self.best[active[done]] = candidates[done][everyone[: len(winner)], winner]
        first = works[done].int().argmax(dim=1)
        self.first_success[active[done]] = (generation * self.shape[0] + first + 1).double()
        self.active = active[~done]

    def attempt(self) -> Attempt:
        """Return the best candidate of each image and how it was found."""
        rows, columns, colours = self._decode(self.best)
        everyone = torch.arange(len(self.images), device=self.images.device)
        info = {
            "pixels": torch.stack([rows, columns], dim=-1),
            "colours": colours,
            "generations": self.generations,
            "history": self.history,
            "queries_to_success": self.first_success,
        }
        queries = (self.generations + 1) * self.shape[0]
        return Attempt(self._paint(everyone, rows, columns, colours), queries, info)

    def _random(self, shape: tuple[int, ...]) -> Tensor:
        draws = [self.streams[image].random(shape) for image in self.active.tolist()]
        return torch.from_numpy(np.stack(draws))

    def _mutants(self) -> Tensor:
        draws = self._random((self.shape[0], 3 + 2 * self.shape[1]))
        parents = self.genes[self.active]
        who = torch.arange(len(parents))[:, None]
        first, second, third = three_others(draws[..., :3])
        mutants = parents[who, first] + SCALE * (parents[who, second] - parents[who, third])
        positions, colours = mutants[..., :2], mutants[..., 2:]
        outside = (positions < 0) | (positions >= 1)
        positions = torch.where(outside, draws[..., 3:].view(positions.shape), positions)
        return torch.cat([positions, colours.clamp(0, 1)], dim=-1)

    def _evaluate(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns, colours = self._decode(candidates.flatten(0, 1))
        owners = self.active.repeat_interleave(self.shape[0]).to(self.images.device)

        def build(part: slice) -> Tensor:
            return self._paint(owners[part], rows[part], columns[part], colours[part])

        try:
            if self.windows is not None:
                logits = self.windows.logits(self.images, owners, rows[:, 0], columns[:, 0], colours[:, 0])
        except Exception as failure:
            if not wants_contiguous(failure):
                raise
            self.windows = None
        if self.windows is None:
            logits = self.victim.logits_of(len(owners), self.images.shape[1:], build)
        goal = self.goal[owners]
        scores = goal.score(logits).nan_to_num(-torch.inf, torch.inf, -torch.inf)
        shape = (len(self.active), self.shape[0])
        return scores.view(shape).cpu(), goal.reached(logits).view(shape).cpu()

    def _decode(self, genes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        device, sizes = self.images.device, torch.tensor(self.images.shape[2:])
        rows, columns = (genes[..., :2] * sizes).long().minimum(sizes - 1).to(device).unbind(-1)
        return rows, columns, genes[..., 2:].float().to(device)

    def _paint(self, owners: Tensor, rows: Tensor, columns: Tensor, colours: Tensor) -> Tensor:
        painted = self.images[owners]
        which = torch.arange(len(owners), device=painted.device)
        for pixel in range(rows.shape[1]):
            painted[which, :, rows[:, pixel], columns[:, pixel]] = colours[:, pixel]
        return painted


def three_others(uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return three other members for each of a population, int64 (..., P); each ordered triple is equally likely.

    They come from independent ``uniform`` draws (..., P, 3) in [0, 1); P is at least 4.
    """
    population = uniform.shape[-2]
    taken = torch.arange(population).expand(uniform.shape[:-1])[..., None]
    for place in range(3):
        drawn = (uniform[..., place] * (population - 1 - place)).long()
        for other in taken.sort(dim=-1).values.unbind(-1):
            drawn = drawn + (drawn >= other)
        taken = torch.cat([taken, drawn[..., None]], dim=-1)
    first, second, third = taken[..., 1:].unbind(-1)
    return first, second, third
