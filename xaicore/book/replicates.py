"""The same edition on other machines: which verdicts depend on who trained the networks.

Data, parameters and seeds are the same, but another kind of processor rounds otherwise, and a training is a long way from
its first rounding. So another processor trains other networks from the same beginning, as another seed would. A verdict
that comes out the same with them rests on more than one training; one that does not, rests on the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from xaicore.book.claims import Judgement
from xaicore.book.evidence import Verdict
from xaicore.errors import UserError
from xaicore.files import write_atomically


@dataclass(frozen=True)
class Replicate:
    """The verdicts of one run of an edition on another machine.

    Attributes:
        processor: its name.
        commit: of the code that ran.
        verdicts: claim id → verdict.
    """

    processor: str
    commit: str
    verdicts: Mapping[str, Verdict]


def read_replicates(folder: str | Path, edition: str) -> list[Replicate]:
    """Return the committed replicates of an edition, empty where there are none.

    Args:
        folder: ``claims/replicates``.
        edition: the edition's name.

    Raises:
        UserError: the file is not a list of replicates.
    """
    path = Path(folder) / f"{edition}.yml"
    if not path.exists():
        return []
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        return [
            Replicate(
                str(entry["processor"]),
                str(entry["commit"]),
                {str(name): Verdict(text) for name, text in entry["verdicts"].items()},
            )
            for entry in data
        ]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"claims/replicates/{path.name} is not a list of processor, commit and verdicts; restore it, or write it "
            "anew with --verdicts replicate"
        ) from error


def write_replicate(folder: str | Path, edition: str, replicate: Replicate) -> Path:
    """Keep a replicate; it takes the place of one of the same processor.

    Args:
        folder: ``claims/replicates``; made if missing.
        edition: the edition's name.
        replicate: what to keep.

    Returns:
        The file.

    Raises:
        UserError: the file there cannot be read, or the disk is full.
    """
    others = [each for each in read_replicates(folder, edition) if each.processor != replicate.processor]
    plain = [
        {
            "processor": each.processor,
            "commit": each.commit,
            "verdicts": {name: str(verdict) for name, verdict in each.verdicts.items()},
        }
        for each in [*others, replicate]
    ]
    head = (
        f"# Verdicts of the {edition} edition where other processors trained the networks; "
        "written by --verdicts replicate.\n"
    )
    path = Path(folder) / f"{edition}.yml"
    return write_atomically(path, head + yaml.safe_dump(plain, sort_keys=False), what="the replicates")


Elsewhere = dict[str, list[tuple[str, Verdict]]]
"""Claim id → processor and verdict of each run elsewhere that came to another verdict."""


def elsewhere(judgements: Sequence[Judgement], edition: str, replicates: Sequence[Replicate]) -> Elsewhere:
    """Return the claims whose verdict came out otherwise elsewhere.

    Args:
        judgements: of this build.
        edition: whose verdicts to compare.
        replicates: runs of the same edition on other machines.
    """
    found: Elsewhere = {}
    for judgement in judgements:
        here = judgement.verdict_in(edition)
        for replicate in replicates:
            there = replicate.verdicts.get(judgement.claim.id, here)
            if there is not here:
                found.setdefault(judgement.claim.id, []).append((replicate.processor, there))
    return found


def differences(committed: Mapping[str, Verdict], replicates: Sequence[Replicate]) -> str:
    """Return, as MyST, which verdicts each replicate reached that the committed run did not.

    Args:
        committed: claim id → verdict of the committed run.
        replicates: runs of the same edition on other machines.
    """
    lines = []
    for replicate in replicates:
        moved = {
            name: (verdict, replicate.verdicts[name])
            for name, verdict in committed.items()
            if replicate.verdicts.get(name, verdict) is not verdict
        }
        head = f"On {replicate.processor}, {len(moved) or 'none'} of {len(committed)} verdicts came out otherwise"
        lines += [f"{head}:" if moved else f"{head}.", ""]
        lines += [
            f"- {{ref}}`{name} <claim-{name.replace('.', '-')}>`: {there} instead of {here}"
            for name, (here, there) in moved.items()
        ]
        lines += [""]
    return "\n".join(lines) or "No such run is kept yet.\n"
