"""DLFuzz: perturb an image so that its class gives way and neurons that are rarely covered become active.

Guo et al. (2018), Sec. 3, in the form of paper 3 (Renkhoff et al. 2022, Eq. 8)::

    maximise  w (p_2 + … + p_5) - p_1 + lambda sum_j n_j

over small steps along the gradient divided by its root mean square. p_1 … p_5 are the highest softmax outputs
of the seed in its own order, n_j the channel means of some neurons (:mod:`xaicore.attacks.neurons`), drawn anew for
each seed. The publication gives Eq. 8; the numbers and the loop are those of its code
(Exploring-Adversarial-Attacks-on-Neural-Networks, DLFuzz/DLFuzz.py, which follows the authors' of DLFuzz).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from xaicore.attacks.base import Attempt, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import Batch, Iteration, rows, rowwise
from xaicore.attacks.neurons import Coverage, Watch, watching
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.core.randomness import uniform

Strategy = Literal["rarely", "often", "uncovered"]

TOP_CLASSES = 5
"""Classes in the objective, the first included; all of them where there are fewer."""


def dlfuzz(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    iterations: int = 1,
    step_size: float = 0.5 / 255,
    neurons: int = 10,
    neuron_weight: float = 0.5,
    class_weight: float = 0.5,
    strategy: Strategy = "rarely",
    threshold: float = 0.25,
    coverage_gain: float = 0.01,
    l2_limit: float = 0.02,
    coverage: Coverage | None = None,
    layers: Sequence[str] | None = None,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Fuzz each image, seed by seed, until its class changes or no seed is left.

    The first seed is the image. From a seed, ``iterations`` steps are taken, each along the gradient of the
    objective at the last point, and clipped to [0, 1]. Each point on the way is added to the coverage; it
    becomes a seed itself, and waits in line, if the share of neurons covered grew by more than
    ``coverage_gain / (index + 1)`` and the relative L2 distance is under ``l2_limit``. The defaults are the
    published settings: one small step per seed. More ``iterations`` or a larger ``step_size`` find more.

    An image's neurons are drawn by what ``coverage`` holds and by what the image itself has covered so far;
    the images of a call do not see each other. The published code goes from one image to the next with one
    coverage. Calls of one image each, in order and with its ``index``, do the same if each is followed by
    ``coverage.update(result.info["covered"])``.

    Where the published code differs: it saves every point whose prediction differs from its seed's and goes
    on, here the first change ends the image; it does not clip; it takes 1 neuron, not all asked for, where no
    neuron is covered at all; it divides the gradient by (root mean square + 1e-5 per grey level), which
    shortens steps where the gradient is tiny; a kept image goes on changing with the later steps of its seed,
    as the array is shared (no difference at one iteration). For a target it has nothing; the class part is
    p_target - p_1 then, and this is ours.

    Args:
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`; ``model`` with activations
            as modules. The ``index`` also sets how much gain makes a seed, as in the published code.
        iterations: steps from each seed.
        step_size: root mean square of a step before clipping, in (0, 1].
        neurons: how many to draw for each seed; fewer where the strategy finds fewer.
        neuron_weight: lambda, at least 0. Channel means n_j are as large as the model makes them, while
            probabilities are at most 1: the neurons easily outweigh the classes, above all with a target,
            whose probability hardly has a slope at first. 0 leaves a plain gradient attack.
        class_weight: w, the weight of classes 2 to 5, at least 0. Eq. 8 has 1, the code 0.5.
        strategy: ``"rarely"`` draws neurons with probability in proportion to (times of the most often covered
            neuron - own times), strategy 1 of the code; ``"often"`` to the times, strategy 0; ``"uncovered"``
            evenly among neurons never covered. Evenly among all where that leaves none.
        threshold: a neuron is covered above it, in [0, 1].
        coverage_gain: share of neurons, at least 0.
        l2_limit: largest ||x' - x|| / ||x|| of a new seed, at least 0; it does not bind the result. The published
            code works on images less their ImageNet mean, whose norm is about half that of the image: its limit
            is about twice as strict.
        coverage: what is covered before the call; not changed. None: nothing.
        layers: names of the modules whose channels are neurons; None: activations, max-pools and softmax, as
            in :mod:`xaicore.attacks.neurons`.

    Returns:
        The result; a failed image is the last one made. ``queries`` counts 1 for each step and 1 for the
        last image of each seed. In ``info``, each (N,) unless stated: ``iterations`` int64, steps taken;
        ``kept`` int64, points found worth being a seed; ``covered`` (N, neurons) int64, how often the images
        of this call's loop covered each neuron, for :meth:`Coverage.update
        <xaicore.attacks.neurons.Coverage.update>`; ``coverage_gain`` float32, the share of neurons that they
        covered and ``coverage`` did not; ``zero_gradient`` bool, a gradient was zero or not finite everywhere,
        which ends its seed.

    Raises:
        ValueError: also if ``coverage`` is of other layers, ``layers`` are unknown, or the model has its activations as
            functions.

    References:
        Guo, Jiang, Zhao, Chen & Sun (2018), DLFuzz: differential fuzzing testing of deep learning systems,
        Sec. 3; Renkhoff, Tan et al. (2022), Eq. 8.
    """
    checks.model(model)
    if coverage is not None and not isinstance(coverage, Coverage):
        raise TypeError(f"coverage must be a Coverage or None, not {type(coverage).__name__}")
    checks.one_of("strategy", strategy, get_args(Strategy))
    parameters: dict[str, Any] = {
        "iterations": checks.integer("iterations", iterations, least=1),
        "step_size": checks.positive("step_size", step_size, most=1),
        "neurons": checks.integer("neurons", neurons, least=1),
        "neuron_weight": checks.not_negative("neuron_weight", neuron_weight),
        "class_weight": checks.not_negative("class_weight", class_weight),
        "strategy": strategy,
        "threshold": checks.not_negative("threshold", threshold, most=1),
        "coverage_gain": checks.not_negative("coverage_gain", coverage_gain),
        "l2_limit": checks.not_negative("l2_limit", l2_limit),
        "seed": checks.integer("seed", seed, least=0),
    }

    def fuzz(victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
        sizes = watch.layers()
        if coverage is not None and list(coverage.layers.items()) != list(sizes.items()):
            raise UserError("coverage must be of the same layers, in the same order, as the attack's")
        before = coverage.counts if coverage is not None else torch.zeros(sum(sizes.values())).long()
        return _Fuzzer(watch, before.to(victim.device), **parameters)(victim, images, goal, index)

    with watching(model, layers) as watch:
        return run(fuzz, model, images, labels, target=target, index=index, batch_size=batch_size)


class _State(NamedTuple):
    """What is known of n images; a step changes it in place."""

    current: Tensor  # (n, C, H, W), the last image made
    times: Tensor  # (n, neurons) int64, how often the image's own points covered each
    chosen: Tensor  # (n, neurons) bool, the neurons to raise from this seed
    weights: Tensor  # (n, K), those of the classes
    taken: Tensor  # (n,) int64, steps from this seed
    iterations: Tensor  # (n,) int64, all steps
    seeds: Tensor  # (n,) int64, seeds begun
    kept: Tensor  # (n,) int64, points kept as seeds
    queries: Tensor  # (n,) int64
    zero_gradient: Tensor  # (n,) bool
    done: Tensor  # (n,) bool


@dataclass(frozen=True)
class _Fuzzer(Iteration[_State]):
    """One seed after the other for each image; see :func:`dlfuzz` for the parameters.

    The pass that gives the gradient at an image also gives its logits and neurons. So a step first judges the
    image that the step before led to; a pass without gradient is needed only after the last step of a seed.
    """

    watch: Watch
    before: Tensor  # (neurons,) int64, how often each was covered before the call
    iterations: int
    step_size: float
    neurons: int
    neuron_weight: float
    class_weight: float
    strategy: Strategy
    threshold: float
    coverage_gain: float
    l2_limit: float
    seed: int
    queues: dict[int, deque[Tensor]] = field(
        default_factory=dict
    )  # the seeds that wait, by the image's place

    def start(self, victim: Victim, batch: Batch) -> _State:
        """Begin with each image as its own first seed."""
        self.queues.update({place: deque() for place in batch.place.tolist()})
        none = torch.zeros_like(batch.number)
        times = none[:, None].repeat(1, len(self.before))
        weights = torch.zeros((len(none), victim.classes), device=victim.device)
        never = none.bool()
        return _State(batch.images, times, times.bool(), weights, none, none, none, none, none, never, never)

    def advance(self, victim: Victim, batch: Batch, state: _State) -> _State:
        """Take one step from each current image, and go on to the next seed where that was the last."""
        state = rowwise(torch.clone, state)
        count = len(batch.place)
        fresh = state.taken == 0
        unopened = [fresh.nonzero().squeeze(1)]

        def objective(logits: Tensor, part: slice) -> Tensor:
            while unopened:
                self._open(batch, state, unopened.pop(), logits.detach())
            classes = (state.weights * logits.softmax(dim=1)).sum(dim=1)
            return classes + self.neuron_weight * (state.chosen * self.watch.means(count)).sum(dim=1)

        logits, gradient = victim.differentiate(state.current, objective)
        self._judge(batch, state, (~fresh).nonzero().squeeze(1), logits[~fresh], self._covered(count)[~fresh])
        direction = unit_rms(gradient)
        nowhere = (direction == 0).flatten(1).all(dim=1)
        moving = ~state.done & ~nowhere
        stepped = (state.current + self.step_size * direction).clamp(0, 1)
        state.current.copy_(torch.where(rows(moving, stepped), stepped, state.current))
        state.taken.add_(1)
        state.iterations.add_(moving)
        state.queries.add_(1)
        state.zero_gradient.logical_or_(nowhere & ~state.done)

        last = (moving & (state.taken == self.iterations)).nonzero().squeeze(1)
        if len(last):
            logits = victim.logits(state.current[last])
            self._judge(batch, state, last, logits, self._covered(len(last)))
            state.queries[last] += 1
        self._next_seed(batch, state, ~state.done & (nowhere | (state.taken == self.iterations)))
        return state

    def finish(self, victim: Victim, batch: Batch, state: _State) -> Attempt:
        """Hand back the image that reached the goal, or the last one made."""
        for place in batch.place.tolist():
            del self.queues[place]
        new = (state.times > 0) & (self.before == 0)
        info = {
            "iterations": state.iterations,
            "kept": state.kept,
            "covered": state.times,
            "coverage_gain": new.sum(dim=1) / len(self.before),
            "zero_gradient": state.zero_gradient,
        }
        return Attempt(state.current, state.queries, info)

    def _covered(self, count: int) -> Tensor:
        return self.watch.scaled(count) > self.threshold

    def _open(self, batch: Batch, state: _State, which: Tensor, logits: Tensor) -> None:
        """Count the neurons of new seeds, draw those to raise and weigh the classes by the seeds' order.

        The classes' weights are those of the objective plus 1 for every class: the same function up to a
        constant, as the probabilities sum to 1, but without the rounding of 1 - p_1, so that its gradient
        is exact also where p_1 is 1 in float32.
        """
        state.times[which] += self._covered(len(logits))[which]
        order = logits[which].topk(min(TOP_CLASSES, logits.shape[1]), dim=1).indices
        weights = torch.ones_like(logits[which]).scatter(1, order[:, :1], 0)
        if batch.target is not None:
            weights.scatter_(1, batch.target[which, None], 2)
        else:
            weights.scatter_(1, order[:, 1:], 1 + self.class_weight)
        state.weights[which] = weights
        draws = uniform(self.seed, batch.number[which], state.seeds[which], self.before.shape)
        times = self.before + state.times[which]
        state.chosen[which] = choose(times, draws, self.neurons, self.strategy)
        state.seeds[which] += 1

    def _judge(self, batch: Batch, state: _State, which: Tensor, logits: Tensor, covered: Tensor) -> None:
        """Count the neurons of perturbed images, keep those worth being a seed, end those that do it."""
        images = batch.images[which]
        gained = (covered & (state.times[which] + self.before == 0)).sum(dim=1)
        state.times[which] += covered
        enough = gained * (batch.number[which] + 1) > self.coverage_gain * len(self.before)
        near = norms(state.current[which] - images) < self.l2_limit * norms(images)
        worth = enough & near
        for place, row in zip(batch.place[which[worth]].tolist(), which[worth].tolist(), strict=True):
            self.queues[place].append(state.current[row].clone())
        state.kept[which] += worth
        state.done[which] = batch.goal[which].attained(logits)

    def _next_seed(self, batch: Batch, state: _State, over: Tensor) -> None:
        for row in over.nonzero().squeeze(1).tolist():
            queue = self.queues[int(batch.place[row])]
            if queue:
                state.current[row] = queue.popleft()
                state.taken[row] = 0
            else:
                state.done[row] = True


def choose(times: Tensor, draws: Tensor, count: int, strategy: Strategy) -> Tensor:
    """Draw ``count`` neurons without replacement, (n, neurons) bool, fewer where fewer have a weight.

    The first to ring among exponential clocks whose rates are the weights of the strategy (Efraimidis & Spirakis 2006),
    all 1 in a row without any, by how often each was covered so far, ``times`` (n, neurons) int64. The clocks are set
    by uniform ``draws`` (n, neurons) in [0, 1).
    """
    if strategy == "rarely":
        weights = times.amax(dim=1, keepdim=True) - times
    elif strategy == "often":
        weights = times
    else:
        weights = (times == 0).long()
    weights = torch.where((weights == 0).all(dim=1, keepdim=True), 1, weights)
    rings = (-torch.log1p(-draws) / weights).where(weights > 0, torch.inf)
    first = rings.topk(min(count, times.shape[1]), dim=1, largest=False)
    return torch.zeros_like(times, dtype=torch.bool).scatter(1, first.indices, first.values < torch.inf)


def unit_rms(gradient: Tensor) -> Tensor:
    """Return each row of ``gradient`` (n, C, H, W) divided by its root mean square; 0 where it has none.

    Entries that are not finite count as 0.
    """
    finite = gradient.nan_to_num(0, 0, 0)
    largest = finite.abs().flatten(1).amax(dim=1)
    scaled = finite / rows(largest, finite)
    return (scaled / rows(norms(scaled) / gradient.shape[1:].numel() ** 0.5, finite)).nan_to_num(0, 0, 0)


def norms(images: Tensor) -> Tensor:
    """Return the Euclidean norm of each row (n, C, H, W), summed in an order that does not depend on n."""
    return images.square().sum(dim=3).flatten(1).sum(dim=1).sqrt()
