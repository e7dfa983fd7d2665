"""The same edition on other machines: which verdicts depend on who trained the networks.

Data, parameters and seeds are the same, but another kind of processor rounds otherwise, and a training is a long way from
its first rounding. So another processor trains other networks from the same beginning, as another seed would. A verdict
that comes out the same with them rests on more than one training; one that does not, rests on the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from xaicore.book.claims import Judgement
from xaicore.book.evidence import Verdict
from xaicore.book.ledger import Records, read_verdicts
from xaicore.errors import UserError
from xaicore.files import write_atomically
from xaicore.records import load_record

REPLICATES = Path("claims", "replicates")
"""Where a project keeps them, one file an edition."""


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


def keep_replicate(
    root: Path, edition: str, judgements: Sequence[Judgement], records: Records, *, same: bool
) -> Path:
    """Keep the verdicts of this machine's run beside the committed ones.

    Args:
        root: the project's folder.
        edition: the edition's name.
        judgements: of this build.
        records: what they rest on.
        same: this machine's networks are the committed ones.

    Returns:
        The file.

    Raises:
        UserError: the networks are the committed ones, the file there cannot be read, or the disk is full.
    """
    if same:
        raise UserError(
            "this machine trained the committed networks: a replicate would be the same run again"
        )
    verdicts = {each.claim.id: each.verdict_in(edition) for each in judgements}
    return write_replicate(
        root / REPLICATES, edition, _replicate(_one_record(records.get(edition, {})), verdicts)
    )


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


def moved_verdicts(
    root: Path, edition: str, judgements: Sequence[Judgement], records: Records, *, same: bool
) -> Elsewhere | None:
    """Return the verdicts that other processors came to otherwise; None where none has run this edition.

    Args:
        root: the project's folder.
        edition: the edition's name.
        judgements: of this build.
        records: what they rest on.
        same: this machine's networks are the committed ones; where not, the committed run is one of the others.
    """
    here = _processor(_one_record(records.get(edition, {})))
    runs = [each for each in read_replicates(root / REPLICATES, edition) if each.processor != here]
    committed = read_verdicts(root / "claims" / "verdicts", edition)
    paths = sorted((root / "results" / edition).glob("*/record.json"))
    if committed and paths and not same:
        runs.insert(0, _replicate(load_record(paths[0]), committed))
    return elsewhere(judgements, edition, runs) if runs else None


def _one_record(records: Mapping[str, Any]) -> Mapping[str, Any]:
    record: Mapping[str, Any] = records[min(records)]
    return record


def _processor(record: Mapping[str, Any]) -> str:
    return str(record["provenance"]["device"])


def _replicate(record: Mapping[str, Any], verdicts: Mapping[str, Verdict]) -> Replicate:
    """Return the verdicts of the run that left ``record``, with its machine and commit."""
    return Replicate(_processor(record), str(record["provenance"]["xaicore"]["commit"]), verdicts)


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
