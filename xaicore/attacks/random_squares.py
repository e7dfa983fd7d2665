"""The Square attack: random search by squares at the edge of the ball, knowing only the scores of the classes.

Andriushchenko, Croce, Flammarion & Hein (2020), Alg. 1 to 3. Each query proposes the best image so far with one square
changed, and keeps it if the margin of the goal grows. In the L-infinity ball a channel of the square becomes x + eps or
x - eps; the first image has stripes of both. In the L2 ball the square takes over the norm of a second one, which is
emptied, and that not yet spent, in a shape of two opposed heaps. The share of the image that a square covers falls by
the query, :func:`share`.

A failed proposal changes nothing but the number of the query. So where a pass of the model has free places, the
proposals that follow if all fail are made at once, and those behind the first success are forgotten.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attacks.balls import bound, length, no_further
from xaicore.attacks.base import Attempt, run
from xaicore.attacks.iterated_sign import NORMS, radius
from xaicore.attacks.iteration import Batch, Iteration, put, rows, select
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks, randomness

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 after which the share of the image that a square covers is halved (Sec. 3.2)."""
AHEAD = 8  # most proposals in a row of one image that share a pass of the model
BLOCK = 512  # queries of an image whose draws are made at once
START = 1  # purpose of the random stream of the first image; the proposals' is 0
TINY = 1e-12  # added to norms that divide, as by the authors


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    eps: float | None = None,
    queries: int = 5000,
    covered: float = 0.8,
    target: int | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Change one random square after the other within an L-infinity or L2 ball, and keep what brings the goal nearer.

    No gradients are used. An image stops as soon as it reaches the goal.

    Args:
        model, images, labels, target, seed, index, batch_size: as in :mod:`xaicore.attacks`; proposals share a pass.
        norm, eps: as in :func:`xaicore.attacks.pgd`.
        queries: most queries of an image, the first image included.
        covered: p, share of the image that the first squares cover; in (0, 1].

    Returns:
        The result; a failed image is the one of largest margin. ``queries`` counts the proposals up to the last one
        needed, and the first image.

    References:
        Andriushchenko, Croce, Flammarion & Hein (2020), Square attack: a query-efficient black-box adversarial attack
        via random search.
    """
    norm = checks.one_of("norm", norm, NORMS)
    attack = Square(
        norm=norm,
        eps=radius(norm, eps),
        queries=checks.integer("queries", queries, least=1),
        covered=checks.positive("covered", covered, most=1),
        seed=checks.integer("seed", seed, least=0),
    )
    return run(attack, model, images, labels, target=target, index=index, batch_size=batch_size)


def share(query: int, queries: int, covered: float) -> float:
    """Return the share of the image that a square covers at a ``query`` of 0..queries - 1; ``covered`` at the first."""
    return covered / 2 ** sum(query * 10_000 // queries > after for after in HALVINGS)


@lru_cache(maxsize=16)
def sides(height: int, width: int, queries: int, covered: float, norm: str) -> Tensor:
    """Return the side of the square in pixels at each query, (queries,) int64; with "l2" odd, and 3 where that fits."""
    most, found = min(height, width), []
    for query in range(queries):
        side = round((share(query, queries, covered) * height * width) ** 0.5)
        found.append(min(max(side, 1), most) if norm == "linf" else min(max(side, 3) | 1, (most - 1) | 1))
    return torch.tensor(found)


@lru_cache(maxsize=64)
def heaps(side: int) -> Tensor:
    """Return two opposed heaps (side, side) of norm 1, one above the other (Sec. 3.4 and Fig. 3)."""
    heap = torch.zeros(side, side)
    upper = side // 2
    heap[:upper], heap[upper:] = _heap(upper, side), -_heap(side - upper, side)
    return heap / heap.norm()


def _heap(height: int, width: int) -> Tensor:
    """Return a heap (height, width) of norm 1: sum over k of 1/(k + 1)^2 on growing rectangles round the middle."""
    heap = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for k in range(max(top, left) + 1):
        rectangle = heap[max(top - k, 0) : top + k + 1, max(left - k, 0) : left + k + 1]
        rectangle += 1 / (k + 1) ** 2
    return heap / heap.norm().clamp(min=TINY)


class _State(NamedTuple):
    best: Tensor  # (n, C, H, W), of largest margin
    low: Tensor  # (n, C, H, W), least value of a point in the L-infinity ball
    high: Tensor  # (n, C, H, W), greatest value
    margin: Tensor  # (n,) float32, of the best
    draws: Tensor  # (n, BLOCK, d) float32 in [0, 1), for the proposals of the current block of queries
    queries: Tensor  # (n,) int64
    done: Tensor  # (n,) bool


@dataclass(frozen=True)
class Square(Iteration[_State]):
    """The attack as one iteration; see :func:`square` for the fields."""

    norm: str
    eps: float
    queries: int
    covered: float
    seed: int

    def start(self, victim: Victim, batch: Batch) -> _State:
        """Return the first image of each and its margin, for one query."""
        images, none = batch.images, torch.zeros_like(batch.number)
        low, high = (bound(images, sign * self.eps) for sign in (-1, 1))
        first = self._striped(batch, low, high) if self.norm == "linf" else self._tiled(batch)
        logits = victim.logits(first)
        done = batch.goal.attained(logits) & batch.goal.reached(logits)
        own = (2 if self.norm == "linf" else 5) + images.shape[1]
        draws = images.new_empty(len(images), min(BLOCK, self.queries), own)
        margin = batch.goal.margin(logits).nan_to_num(-torch.inf)
        return _State(first, low, high, margin, draws, none + 1, done | (self.queries == 1))

    def advance(self, victim: Victim, batch: Batch, state: _State) -> _State:
        """Make as many proposals for each image as fit in a pass, up to its first success."""
        count, block = state.draws.shape[:2]
        if not count:
            return state
        device = state.draws.device
        place = (state.queries - 1) % block
        if (new := (place == 0).nonzero().squeeze(1)).numel():
            number, at = batch.number[new], (state.queries[new] - 1) // block
            drawn = randomness.uniform(self.seed, number, at, state.draws.shape[1:])
            state = state._replace(draws=put(new, drawn, state.draws))
        trials = max(1, min(AHEAD, victim.batch_size // count))
        ahead = torch.arange(trials, device=device)[:, None]
        left = torch.minimum(block - place, self.queries - state.queries)
        draws = state.draws[torch.arange(count, device=device), (place + ahead).clamp(max=block - 1)]
        query = (state.queries - 1 + ahead).clamp(max=self.queries - 1)
        proposals = (self._squares if self.norm == "linf" else self._heaps)(batch, state, query, draws)

        logits = victim.logits(proposals.flatten(0, 1))
        goal = batch.goal if trials == 1 else batch.goal[torch.arange(count, device=device).repeat(trials)]
        attained = (goal.attained(logits) & goal.reached(logits)).view(trials, count)
        margin = goal.margin(logits).view(trials, count)
        better = (margin > state.margin) & (ahead < left)
        works = better.any(dim=0)
        used = torch.where(works, better.int().argmax(dim=0), left.clamp(max=trials) - 1)[None]
        chosen = proposals[0] if trials == 1 else proposals[used[0], torch.arange(count, device=device)]
        queries = state.queries + used[0] + 1
        return state._replace(
            best=select(works, chosen, state.best),
            margin=torch.where(works, margin.gather(0, used)[0], state.margin),
            queries=queries,
            done=(works & attained.gather(0, used)[0]) | (queries == self.queries),
        )

    def finish(self, victim: Victim, batch: Batch, state: _State) -> Attempt:
        """Return the images of largest margin; in an L2 ball, moved towards the clean one by rounding."""
        best = state.best
        if self.norm == "l2":
            best = no_further(best, batch.images, self.eps)
        return Attempt(best, state.queries, {})

    def _windows(self, batch: Batch, query: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return where squares of that query are, (t, n, H, W) bool, their sides, and rows and columns in them.

        ``places`` (t, n, 2) in [0, 1) say where; rows (t, n, H) and columns (t, n, W) count from the square's corner.
        """
        height, width = batch.images.shape[2:]
        side = sides(height, width, self.queries, self.covered, self.norm).to(query.device)[query]
        down, across = (
            torch.arange(size, device=query.device)
            - (places[..., axis] * (size - side + 1)).long().minimum(size - side)[..., None]
            for axis, size in enumerate((height, width))
        )
        within = [(offset >= 0) & (offset < side[..., None]) for offset in (down, across)]
        return within[0][..., None] & within[1][..., None, :], side, down, across

    def _squares(self, batch: Batch, state: _State, query: Tensor, draws: Tensor) -> Tensor:
        """Return proposals (t, n, C, H, W): squares at the edge of the ball, of random signs or, if idle, the others."""
        inside = self._windows(batch, query, draws[..., :2])[0][:, :, None]
        plus = (draws[..., 2:] < 0.5)[..., None, None]
        proposal = torch.where(inside, torch.where(plus, state.high, state.low), state.best)
        idle = (proposal == state.best).flatten(2).all(dim=2)[..., None, None, None]
        return torch.where(inside & idle, torch.where(plus, state.low, state.high), proposal)

    def _heaps(self, batch: Batch, state: _State, query: Tensor, draws: Tensor) -> Tensor:
        """Return proposals (t, n, C, H, W): two heaps with the norm of their square, of a second, and what is left."""
        change = state.best - batch.images
        first, side, down, across = self._windows(batch, query, draws[..., :2])
        second = self._windows(batch, query, draws[..., 2:4])[0][:, :, None]
        turned = draws[..., 4, None, None] < 0.5
        lines, columns = down[..., None].expand(first.shape), across[..., None, :].expand(first.shape)
        lines, columns = torch.where(turned, columns, lines), torch.where(turned, lines, columns)
        sizes, which = side.unique(return_inverse=True)
        most = int(sizes[-1])
        table = torch.zeros(len(sizes), most, most)
        for place, size in enumerate(sizes.tolist()):
            table[place, :size, :size] = heaps(size)
        limits = (lines.clamp(0, most - 1), columns.clamp(0, most - 1))
        shape = table.to(query.device)[which[..., None, None], *limits][:, :, None]
        first = first[:, :, None]
        signs = torch.where(draws[..., 5:] < 0.5, 1.0, -1.0)[..., None, None]
        own, both = change * first, change * (first | second)
        added = (shape * signs + own / (norms(own) + TINY)) * first
        unused = (self.eps**2 - length(change, 2).square()).clamp_(min=0) / change.shape[1]
        available = (norms(both).square() + rows(unused, change)).sqrt()
        changed = change * ~(first | second) + added * (available / (norms(added) + TINY))
        return self._scaled(changed.flatten(0, 1), batch.images, len(query)).view(changed.shape)

    def _striped(self, batch: Batch, low: Tensor, high: Tensor) -> Tensor:
        """Return images with each column of each channel at one edge of the ball."""
        _, channels, _, width = low.shape
        first = torch.zeros_like(batch.number)
        plus = randomness.uniform(self.seed, batch.number, first, (channels, 1, width), purpose=START) < 0.5
        return torch.where(plus, high, low)

    def _tiled(self, batch: Batch) -> Tensor:
        """Return images with a grid of heaps of random signs, five by five in a square image, of norm eps in all."""
        images = batch.images
        count, channels, height, width = images.shape
        tile = max(min(height, width) // 5, 1)
        down, across = height // tile, width // tile
        shape = (channels + 1, down, across, 1, 1)
        drawn = randomness.uniform(
            self.seed, batch.number, torch.zeros_like(batch.number), shape, purpose=START
        )
        heap = heaps(tile).to(images.device)
        tiles = torch.where(drawn[:, :1] < 0.5, heap, heap.T) * torch.where(drawn[:, 1:] < 0.5, 1.0, -1.0)
        tiles = tiles.transpose(3, 4).reshape(count, channels, down * tile, across * tile)
        change = torch.zeros_like(images)
        top, left = (height - down * tile) // 2, (width - across * tile) // 2
        change[:, :, top : top + down * tile, left : left + across * tile] = tiles
        return self._scaled(change, images, 1)

    def _scaled(self, change: Tensor, images: Tensor, times: int) -> Tensor:
        """Return the images, ``times`` over, with the changes scaled to norm eps, clipped to [0, 1]."""
        scale = rows(self.eps / (length(change, 2) + TINY), change)
        return (images.repeat(times, 1, 1, 1) + change * scale).clamp_(0, 1)


def norms(values: Tensor) -> Tensor:
    """Return the L2 norms (…, 1, 1) of channels (…, H, W), by lines first (see :func:`xaicore.attacks.balls.length`)."""
    lines = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return torch.linalg.vector_norm(lines, dim=-2, keepdim=True)
