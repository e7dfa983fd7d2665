"""A comparison as data: one of our attacks, its settings, and its peers."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Peer:
    """One library's attack.

    Attributes:
        library: a name in ``peer_calls.LIBRARIES``.
        attack: the attack's name there.
        parameters: its settings.
        goal: how many times as fast ours shall be; None without a goal.
        images: how many at most, for slow ones; ours then gets as many.
        ours: settings of ours that differ for this peer.
        note: what a reader should know about the peer.
    """

    library: str
    attack: str
    parameters: dict[str, Any]
    goal: float | None = None
    images: int | None = None
    ours: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """One of our attacks with its settings, and its peers.

    Attributes:
        name: of the comparison; that of the attack, or with the norm where there are several.
        attack: our name, in ``xaicore.attacks.ATTACKS``.
        subject: a name in ``subjects.SUBJECTS``.
        images: how many.
        norm: in which distances are reported.
        ours: settings by variant.
        peers: whom to compare with.
        minimises: whether the attack looks for the smallest change, so that distances are compared too.
        starts: whether all are given the same images to start from.
        counts: a setting of ours that is the number of images; empty for none.
        held_to: the variants that the peers' goals apply to; all where empty.
        frail: whether the images are those nearest to another class; the attack fools few others.
        draws: how often success is judged, each time from other random starts; fooled is the mean.
        fills: whether the attack fills its passes even with few images, with several candidates of each.
    """

    name: str
    attack: str
    subject: str
    images: int
    norm: str
    ours: dict[str, dict[str, Any]]
    peers: tuple[Peer, ...]
    minimises: bool = False
    starts: bool = False
    counts: str = ""
    held_to: tuple[str, ...] = ()
    frail: bool = False
    draws: int = 1
    fills: bool = False
