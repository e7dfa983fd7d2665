"""Iterative attacks: many images in one batch, each at a step of its own.

An attack with steps keeps what it knows of n images in a named tuple of tensors (n, ...), which may hold further such
tuples. As many images as a pass of the model holds are active at a time; one that is done leaves and the next takes
its place, so that passes stay full although every image stops when it has reached its own end, and memory does not
grow with N. Beside which others an image runs changes nothing for it (see :mod:`xaicore.attacks.victim`).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from xaicore.attacks.base import Attempt, Opening
from xaicore.attacks.goal import Goal
from xaicore.attacks.victim import Victim


class Aim(NamedTuple):
    """One of several wrong classes that an attack aims at, each with starts of its own."""

    classes: Tensor  # (n,) int64
    turn: Tensor  # (n,) int64, the place of the class among them


class Batch(NamedTuple):
    """The active images."""

    images: Tensor  # (n, C, H, W) on the victim's device
    labels: Tensor  # (n,) int64
    target: Tensor | None  # (n,) int64; None if the attack is untargeted
    number: Tensor  # (n,) int64, the image's own in its set, for its random stream
    place: Tensor  # (n,) int64, where the image stands among all of the call
    opening: Opening | None = (
        None  # of new images, for an attack that begins with the gradient at the clean ones
    )
    aim: Aim | None = None  # what an untargeted attack goes for

    @property
    def goal(self) -> Goal:
        """What to reach."""
        return Goal(self.labels, self.target)


class HasDone(Protocol):
    """A named tuple of tensors (n, ...) that says where nothing is left to do."""

    @property
    def done(self) -> Tensor:
        """(n,) bool."""
        ...


State = TypeVar("State", bound=HasDone)
Rows = TypeVar("Rows")


class Iteration(Generic[State]):
    """An attack as a state and what one step does to it. Rows never look at each other."""

    @abstractmethod
    def start(self, victim: Victim, batch: Batch) -> State:
        """Return the state of new images."""

    @abstractmethod
    def advance(self, victim: Victim, batch: Batch, state: State) -> State:
        """Return the state after one step of each image; none of them was done."""

    @abstractmethod
    def finish(self, victim: Victim, batch: Batch, state: State) -> Attempt:
        """Return the attempt for images that are done, possibly none at all."""

    def __call__(
        self,
        victim: Victim,
        images: Tensor,
        goal: Goal,
        index: Tensor,
        opening: Opening | None = None,
        *,
        aim: Aim | None = None,
    ) -> Attempt:
        """Attack ``images`` (n, C, H, W), ``victim.batch_size`` of them at a time; a step of the base."""
        everyone = torch.arange(len(images), device=images.device)
        waiting = Batch(images, goal.labels, goal.target, index, everyone, opening, aim)
        batch = rows_of(waiting, slice(0, victim.batch_size))
        state, batch = self.start(victim, batch), batch._replace(opening=None)
        entered = len(batch.place)
        places = [everyone[:0]]
        pieces = [self.finish(victim, rows_of(batch, slice(0, 0)), rows_of(state, slice(0, 0)))]
        while len(batch.place):
            ended = state.done.nonzero().squeeze(1)
            if len(ended):
                leaving = rows_of(batch, ended)
                places.append(leaving.place)
                pieces.append(self.finish(victim, leaving, rows_of(state, ended)))
                active = (~state.done).nonzero().squeeze(1)
                batch, state = rows_of(batch, active), rows_of(state, active)
            # New images come a quarter of a batch at a time: a start may cost a pass of its own.
            free = victim.batch_size - len(batch.place)
            if entered < len(images) and free >= max(1, victim.batch_size // 4):
                new = rows_of(waiting, slice(entered, entered + free))
                entered += len(new.place)
                state, new = joined(state, self.start(victim, new)), new._replace(opening=None)
                batch = joined(batch, new)
            if not state.done.any():
                state = self.advance(victim, batch, state)
        order = torch.cat(places).argsort()
        return Attempt(
            torch.cat([piece.adversarial for piece in pieces])[order],
            torch.cat([piece.queries for piece in pieces])[order],
            {name: torch.cat([piece.info[name] for piece in pieces])[order] for name in pieces[0].info},
        )


def rowwise(function: Callable[..., Tensor], *states: Rows) -> Rows:
    """Return the state whose tensors are ``function`` of the tensors of ``states``; None stays None."""
    first: Any = states[0]
    if isinstance(first, Tensor):
        return function(*states)  # type: ignore[return-value]
    if first is None:
        return states[0]
    parts = zip(*states, strict=True)  # type: ignore[call-overload]
    return type(first)(*(rowwise(function, *part) for part in parts))  # type: ignore[no-any-return]


def rows_of(state: Rows, which: Tensor | slice) -> Rows:
    """Return the rows ``which`` of every tensor."""
    return rowwise(lambda tensor: tensor[which], state)


def joined(*states: Rows) -> Rows:
    """Return the rows of all ``states``, one after the other."""
    return rowwise(lambda *tensors: torch.cat(tensors), *states)


def select(condition: Tensor, new: Rows, old: Rows) -> Rows:
    """Return ``new`` in the rows where ``condition`` (n,) holds and ``old`` in the others."""
    return rowwise(lambda a, b: b if a is b else torch.where(rows(condition, b), a, b), new, old)


def put(which: Tensor, new: Rows, old: Rows) -> Rows:
    """Return ``old`` with its rows ``which`` (m,) replaced by those of ``new`` (m, ...)."""
    return rowwise(lambda a, b: b.index_copy(0, which, a), new, old)


def rows(condition: Tensor, like: Tensor) -> Tensor:
    """Return ``condition`` (n,) with dimensions of length 1 appended, to broadcast against ``like`` (n, ...)."""
    return condition.view(-1, *[1] * (like.ndim - 1))
