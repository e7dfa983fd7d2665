"""Iterative attacks, many images side by side and each at its own step.

An attack with steps keeps what it knows of an image in tensors whose first dimension counts images. As many
images as a pass of the model holds are under way at a time; one that is done leaves and the next in line takes
its place, so that passes stay full although every image stops when it has reached its own end, and memory does
not grow with N. Where an image runs, and beside which others, changes nothing for it (see
:mod:`xaicore.attacks.victim`).
"""

from typing import Protocol

import torch
from torch import Tensor

from xaicore.attacks.base import Attempt
from xaicore.attacks.goal import Goal
from xaicore.attacks.victim import Victim

State = dict[str, Tensor]
"""What an attack knows of n images: tensors (n, ...) on the victim's device.

``start`` fills it, ``advance`` changes it. The lanes add ``images``, ``labels``, ``target`` (targeted only),
``index`` and ``done``, (n,) bool; the attack sets ``done`` where nothing is left to do.
"""


class Iteration(Protocol):
    """An attack as a state and what one step does to it. Rows never look at each other."""

    def start(self, victim: Victim, state: State) -> State:
        """Return the attack's own entries for new images; ``done`` may be among them."""
        ...

    def advance(self, victim: Victim, state: State) -> State:
        """Return the entries after one step, those that changed at least; ``done`` among them."""
        ...

    def finish(self, victim: Victim, state: State) -> Attempt:
        """Return the attempt for images that are done."""
        ...


def goal(state: State) -> Goal:
    """Return the goal of the images in ``state``."""
    return Goal(state["labels"], state.get("target"))


def rows(condition: Tensor, like: Tensor) -> Tensor:
    """Return ``condition`` (n,) with dimensions of length 1 appended, to broadcast against ``like`` (n, ...)."""
    return condition.view(-1, *[1] * (like.ndim - 1))


def in_lanes(attack: Iteration, victim: Victim, images: Tensor, goal: Goal, index: Tensor) -> Attempt:
    """Run ``attack`` on ``images`` (n, C, H, W), ``victim.batch_size`` of them at a time.

    Args:
        attack: start, step and end.
        victim: the model.
        images: (n, C, H, W) on the victim's device; n may be 0.
        goal: what to reach.
        index: (n,) int64, for each image's own random stream.

    Returns:
        The attempts, in the order of ``images``.
    """
    line: State = {"images": images, "labels": goal.labels, "index": index}
    if goal.target is not None:
        line["target"] = goal.target
    line["place"] = torch.arange(len(images), device=images.device)
    state = _started(attack, victim, line, slice(0, victim.batch_size))
    entered = min(victim.batch_size, len(images))
    pieces, places = [attack.finish(victim, _take(state, slice(0, 0)))], [line["place"][:0]]
    while len(state["done"]):
        ended = state["done"].nonzero().squeeze(1)
        if len(ended):
            leaving = _take(state, ended)
            pieces.append(attack.finish(victim, leaving))
            places.append(leaving["place"])
            state = _take(state, (~state["done"]).nonzero().squeeze(1))
        # New images come a quarter of a batch at a time: a start may cost a pass of its own.
        free = victim.batch_size - len(state["done"])
        if entered < len(images) and free >= max(1, victim.batch_size // 4):
            new = _started(attack, victim, line, slice(entered, entered + free))
            entered += len(new["done"])
            state = {name: torch.cat([state[name], new[name]]) for name in state}
        if not state["done"].any():
            state = {**state, **attack.advance(victim, state)}
    order = torch.cat(places).argsort()
    return Attempt(
        torch.cat([piece.adversarial for piece in pieces])[order],
        torch.cat([piece.queries for piece in pieces])[order],
        {name: torch.cat([piece.info[name] for piece in pieces])[order] for name in pieces[0].info},
    )


def _started(attack: Iteration, victim: Victim, line: State, which: slice) -> State:
    state = {name: tensor[which] for name, tensor in line.items()}
    state["done"] = torch.zeros(len(state["images"]), dtype=torch.bool, device=state["images"].device)
    return {**state, **attack.start(victim, state)}


def _take(state: State, which: slice | Tensor) -> State:
    return {name: tensor[which] for name, tensor in state.items()}
