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

from xaicore.book.claims.evidence import Verdict
from xaicore.book.claims.ledger import Records, committed_records, read_verdicts
from xaicore.book.claims.schema import Judgement
from xaicore.core.errors import UserError
from xaicore.core.files import write_atomically
from xaicore.core.machine import machine_name

REPLICATES = Path("claims", "replicates")
"""Where a project keeps them, one file an edition."""


@dataclass(frozen=True)
class Replicate:
    """The verdicts of one run of an edition on another machine.

    Attributes:
        processor: its name.
        commit: of the code that ran; several where chapters ran with different ones.
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
    paths = [
        write_replicate(root / REPLICATES, edition, each)
        for each in _by_machine(records.get(edition, {}), verdicts)
    ]
    return paths[-1]


OtherVerdicts = dict[str, list[tuple[str, Verdict]]]
"""Claim that another processor judged too → processor and verdict of each of its runs that came to another verdict."""


def differing(
    judgements: Sequence[Judgement],
    edition: str,
    replicates: Sequence[Replicate],
    records: Mapping[str, Any],
) -> OtherVerdicts:
    """Return the claims that were judged on another processor, with the verdicts that came out otherwise there.

    Args:
        judgements: of this build.
        edition: whose verdicts to compare.
        replicates: runs of the same edition on other machines.
        records: notebook → record that the judgements rest on; each claim's own says which processor is another.
    """
    found: OtherVerdicts = {}
    for judgement in judgements:
        claim, here = judgement.claim.id, judgement.verdict_in(edition)
        for replicate in replicates:
            if claim in replicate.verdicts and replicate.processor != _processor_of(claim, records):
                others = found.setdefault(claim, [])
                if replicate.verdicts[claim] is not here:
                    others.append((replicate.processor, replicate.verdicts[claim]))
    return found


def other_verdicts(
    root: Path, edition: str, judgements: Sequence[Judgement], records: Records, *, same: bool
) -> OtherVerdicts | None:
    """Return the verdicts that other processors came to otherwise; None where none has run this edition.

    Args:
        root: the project's folder.
        edition: the edition's name.
        judgements: of this build.
        records: what they rest on.
        same: this machine's networks are the committed ones; where not, the committed run is one of the others.
    """
    mine = records.get(edition, {})
    runs = read_replicates(root / REPLICATES, edition)
    committed = read_verdicts(root / "claims" / "verdicts", edition)
    if committed and not same:
        runs = [*_by_machine(committed_records(root, edition), committed), *runs]
    return differing(judgements, edition, runs, mine) if runs else None


def _chapter(name: str) -> str:
    """Return the first word, ``p1``, of a claim's id or a notebook's name."""
    return name.replace(".", "_").split("_")[0]


def _processor_of(claim: str, records: Mapping[str, Any]) -> str | None:
    """Return the processor of the record that a claim rests on, None where there is none."""
    own = (record for name, record in records.items() if _chapter(name) == _chapter(claim))
    return next((machine_name(record["provenance"]) for record in own), None)


def _by_machine(records: Mapping[str, Any], verdicts: Mapping[str, Verdict]) -> list[Replicate]:
    """Return the verdicts of the runs that left ``records``, one replicate for each machine."""
    commits: dict[str, dict[str, None]] = {}
    found: dict[str, dict[str, Verdict]] = {}
    for name, record in records.items():
        mine = {claim: verdict for claim, verdict in verdicts.items() if _chapter(claim) == _chapter(name)}
        if mine:
            machine = machine_name(record["provenance"])
            found.setdefault(machine, {}).update(mine)
            commits.setdefault(machine, {})[str(record["provenance"]["xaicore"]["commit"])] = None
    return [Replicate(machine, ", ".join(commits[machine]), mine) for machine, mine in found.items()]


def differences(
    committed: Mapping[str, Verdict], replicates: Sequence[Replicate], records: Mapping[str, Any]
) -> str:
    """Return, as MyST, which verdicts each replicate reached that the committed run did not.

    Args:
        committed: claim id → verdict of the committed run.
        replicates: runs of the same edition on other machines.
        records: notebook → committed record; each claim's own says which processor is another.
    """
    lines = []
    for replicate in replicates:
        tried = {
            name: verdict
            for name, verdict in committed.items()
            if name in replicate.verdicts and _processor_of(name, records) != replicate.processor
        }
        changed = {
            name: verdict for name, verdict in tried.items() if replicate.verdicts[name] is not verdict
        }
        chapters = ", ".join(dict.fromkeys(_chapter(name).upper() for name in tried))
        head = f"On {replicate.processor} ({chapters or 'no chapter'}), {len(changed) or 'none'} of {len(tried)} verdicts"
        lines += [f"{head} came out otherwise" + (":" if changed else "."), ""]
        lines += [
            f"- {{ref}}`{name} <claim-{name.replace('.', '-')}>`: {replicate.verdicts[name]} instead of {here}"
            for name, here in changed.items()
        ]
        lines += [""]
    return "\n".join(lines) or "No such run is kept yet.\n"
