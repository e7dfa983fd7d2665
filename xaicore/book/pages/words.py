"""Numbers in prose, bound to what they come from.

In the Markdown of pages and notebooks the target of a link says where a number comes from, and the link reads as plain
text where nothing fills it in::

    [96 %](value:p4.aware.pgd)              a committed value, of the strongest edition that has it
    [96 %](value:embedded/p4.aware.pgd)     of this edition
    [[91, 100]](value:p4.aware.pgd:ci)      its 95 % interval; :n images, :runs runs, and the
                                            :least and :most of the runs
    [1 %](paper:p4.adaptive.success)        a number that a paper reports, from claims/
    [224](parameter:p4.size)                a parameter of the strongest edition, or parameter:embedded/p4.size;
                                            one of a list: parameter:p4.eps.0
    [hardly moves](verdict:p4.claim=reproduced|partly)   words that hold as long as the claim has one of these verdicts
    [8/255](setting:)                       a number that is no result of a run

The page has the committed number, written as the author wrote it: as many decimals, the same unit, in figures or as a
word. It links to the claim that reads it, or to the run in the statistics. A target that leads nowhere, a verdict that is
another, and a number that looks like a result and is bound to nothing stop the build; only the pages of
:data:`NOT_YET_BOUND` may still have the last. A number that is written otherwise than it is committed is told, no more::

    python -m xaicore.book.pages.words            what does not fit in the pages' sources
    python -m xaicore.book.pages.words --write    write the committed numbers into them
"""

from __future__ import annotations

import argparse
import html
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat

from xaicore.book.claims.evidence import Measured
from xaicore.book.claims.ledger import committed_evidence, judge
from xaicore.book.claims.schema import EDITIONS, Claim, Judgement, Paper, load_claims
from xaicore.book.pages.statistics import run_label
from xaicore.book.pages.unbound import WORDS, unbound, without_code
from xaicore.core.units import UNITS, number, quantity
from xaicore.run.repository import find_root

NOT_YET_BOUND = frozenset(
    {
        "notebooks/p1_inspecting_attacks.ipynb",
        "notebooks/p2_gradcam_shift.ipynb",
        "notebooks/p3_layer_by_layer.ipynb",
        "notebooks/p5_explainer.ipynb",
    }
)
"""Pages whose prose may still have numbers that are bound to nothing."""

LOOSE = (
    "is bound to nothing; link it as [96 %](value:id), (paper:id) or (parameter:p4.name), mark it as (setting:) if it is "
    "no result, or say it without a number"
)

LINK = re.compile(
    r"\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])+)\]"
    r"\((?P<kind>value|paper|parameter|verdict|setting):(?P<target>[^()\s]*)\)"
)
_WRITTEN = re.compile(r"(?<![\w.,/])[+−-]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?")
_SPELLED = re.compile(rf"\b(?:{'|'.join(WORDS.values())})\b", re.IGNORECASE)
_UNIT = re.compile(
    r"[\]\s\u00a0]*(?P<unit>%|per cent\b|percent\b|points?\b|bits?\b|dB\b|logits?\b|[x×](?!\w)|times\b)"
)
_SHOWN = {
    "per cent": "%",
    "percent": "%",
    "point": "points",
    "bit": "bits",
    "logit": "logits",
    "x": "",
    "×": "",
    "times": "",
}


@dataclass(frozen=True)
class Finding:
    """What does not fit in a page.

    Attributes:
        page: its path in the repository.
        where: the line of a page, the cell of a notebook (both from 1), as in ``cell 7``.
        what: what it is, and what to do.
        stops: whether a book with it is not to be built; else the page already shows what is right.
    """

    page: str
    where: str
    what: str
    stops: bool = True

    def __str__(self) -> str:
        return f"{self.page}, {self.where}: {self.what}"


@dataclass(frozen=True)
class _Bound:
    """What a link is bound to: numbers in the unit of pages, where to read more, and what the tooltip says."""

    numbers: tuple[float, ...]
    unit: str
    href: str
    title: str


class _Unknown(ValueError):
    """A target that leads nowhere; the message says what to do."""


class _Unfit(ValueError):
    """A text that does not fit its target; the message says what to do."""


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

    def bound(self, kind: str, target: str, up: str) -> _Bound:
        """Return what a link's target stands for.

        Args:
            kind: ``value``, ``paper``, ``parameter`` or ``verdict``.
            target: what follows the colon.
            up: the way from the page to the root of the book, such as ``../``.

        Raises:
            _Unknown: it leads nowhere.
        """
        return {
            "value": self._value,
            "paper": self._paper,
            "parameter": self._parameter,
            "verdict": self._verdict,
        }[kind](target, up)

    def _value(self, target: str, up: str) -> _Bound:
        edition, rest = _edition(target)
        id, _, part = rest.partition(":")
        for name in [edition] if edition else EDITIONS:
            for notebook, evidence in self.evidence.get(name, {}).items():
                entry = evidence["values"].get(id)
                if entry and part in ("least", "most"):
                    each = [value for value in entry["each"] if value is not None]
                    entry = {
                        **entry,
                        "value": min(each) if part == "least" else max(each),
                        "ci": None,
                        "runs": 1,
                    }
                measured = entry and Measured.from_record(entry)
                if measured:
                    numbers, unit = self._part(id, measured, part)
                    claim = self._readers.get(id)
                    href = (
                        self._ledger(claim, up)
                        if claim
                        else f"{up}book/statistics.html#{run_label(name, notebook)}"
                    )
                    return _Bound(numbers, unit, href, f"{measured}, {name} edition")
        where = f"the {edition} edition" if edition else "any committed edition"
        raise _Unknown(f"no value {id} in {where}; correct the id, or say it without a number")

    @staticmethod
    def _part(id: str, measured: Measured, part: str) -> tuple[tuple[float, ...], str]:
        unit = UNITS[measured.unit].shown
        if part in ("", "least", "most"):
            return (measured.value,), unit
        if part == "ci":
            if measured.interval is None:
                raise _Unknown(f"{id} has no interval; leave it out")
            return (measured.low, measured.high), unit
        if part == "n" and measured.n is not None:
            return (measured.n,), ""
        if part == "runs":
            return (measured.runs,), ""
        raise _Unknown(f"{id} has no part {part}; there are :ci, :n, :runs, :least and :most")

    def _paper(self, target: str, up: str) -> _Bound:
        for paper in self.papers:
            for entry in paper.reported:
                if entry.id == target:
                    claim = self.claims.get(entry.claim or "")
                    href = (
                        self._ledger(claim, up)
                        if claim
                        else f"{up}book/claims/{paper.id}.html#every-reported-number"
                    )
                    qualifier = f"{entry.qualifier} " if entry.qualifier else ""
                    said = f"{qualifier}{quantity(entry.number, entry.unit, 8)}"
                    title = f"{paper.short}, {entry.locator}: {entry.label}, {said}"
                    spec = UNITS[entry.unit]
                    return _Bound((entry.number / spec.parts,), spec.shown, href, title)
        raise _Unknown(f"claims/ has no reported number {target}; correct the id, or add the number there")

    def _parameter(self, target: str, up: str) -> _Bound:
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
                        raise _Unknown(
                            f"{notebook} has no number {path} among its parameters in the {found} edition"
                        )
                    href = f"{up}book/statistics.html#{run_label(found, notebook)}"
                    return _Bound((value,), "", href, f"parameter {path} of {notebook}, {found} edition")
        raise _Unknown(f"no committed run of {short}; name a notebook, or a chapter as p4")

    def _verdict(self, target: str, up: str) -> _Bound:
        id, _, named = target.partition("=")
        judgement = next((each for each in self.judgements if each.claim.id == id), None)
        if judgement is None:
            raise _Unknown(f"claims/ has no claim {id}; correct the id")
        verdict = judgement.verdict.replace(" ", "-")
        if verdict not in named.split("|"):
            raise _Unknown(f"the verdict on {id} is {verdict}, not {named or 'named'}; say what it says now")
        basis = f", {judgement.edition} edition" if judgement.edition else ""
        return _Bound((), "", self._ledger(judgement.claim, up), f"{id}: {judgement.verdict}{basis}")

    @staticmethod
    def _ledger(claim: Claim, up: str) -> str:
        return f"{up}book/claims/{claim.paper}.html#{claim.anchor}"


def bind(
    text: str, committed: Committed, up: str = "../", *, source: bool = False
) -> tuple[str, list[tuple[int, str, bool]]]:
    """Fill in the bound numbers of Markdown.

    Args:
        text: Markdown.
        committed: what is committed.
        up: the way from the page to the root of the book.
        source: keep the links, and correct only the numbers in them.

    Returns:
        The text as the page has it, and what does not fit: the place in ``text``, what, and whether it stops a build.
    """
    faults: list[tuple[int, str, bool]] = []
    prose = without_code(text)

    def fill(link: re.Match[str]) -> str:
        if prose[link.start()] == "\0":
            return link[0]
        kind, target, words = link["kind"], link["target"], link["text"]
        if kind == "setting":
            return link[0] if source else words
        try:
            bound = committed.bound(kind, target, up)
            written = _written(
                words, bound, text[link.end() : link.end() + 12], check_unit=kind != "parameter"
            )
        except (_Unknown, _Unfit) as error:
            faults.append((link.start(), str(error), True))
            return link[0] if source else words
        if written != words:
            what = f"says {words}, {kind}:{target} is {written}; the page shows {written}, correct the text"
            faults.append((link.start(), " ".join(what.split()), False))
        if source:
            return f"[{written}]({kind}:{target})"
        title = html.escape(bound.title.replace("`", ""), quote=True)
        kinds = "bound number" if bound.numbers else "bound"
        return f'<a class="{kinds}" href="{bound.href}" title="{title}">{written}</a>'

    return LINK.sub(fill, text), faults


def page_findings(page: str, path: Path, committed: Committed) -> list[Finding]:
    """Check the prose of a page.

    Args:
        page: its path in the repository, such as ``notebooks/p4_heat_and_blur.ipynb``.
        path: the file to read, for a notebook the source or as it was executed.
        committed: what is committed.
    """
    findings = []
    for place, text in _parts(path):
        for position, what, stops in bind(text, committed)[1]:
            findings.append(Finding(page, place or _line(text, position), what, stops))
        for position, words in unbound(text) if page not in NOT_YET_BOUND else ():
            findings.append(Finding(page, place or _line(text, position), f"{words} {LOOSE}"))
    return findings


def findings(root: Path, notebooks: Mapping[str, Path]) -> list[Finding]:
    """Check the prose of all pages.

    Args:
        root: the project's folder.
        notebooks: name → notebook, the source or as it was executed.
    """
    committed = Committed.load(root)
    pages = {f"book/{path.name}": path for path in sorted((root / "book").glob("*.md"))}
    pages |= {f"notebooks/{name}.ipynb": path for name, path in notebooks.items()}
    return [found for page, path in pages.items() for found in page_findings(page, path, committed)]


def correct(path: Path, committed: Committed) -> None:
    """Write the committed numbers into the source of a page, in the form in which they are written there."""
    if path.suffix == ".md":
        path.write_text(bind(path.read_text(encoding="utf-8"), committed, source=True)[0], encoding="utf-8")
        return
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = bind(cell.source, committed, source=True)[0]
    nbformat.write(notebook, path)


def bind_pages(root: Path, staged: Path) -> None:
    """Fill in the bound numbers of all staged pages.

    Args:
        root: the project's folder.
        staged: the tree that Sphinx builds, with ``book`` and ``notebooks``.
    """
    committed = Committed.load(root)
    for path in (staged / "book").glob("*.md"):
        path.write_text(bind(path.read_text(encoding="utf-8"), committed)[0], encoding="utf-8")
    for path in (staged / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = bind(cell.source, committed)[0]
        nbformat.write(notebook, path)


def _parts(path: Path) -> list[tuple[str, str]]:
    """Return what is prose in a file: the cell (nothing for a page of Markdown) and its text."""
    if path.suffix == ".md":
        return [("", path.read_text(encoding="utf-8"))]
    cells = enumerate(nbformat.read(path, as_version=4).cells, start=1)
    return [(f"cell {position}", cell.source) for position, cell in cells if cell.cell_type == "markdown"]


def _line(text: str, position: int) -> str:
    return f"line {text.count(chr(10), 0, position) + 1}"


def _edition(target: str) -> tuple[str, str]:
    """Split the name of an edition from what follows the slash."""
    edition, slash, rest = target.partition("/")
    if slash and edition not in EDITIONS:
        raise _Unknown(f"no edition {edition}; there are {', '.join(EDITIONS)}")
    return (edition, rest) if slash else ("", target)


def _written(words: str, bound: _Bound, after: str, *, check_unit: bool) -> str:
    """Return the words of a link with its numbers as they are committed.

    Raises:
        _Unfit: they have not as many numbers as the target, or another unit.
    """
    if not bound.numbers:
        loose = next(unbound(words), None)
        if loose:
            raise _Unfit(f"{loose[1]} stands in the words of a verdict; bind the number on its own")
        return words
    places = list(_WRITTEN.finditer(words)) or list(_SPELLED.finditer(words))
    if len(places) != len(bound.numbers):
        wanted = "one number" if len(bound.numbers) == 1 else f"{len(bound.numbers)} numbers"
        raise _Unfit(f"'{words}' must have {wanted} to be filled in; put the link around it alone")
    unit = _UNIT.match(words[places[-1].end() :] + after) if check_unit else None
    if unit and _SHOWN.get(unit["unit"], unit["unit"]) != bound.unit:
        raise _Unfit(
            f"'{words}' is in {unit['unit']}, the number in {bound.unit or 'no unit'}; write its unit"
        )
    for place, value in reversed(list(zip(places, bound.numbers, strict=True))):
        words = words[: place.start()] + _as_written(value, place[0]) + words[place.end() :]
    return words


def _as_written(value: float, written: str) -> str:
    """Return a number in the form in which another was written: as many decimals, a fraction, or a word."""
    if written.lower() in WORDS.values():
        word = WORDS.get(round(value), f"{round(value):,}")
        return word.capitalize() if written[0].isupper() else word
    if "/" in written:
        below = int(written.split("/")[1])
        above = value * below
        whole = math.isclose(above, round(above), rel_tol=1e-6)
        return f"{round(above)}/{below}" if whole else number(value)
    text = f"{value:z,.{len(written.partition('.')[2])}f}"
    if "," not in written and abs(value) < 10_000:
        text = text.replace(",", "")
    return ("+" if written.startswith("+") and value > 0 else "") + text.replace("-", "−")


def main() -> int:
    """Check the sources of the pages, or correct their numbers; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m xaicore.book.pages.words", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the committed numbers into the sources")
    root = find_root()
    sources = {path.stem: path for path in sorted((root / "notebooks").glob("*.ipynb"))}
    if parser.parse_args().write:
        committed = Committed.load(root)
        for path in [*(root / "book").glob("*.md"), *sources.values()]:
            correct(path, committed)
    found = findings(root, sources)
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
