"""Runs comparisons: ours and a peer in turn on the same images, both judged alike."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure, peers
from benchmarks.comparison import Comparison, Peer
from benchmarks.peer_calls import LIBRARIES, SEPARATE, seed
from benchmarks.subjects import SUBJECTS, Subject
from xaicore.attacks import ATTACKS
from xaicore.core.batches import fixed_batch

CPU = torch.device("cpu")
WARM_UP = 2
"""Images of the untimed call before the first timed one."""
TURNS_SECONDS, QUICK_TURNS_SECONDS = 10.0, 0.0
"""A pair starts no new turn after that."""
CALL_SECONDS = 120.0
"""A peer that takes longer for one call is left out."""


@dataclass
class Bench:
    """A run: its settings and what it has found.

    Attributes:
        repeats: most turns of a pair.
        images: most images in a row; None: what the comparison says.
        quick: few turns, so that all rows run once.
        worker: the peers' process, None where there is no environment.
        say: takes a line for the reader.
        left_out: what could not be compared, and why.
    """

    repeats: int
    images: int | None
    quick: bool
    worker: peers.Worker | None
    say: Callable[[str], None]
    left_out: list[str] = field(default_factory=list)

    def rows(self, comparison: Comparison) -> Iterator[dict[str, Any]]:
        """Run one comparison, row by row."""
        for peer in comparison.peers:
            if peer.library in SEPARATE and self.worker is None:
                continue
            try:
                yield from self._pair(comparison, peer)
            except peers.PeerError as error:
                self.leave_out(f"{comparison.name}: {peer.library} {peer.attack}: {error}")

    def _pair(self, comparison: Comparison, peer: Peer) -> Iterator[dict[str, Any]]:
        subject = SUBJECTS[comparison.subject]()
        subject = subject.frail() if comparison.frail else subject
        count = min(comparison.images, peer.images or comparison.images, self.images or comparison.images)
        images, labels = subject.images[:count], subject.labels[:count]
        # With fewer images than a pass of ours holds, the rest of it would be padding: the peers have none.
        few = count < fixed_batch(images.shape, CPU) and not comparison.fills
        fitting: dict[str, Any] = {"batch_size": count} if few else {}
        if comparison.counts:
            fitting[comparison.counts] = count
        variants = {name: {**settings, **peer.ours, **fitting} for name, settings in comparison.ours.items()}
        given = {**variants, "peer": peer.parameters}
        starts = {"starts": other_class(images, labels)} if comparison.starts else {}

        def run(name: str, count: int, draw: int = 0) -> measure.Outcome:
            settings = {**given[name], **{key: tensor[:count] for key, tensor in starts.items()}}
            if name == "peer":
                return self._peer(subject, peer, count, settings, draw)
            settings |= {"seed": draw} if draw else {}
            call = partial(ATTACKS[comparison.attack], subject.model, images[:count], labels[:count])
            return measure.timed(subject.model, partial(call, **settings), count)

        def judge(outcome: measure.Outcome) -> measure.Judged:
            return measure.judge(subject.model, images, labels, outcome.adversarial, comparison.norm)

        for name in given:
            run(name, min(WARM_UP, count))
        seconds = QUICK_TURNS_SECONDS if self.quick else TURNS_SECONDS
        works = {name: partial(run, name, count) for name in given}
        outcomes, turns = measure.interleaved(works, self.repeats, seconds)
        judged = {name: judge(outcome) for name, outcome in outcomes.items()}
        counts = {
            name: [int(each.fooled.sum())]
            + [int(judge(run(name, count, draw)).fooled.sum()) for draw in range(1, comparison.draws)]
            for name, each in judged.items()
        }
        for variant, settings in variants.items():
            goal = peer.goal if variant in (comparison.held_to or variants) else None
            ratio = outcomes["peer"].seconds / outcomes[variant].seconds
            found = measure.report(judged[variant], judged["peer"])
            if comparison.draws > 1:
                for side, name in (("ours", variant), ("peer", "peer")):
                    found[side]["fooled"] = sum(counts[name]) / len(counts[name])
            ours, theirs = found["ours"], found["peer"]
            fooled = ours["fooled"] + measure.chance(counts[variant], counts["peer"]), theirs["fooled"]
            distances = (ours["median_distance"], theirs["median_distance"])
            misses = measure.misses(ratio, goal, fooled, distances if comparison.minimises else (None, None))
            sides = {
                side: {
                    "parameters": parameters,
                    **found[side],
                    "ms_per_image": 1e3 * outcomes[name].seconds / count,
                    "passes_per_image": outcomes[name].passes,
                }
                for side, name, parameters in (("ours", variant, settings), ("peer", "peer", peer.parameters))
            }
            yield measure.rounded(
                {
                    "name": comparison.name,
                    "attack": comparison.attack,
                    "subject": comparison.subject,
                    "n": count,
                    "norm": comparison.norm,
                    "variant": variant,
                    "library": peer.library,
                    "peer_attack": peer.attack,
                    "note": peer.note,
                    **sides,
                    "both_fooled": found["both_fooled"],
                    "turns": turns,
                    "ratio": ratio,
                    "goal": goal,
                    "met": not misses,
                    "misses": misses,
                }
            )

    def _peer(
        self, subject: Subject, peer: Peer, count: int, settings: dict[str, Any], draw: int = 0
    ) -> measure.Outcome:
        images, labels = subject.images[:count], subject.labels[:count]
        if peer.library in SEPARATE:
            assert self.worker is not None
            return measure.Outcome(
                *self.worker.attack(
                    subject, peer.library, peer.attack, images, labels, settings, CALL_SECONDS, draw
                )
            )
        try:
            call = LIBRARIES[peer.library](peer.attack, subject.model, images, labels, **settings)
            seed(draw)
            return measure.timed(subject.model, call, count)
        except Exception as error:
            raise peers.PeerError(f"{type(error).__name__}: {error}".splitlines()[0]) from error

    def leave_out(self, why: str) -> None:
        """Note and say what cannot be compared."""
        self.left_out.append(why)
        self.say(f"left out: {why}")


def other_class(images: Tensor, labels: Tensor) -> Tensor:
    """Return for each of the images the next one of another class, to start from; (N, C, H, W) as ``images``.

    Raises:
        ValueError: all are of one class.
    """
    different = labels[:, None] != labels
    if not different.any(dim=1).all():
        raise ValueError("images must be of more than one class")
    count = len(labels)
    ahead = (torch.arange(count) - torch.arange(count)[:, None]) % count
    return images[ahead.where(different, count).argmin(dim=1)]
