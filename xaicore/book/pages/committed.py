"""What is committed, and what the links of the prose (:mod:`xaicore.book.pages.words`) are bound to in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xaicore.book.claims.assessment import Judgement
from xaicore.book.claims.evidence import Measured
from xaicore.book.claims.ledger import committed_evidence, judge
from xaicore.book.claims.schema import EDITIONS, Claim, Paper, load_claims
from xaicore.book.pages.statistics import run_label
from xaicore.core.units import UNITS


@dataclass(frozen=True)
class Bound:
    """What a link is bound to: numbers in the unit of pages, where to read more, and what the tooltip says."""

    numbers: tuple[float, ...]
    unit: str
    href: str
    title: str


class Unknown(ValueError):
    """A target that leads nowhere; the message says what to do."""


@dataclass(frozen=True)
class Committed:
    """What is committed: evidence, claims with their verdicts, and the papers' numbers.

    Attributes:
        evidence: edition → notebook → evidence (:mod:`xaicore.run.evidence`), the strongest edition first.
        papers: the papers with their claims.
        judgements: one per claim.
    """

    evidence: Mapping[str, Mapping[str, Mapping[str, Any]]]
    papers: Sequence[Paper]
    judgements: Sequence[Judgement]

    @classmethod
    def load(cls, root: Path) -> Committed:
        """Read ``results/`` and ``claims/`` of a project."""
        papers, evidence = load_claims(root / "claims"), committed_evidence(root)
        return cls(evidence, papers, judge(papers, evidence))

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """The claims by id."""
        return {claim.id: claim for paper in self.papers for claim in paper.claims}

    @cached_property
    def _readers(self) -> dict[str, Claim]:
        """Value's id → the first claim that reads it."""
        return {id: claim for claim in reversed(self.claims.values()) for id in reversed(claim.results)}

    def bound(self, kind: str, target: str, up: str) -> Bound:
        """Return what a link's target stands for.

        Args:
            kind: ``value``, ``paper``, ``parameter`` or ``verdict``.
            target: what follows the colon.
            up: the way from the page to the root of the book, such as ``../``.

        Raises:
            Unknown: it leads nowhere.
        """
        return {
            "value": self._value,
            "paper": self._paper,
            "parameter": self._parameter,
            "verdict": self._verdict,
        }[kind](target, up)

    def _value(self, target: str, up: str) -> Bound:
        edition, rest = _edition(target)
        id, _, part = rest.partition(":")
        for name in [edition] if edition else EDITIONS:
            for notebook, evidence in self.evidence.get(name, {}).items():
                entry = evidence["values"].get(id)
                if entry and part in ("least", "most"):
                    each = [value for value in entry["each"] if value is not None]
                    chosen = min(each) if part == "least" else max(each)
                    entry = {**entry, "value": chosen, "ci": None, "runs": 1}
                measured = entry and Measured.from_record(entry)
                if measured:
                    numbers, unit = self._part(id, measured, part)
                    claim = self._readers.get(id)
                    run = f"book/statistics.html#{run_label(name, notebook)}"
                    href = up + (claim.page if claim else run)
                    return Bound(numbers, unit, href, f"{measured}, {name} edition")
        where = f"the {edition} edition" if edition else "any committed edition"
        raise Unknown(f"no value {id} in {where}; correct the id, or say it without a number")

    @staticmethod
    def _part(id: str, measured: Measured, part: str) -> tuple[tuple[float, ...], str]:
        unit = UNITS[measured.unit].shown
        if part in ("", "least", "most"):
            return (measured.value,), unit
        if part == "ci":
            if measured.interval is None:
                raise Unknown(f"{id} has no interval; leave it out")
            return (measured.low, measured.high), unit
        if part == "n" and measured.n is not None:
            return (measured.n,), ""
        if part == "runs":
            return (measured.runs,), ""
        raise Unknown(f"{id} has no part {part}; there are :ci, :n, :runs, :least and :most")

    def _paper(self, target: str, up: str) -> Bound:
        for paper in self.papers:
            for entry in paper.reported:
                if entry.id == target:
                    claim = self.claims.get(entry.claim or "")
                    every = f"book/claims/{paper.id}.html#every-reported-number"
                    href = up + (claim.page if claim else every)
                    title = f"{paper.short}, {entry.locator}: {entry.label}, {entry.text}"
                    spec = UNITS[entry.unit]
                    return Bound((entry.number / spec.parts,), spec.shown, href, title)
        raise Unknown(f"claims/ has no reported number {target}; correct the id, or add the number there")

    def _parameter(self, target: str, up: str) -> Bound:
        edition, rest = _edition(target)
        short, _, path = rest.partition(".")
        name, _, index = path.partition(".")
        for found in [edition] if edition else EDITIONS:
            for notebook, evidence in self.evidence.get(found, {}).items():
                if notebook == short or notebook.startswith(f"{short}_"):
                    value = evidence["parameters"].get(name)
                    if index.isdecimal() and isinstance(value, list) and int(index) < len(value):
                        value = value[int(index)]
                    if isinstance(value, bool) or not isinstance(value, int | float):
                        raise Unknown(
                            f"{notebook} has no number {path} among its parameters in the {found} edition"
                        )
                    href = f"{up}book/statistics.html#{run_label(found, notebook)}"
                    return Bound((value,), "", href, f"parameter {path} of {notebook}, {found} edition")
        raise Unknown(f"no committed run of {short}; name a notebook, or a chapter as p4")

    def _verdict(self, target: str, up: str) -> Bound:
        id, _, named = target.partition("=")
        judgement = next((each for each in self.judgements if each.claim.id == id), None)
        if judgement is None:
            raise Unknown(f"claims/ has no claim {id}; correct the id")
        verdict = judgement.verdict.replace(" ", "-")
        if verdict not in named.split("|"):
            raise Unknown(f"the verdict on {id} is {verdict}, not {named or 'named'}; say what it says now")
        basis = f", {judgement.edition} edition" if judgement.edition else ""
        return Bound((), "", up + judgement.claim.page, f"{id}: {judgement.verdict}{basis}")


def _edition(target: str) -> tuple[str, str]:
    """Split the name of an edition from what follows the slash."""
    edition, slash, rest = target.partition("/")
    if slash and edition not in EDITIONS:
        raise Unknown(f"no edition {edition}; there are {', '.join(EDITIONS)}")
    return (edition, rest) if slash else ("", target)
