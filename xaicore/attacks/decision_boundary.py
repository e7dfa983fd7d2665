"""The boundary attack: walk along the border of the class towards the image, seeing only the model's decision.

Brendel, Rauber & Bethge (2018), Sec. 2 and Alg. 1. Start at an image b that reaches the goal, as far from the
original o as need be, and repeat: take a random step on the sphere round o, then one towards o, and keep the
new point if it still reaches the goal. With r the distance from o to b, d = (b - o)/r and Gaussian noise eta::

    h = eta - <eta, d> d                                              orthogonal to the direction of the source
    s = clip(o + (b - o + delta r h/|h|) / sqrt(1 + delta^2))         on the sphere of radius r
    c = clip(s + (o - s) max(0, 1 - (1 - epsilon) r/|s - o|))         at distance (1 - epsilon) r

The two step sizes follow the success rates of the steps. Brendel et al. count successes over a window and move
a step size by a factor when the rate leaves a band; here every trial moves its own step size::

    log(step) += log(adaptation) * (success - wanted rate)

This rests where the success rate is the wanted one and gets there in tens of trials; a window needs hundreds.
Beside a flat border in n dimensions, at angle theta between b - o and the normal, progress per trial is best at
epsilon = 0.71 tan(theta)^2 / n and delta = sqrt(2 epsilon), where 12 % of the full steps and 28 % of the
orthogonal steps alone succeed (our derivation; foolbox 3 keeps them within 10 to 25 % and 20 to 50 %). On digits
20 % of the full steps was better. Delta is learnt from every tenth trial only and stays between sqrt(epsilon)
and sqrt(8 epsilon), so that it follows at once where epsilon has to shrink.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import Batch, Iteration, rows, rows_of, rowwise, select
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks, randomness
from xaicore.core.errors import UserError

SOURCE_RATE = 0.2  # wanted share of full steps (orthogonal, then towards the image) that succeed
SPHERICAL_RATE = 0.28  # wanted share of orthogonal steps alone that succeed
SPHERICAL_EVERY = 10  # every so many trials only the orthogonal step is tried, to learn its success rate
BAND = (1, 8)  # bounds of delta^2 / epsilon
LARGEST = 0.5  # bound of both step sizes
AHEAD = 8  # most trials in a row of one image that share a pass of the model
GRIDS = (0, 4, 8, 2)  # cells along a side of the noise in successive tries for a start; 0: each pixel its own
PULL_TOLERANCE = 0.01  # the bisection of the start ends this close to the border, as a share of its distance
PULLS = 24  # most trials of that bisection
START = 1  # purpose of the random stream of the starts; the walk's is 0

SEEKING, PULLING, WALKING = 0, 1, 2


def boundary(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 5000,
    starts: Tensor | None = None,
    start_tries: int = 100,
    spherical_step: float = 0.1,
    source_step: float = 0.01,
    step_adaptation: float = 1.5,
    source_step_convergence: float = 1e-7,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Start at noise that reaches the goal and come as close to the image as the decisions of the model allow.

    Nothing but the predicted class is used: no gradients and no probabilities. A start is the given one, or
    noise drawn until it reaches the goal: uniform for each pixel as in the paper and, since a model may see
    the true class in all such noise, in three tries of four uniform for each cell of a grid of 4, 8 or 2 by as
    many cells. Bisection between image and start then finds the border, and the walk begins there. The result
    counts as a success beyond rounding of the logits, so that it holds in any batch.

    Args:
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`; candidates share a pass.
            Noise seldom hits a given ``target`` among many classes: give ``starts``.
        steps: most trials of the walk, one query each; every tenth only measures (the orthogonal step alone).
        starts: (N, C, H, W) float32 in [0, 1], an image that reaches the goal for each image, e.g. a
            photograph of the target class; where it does not, starts are drawn. None: all are drawn.
        start_tries: most noise images drawn as starts for an image; 0 to use the given starts only.
        spherical_step: delta, first size of the orthogonal step, as a share of the distance to the image; in
            (0, 0.5], moved to between sqrt(source_step) and sqrt(8 source_step).
        source_step: epsilon, first size of the step towards the image, likewise.
        step_adaptation: base of the factor by which a trial changes its step size (see the module); greater
            than 1.
        source_step_convergence: an image whose source step falls below this has converged and stops.

    Returns:
        The result: the closest image found that reaches the goal, or the clean image where no start did.
        ``queries`` counts all candidates evaluated: starts, bisection, walk; in passes that would stay part
        empty some images try ahead, and what lies behind a success does not count. In ``info``:
        ``failed_start`` (N,) bool, no start reached the goal; ``given_start`` (N,) bool, the walk began at the
        given one; ``starting_l2`` (N,) float32, the distance at which the walk began, NaN without;
        ``steps`` (N,) int64, trials of the walk; ``converged`` (N,) bool.

    References:
        Brendel, Rauber & Bethge (2018), Decision-based adversarial attacks: reliable attacks against black-box
        machine learning models, Sec. 2.
    """
    shape = checks.images(images).shape
    steps = checks.integer("steps", steps, least=1)
    if starts is not None and checks.images(starts, "starts").shape != shape:
        raise UserError(f"starts must have the shape of images, {tuple(shape)}, not {tuple(starts.shape)}")
    start_tries = checks.integer("start_tries", start_tries, least=starts is None)
    spherical_step = checks.positive("spherical_step", spherical_step, most=LARGEST)
    source_step = checks.positive("source_step", source_step, most=LARGEST)
    if checks.positive("step_adaptation", step_adaptation) <= 1:
        raise UserError(f"step_adaptation must be greater than 1, not {step_adaptation!r}")
    convergence = checks.positive("source_step_convergence", source_step_convergence)
    seed = checks.integer("seed", seed, least=0)

    def step(
        victim: Victim, images: Tensor, goal: Goal, index: Tensor, given: Mapping[str, Tensor]
    ) -> Attempt:
        sizes = (spherical_step, source_step, step_adaptation, convergence)
        return _Walk(steps, start_tries, *sizes, seed, given.get("starts"))(victim, images, goal, index)

    extras = {} if starts is None else {"starts": starts.detach()}
    return run(step, model, images, labels, target=target, index=index, batch_size=batch_size, extras=extras)


class _Stage(NamedTuple):
    """How far n images are, each (n,); what a failed trial changes."""

    phase: Tensor  # int64, seeking a start, pulling it towards the image, or walking
    given: Tensor  # bool, the start is the given one
    tries: Tensor  # int64, trials while seeking
    pulls: Tensor  # int64, trials while pulling
    steps: Tensor  # int64, trials while walking
    low: Tensor  # float64, share of the start's distance below which the goal is not reached
    spherical: Tensor  # float64, size of the orthogonal step
    source: Tensor  # float64, size of the step towards the image
    starting: Tensor  # float64, distance at which the walk began; NaN before
    done: Tensor  # bool

    @property
    def only_spherical(self) -> Tensor:
        """Where the next trial is an orthogonal step alone, (n,) bool."""
        return (self.phase == WALKING) & (self.steps % SPHERICAL_EVERY == SPHERICAL_EVERY - 1)


class _State(NamedTuple):
    best: Tensor  # (n, C, H, W), the closest image found; the clean one until a start is
    distance: Tensor  # (n,) float64, its distance
    stage: _Stage

    @property
    def done(self) -> Tensor:
        return self.stage.done


@dataclass(frozen=True)
class _Walk(Iteration[_State]):
    """The walk of many images; each is seeking a start, pulling it towards the image, or walking.

    A trial is one candidate and one query. What a failed trial does to an image is known before its outcome:
    nothing but its stage changes. So where a pass of the model has free places, the trials that
    follow if all fail are made at once, and those behind the first success are forgotten.
    """

    steps: int
    start_tries: int
    spherical_step: float
    source_step: float
    adaptation: float
    convergence: float
    seed: int
    starts: Tensor | None = None

    def start(self, victim: Victim, batch: Batch) -> _State:
        none = torch.zeros_like(batch.labels)
        number = none.double()
        stage = _Stage(
            phase=none + SEEKING,
            given=none.bool() | (self.starts is not None),
            tries=none,
            pulls=none,
            steps=none,
            low=number,
            spherical=number + self.spherical_step,
            source=number + self.source_step,
            starting=number + torch.nan,
            done=none.bool(),
        )
        return _State(batch.images, number + torch.inf, stage)

    def advance(self, victim: Victim, batch: Batch, state: _State) -> _State:
        """Make as many trials of each image as fit in a pass, up to its first success."""
        count = len(batch.place)
        trials = max(1, min(AHEAD, victim.batch_size // max(1, count)))
        chain, candidates, distances, eligible = [state.stage], [], [], []
        for _ in range(trials):
            candidate, distance = self._candidate(batch, state._replace(stage=chain[-1]))
            candidates.append(candidate)
            distances.append(distance)
            eligible.append(chain[-1].only_spherical | (distance < state.distance))
            chain.append(self._after(chain[-1], state.distance, torch.zeros_like(state.done)))
        logits = victim.logits(torch.cat(candidates))
        attained = batch.goal[torch.arange(count, device=victim.device).repeat(trials)].attained(logits)
        works = attained.view(trials, count) & torch.stack(eligible)
        ends = works | torch.stack([stage.done for stage in chain[1:]])
        first = torch.where(ends.any(dim=0), ends.int().argmax(dim=0), trials - 1)
        success = works.gather(0, first[None])[0]
        at = torch.where(success, first, first + 1)
        stage = rowwise(lambda *links: torch.stack(links).gather(0, at[None])[0], *chain)
        best, distance = state.best.clone(), state.distance.clone()
        moves = success & ~stage.only_spherical
        for trial in range(trials):
            here = (moves & (at == trial)).nonzero().squeeze(1)
            best[here] = candidates[trial][here]
            distance[here] = distances[trial][here]
        return _State(best, distance, select(success, self._after(stage, distance, success), stage))

    def finish(self, victim: Victim, batch: Batch, state: _State) -> Attempt:
        stage = state.stage
        found = stage.phase != SEEKING
        info = {
            "failed_start": ~found,
            "given_start": found & stage.given,
            "starting_l2": stage.starting.float(),
            "steps": stage.steps,
            "converged": found & (stage.source < self.convergence),
        }
        return Attempt(state.best, stage.tries + stage.pulls + stage.steps, info)

    def _after(self, stage: _Stage, distance: Tensor, success: Tensor) -> _Stage:
        """Return the stage after a trial with that outcome (n,), at a distance (n,) of the best image."""
        seeking, pulling, walking = (stage.phase == phase for phase in (SEEKING, PULLING, WALKING))
        alone = stage.only_spherical
        tries, pulls, steps = stage.tries + seeking, stage.pulls + pulling, stage.steps + walking
        middle = (1 + stage.low) / 2
        low = torch.where(pulling, torch.where(success, stage.low / middle, middle), stage.low)
        pulled = pulling & ((1 - low < PULL_TOLERANCE) | (pulls >= PULLS))
        source = (stage.source * self._factor(success, SOURCE_RATE)).clamp(max=LARGEST)
        source = torch.where(walking & ~alone, source, stage.source)
        spherical = stage.spherical * self._factor(success, SPHERICAL_RATE)
        spherical = torch.where(alone, spherical, stage.spherical)
        spherical = torch.maximum(spherical, (BAND[0] * source).sqrt())
        spherical = torch.minimum(spherical, (BAND[1] * source).sqrt()).clamp(max=LARGEST)
        lost = seeking & ~success & (tries >= self.start_tries + (self.starts is not None))
        return _Stage(
            phase=stage.phase + (seeking & success) + pulled,
            given=stage.given & ~(seeking & ~success),
            tries=tries,
            pulls=pulls,
            steps=steps,
            low=low,
            spherical=spherical,
            source=source,
            starting=torch.where(pulled, distance, stage.starting),
            done=lost | (walking & ((steps >= self.steps) | (source < self.convergence))),
        )

    def _factor(self, success: Tensor, rate: float) -> Tensor:
        up, down = self.adaptation ** (1 - rate), self.adaptation**-rate
        return torch.where(success, up, down).double()

    def _candidate(self, batch: Batch, state: _State) -> tuple[Tensor, Tensor]:
        """Return the next candidate of each image (n, C, H, W) and its distance to the image (n,) float64."""
        candidate = torch.empty_like(batch.images)
        for phase, propose in ((SEEKING, self._drawn), (PULLING, self._pulled), (WALKING, self._walked)):
            here = (state.stage.phase == phase).nonzero().squeeze(1)
            if len(here):
                candidate[here] = propose(rows_of(batch, here), rows_of(state, here))
        return candidate, length(candidate - batch.images)

    def _drawn(self, batch: Batch, state: _State) -> Tensor:
        images, own = batch.images, state.stage.tries - int(self.starts is not None)
        height, width = images.shape[2:]
        drawn = randomness.uniform(self.seed, batch.number, own.clamp(min=0), images.shape[1:], purpose=START)
        for row, number in enumerate(own.tolist()):
            cells = GRIDS[number % len(GRIDS)]
            if number < 0:
                assert self.starts is not None
                drawn[row] = self.starts[batch.place[row]]
            elif cells:
                down = torch.arange(height, device=images.device) * min(cells, height) // height
                across = torch.arange(width, device=images.device) * min(cells, width) // width
                drawn[row] = drawn[row][:, down][:, :, across]
        return drawn

    def _pulled(self, batch: Batch, state: _State) -> Tensor:
        share = factor((1 + state.stage.low) / 2, batch.images)
        return (batch.images + share * (state.best - batch.images)).clamp(0, 1)

    def _walked(self, batch: Batch, state: _State) -> Tensor:
        images, radius, stage = batch.images, state.distance, state.stage
        gap = state.best - images
        noise = randomness.normal(self.seed, batch.number, stage.steps, images.shape[1:])
        along = (noise * gap).flatten(1).sum(dim=1, dtype=torch.float64) / radius.square()
        noise -= factor(along, images) * gap
        smallest = torch.finfo(torch.float32).tiny
        noise *= factor(stage.spherical * radius / length(noise).clamp(min=smallest), images)
        point = images + (gap + noise) / factor((1 + stage.spherical.square()).sqrt(), images)
        point = point.clamp_(0, 1)
        gap = images - point
        wanted = torch.where(stage.only_spherical, radius, (1 - stage.source) * radius)
        return (point + factor((1 - wanted / length(gap)).clamp(min=0), images) * gap).clamp(0, 1)


def length(change: Tensor) -> Tensor:
    """Return the Euclidean norm of each row of ``change`` (n, C, H, W), (n,) float64.

    Float64, so that the order of summation, which libraries choose by shape, stays below float32.
    """
    return torch.linalg.vector_norm(change.flatten(1), dim=1, dtype=torch.float64)


def factor(number: Tensor, images: Tensor) -> Tensor:
    """Return ``number`` (n,) as float32 to multiply ``images`` (n, C, H, W) with."""
    return rows(number.float(), images)
