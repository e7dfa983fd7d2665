"""What the papers claim and report: the schema of ``claims/pN.yml`` and its loader.

A file holds one paper: its bibliographic head, every number it reports (``reported``), and its claims, each
with the rule that judges it (:mod:`xaicore.book.claims.rules`) and the ids of the recorded numbers (``results``)
that rule reads. A claim of kind *internal-consistency* is judged from the paper's own reported numbers and
reads no result; any other says what its control is. ``units`` lists the units of the record ids, so that a check that
compares different ones, or has a threshold that its number cannot reach, is refused here.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from xaicore.book.claims.evidence import Evidence
from xaicore.book.claims.rules import Check, Rule, evaluate, substituted
from xaicore.book.claims.simple_rules import Units
from xaicore.core.errors import UserError
from xaicore.core.units import check_range, known_unit, number, quantity

Edition = Literal["paper", "reference", "embedded"]
EDITIONS: tuple[Edition, ...] = ("paper", "reference", "embedded")
"""The editions a claim may be tested in, the largest first."""

Kind = Literal["value", "ordering", "trend", "qualitative", "internal-consistency"]


def _like(pattern: str, what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is not {what}")
        return text

    return AfterValidator(check)


RecordWord = Annotated[str, _like(r"p[1-9]\d*(\.[a-z0-9_]+)*", "the beginning of a record id")]
RecordId = Annotated[str, _like(r"p[1-9]\d*(\.[a-z0-9_]+)+", "a record id such as p1.accuracy.clear.fgsm")]
ClaimId = Annotated[str, _like(r"p[1-9]\d*(\.[a-z0-9]+(-[a-z0-9]+)*)+", "a claim id such as p1.fgsm-drop")]
Text = Annotated[str, Field(min_length=1)]
UnitName = Annotated[str | None, AfterValidator(known_unit)]
ListedUnit = Annotated[str | None, BeforeValidator(lambda unit: None if unit == "number" else unit), UnitName]


def _listed(data: object) -> object:
    return [data] if isinstance(data, dict) else data


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reported(_Strict):
    """One number the paper reports: where it stands, what it is, which claim and result of ours it meets."""

    id: RecordId
    locator: Text
    label: Text
    number: float
    unit: UnitName = None
    qualifier: Literal["about", "at most", "at least", "less than", "more than"] | None = None
    claim: ClaimId | None = None
    result: RecordId | None = None

    @model_validator(mode="after")
    def _in_range(self) -> Reported:
        check_range("the number", self.number, self.unit)
        return self

    @property
    def text(self) -> str:
        """The number with its unit, and whether it is a bound."""
        return f"{self.qualifier + ' ' if self.qualifier else ''}{quantity(self.number, self.unit, 8)}"


class Control(_Strict):
    """A placebo that has to fail the rule of a claim, or one line why there is none or which is missing.

    ``placebo`` completes the sentence "so does …". It is put through the claim's own check with other record ids
    (``instead``: beginning of an id → what takes its place), or through a ``check`` of its own.
    """

    placebo: Text | None = None
    instead: dict[RecordId, RecordId] = Field(default_factory=dict)
    check: Check | None = None
    none: Text | None = None
    missing: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Control:
        if sum(word is not None for word in (self.placebo, self.none, self.missing)) != 1:
            raise ValueError("give one of 'placebo' (its name), 'none' (why) and 'missing' (which)")
        if bool(self.instead) + (self.check is not None) != (self.placebo is not None):
            raise ValueError("a placebo, and nothing else, has 'instead' or 'check'")
        return self

    def rule(self, check: Rule) -> Rule:
        """What the placebo has to fail, for the claim's own check."""
        return self.check or substituted(check, self.instead)


class Earlier(_Strict):
    """A check that the claim had before: until which day, and why it was changed."""

    date: datetime.date
    check: Check
    reason: Text


class Claim(_Strict):
    """One statement of a paper that a measurement can contradict, and the rule that judges it.

    ``check`` holds for every edition unless ``check_in`` names another for it; ``results`` are the record
    ids shown with the claim, the most telling first; ``reported`` is what the paper gives for it, a number,
    several, or a short text. ``control`` is what must not satisfy the check as well, one or a list. ``history`` are
    the checks that the claim had before.
    """

    id: ClaimId
    paper: str
    locator: Text
    statement: Text
    kind: Kind
    reported: float | tuple[float, ...] | str | None = None
    unit: UnitName = None
    check: Check
    check_in: dict[Edition, Check] = Field(default_factory=dict)
    control: Annotated[tuple[Control, ...], BeforeValidator(_listed)] = ()
    history: tuple[Earlier, ...] = ()
    results: tuple[RecordId, ...] = ()
    editions: tuple[Edition, ...] = EDITIONS
    note: str = ""

    @property
    def anchor(self) -> str:
        """The label of the claim's block on its ledger page."""
        return "claim-" + self.id.replace(".", "-")

    @property
    def page(self) -> str:
        """The address of that block, from the root of the book."""
        return f"book/claims/{self.paper}.html#{self.anchor}"

    @property
    def internal(self) -> bool:
        """Whether the claim is about the paper's own numbers and needs no run."""
        return self.kind == "internal-consistency"

    @property
    def reported_text(self) -> str:
        """What the paper gives for the claim, as text; empty where it gives nothing."""
        if self.reported is None or isinstance(self.reported, str):
            return self.reported or ""
        numbers = self.reported if isinstance(self.reported, tuple) else (self.reported,)
        *first, last = numbers
        return ", ".join([*(number(value, 8) for value in first), quantity(last, self.unit, 8)])

    def check_for(self, edition: str) -> Check:
        """The check that holds in ``edition``."""
        return next((check for name, check in self.check_in.items() if name == edition), self.check)

    @model_validator(mode="after")
    def _sound(self) -> Claim:
        if not self.id.startswith(f"{self.paper}."):
            raise ValueError(f"the id does not begin with {self.paper}.")
        if not isinstance(self.reported, str | None):
            for value in self.reported if isinstance(self.reported, tuple) else (self.reported,):
                check_range("reported", value, self.unit)
        for check in (self.check, *self.check_in.values()):
            if not check.reason:
                raise ValueError("check: 'reason' is missing (why this rule, why this tolerance)")
            unlisted = check.ids() - set(self.results)
            if unlisted:
                raise ValueError(f"check reads {min(unlisted)}, which is not among its results")
        if self.internal and (self.results or not self.check.reported_ids()):
            raise ValueError("an internal-consistency claim reads reported numbers and has no results")
        if not self.internal and not self.check.ids():
            raise ValueError("the check reads no result")
        if bool(self.control) is self.internal:
            raise ValueError(
                "control: an internal-consistency claim has none"
                if self.internal
                else "control: 'control' is missing (what must not satisfy the check as well, or why there is none)"
            )
        for control in self.control:
            if control.placebo and not control.rule(self.check).ids():
                raise ValueError(f"control: the check of {control.placebo} reads no result")
        return self


class Paper(_Strict):
    """A paper: bibliographic head, the notebook that re-executes it, what that records in words (MyST), its reported
    numbers and its claims.
    """

    id: Annotated[str, Field(pattern=r"^p[1-9]\d*$")]
    title: Text
    authors: tuple[Text, ...] = Field(min_length=1)
    year: int
    venue: str | None = None
    doi: str | None = None
    arxiv: str | None = None
    hal: str | None = None
    url: str | None = None
    bib: Text
    notebook: Text
    note: str = ""
    records: str = ""
    units: dict[ListedUnit, tuple[RecordWord, ...]] = Field(default_factory=dict)
    reported: tuple[Reported, ...]
    claims: tuple[Claim, ...] = Field(min_length=1)

    @property
    def numbers(self) -> Mapping[str, float]:
        """The reported numbers by id."""
        return {entry.id: entry.number for entry in self.reported}

    @property
    def record_units(self) -> Units:
        """The units of the record ids and of the reported numbers; a plain number, ``number`` in the file, has None."""
        of = {name: unit for unit, names in self.units.items() for name in names}
        return Units(of, {entry.id: entry.unit for entry in self.reported})

    @property
    def short(self) -> str:
        """First author and year."""
        others = (
            " et al." if len(self.authors) > 2 else "".join(f" and {a.split()[-1]}" for a in self.authors[1:])
        )
        return f"{self.authors[0].split()[-1]}{others} ({self.year})"


def load_claims(folder: str | Path) -> list[Paper]:
    """Read every ``p*.yml`` of the folder, in the order of the papers.

    Args:
        folder: the folder with the files.

    Returns:
        The papers, each with its claims and reported numbers, checked against each other.

    Raises:
        UserError: no file, not YAML, or an entry that breaks the schema; names file, claim and fault.
    """
    files = sorted(Path(folder).glob("p*.yml"), key=lambda path: (len(path.stem), path.stem))
    if not files:
        raise UserError(f"no claims found: {Path(folder).name}/ holds no p*.yml")
    return [_load(path) for path in files]


def _load(path: Path) -> Paper:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise UserError(
            f"{path.name} is not valid YAML{where}: {getattr(error, 'problem', None) or 'unreadable'}"
        ) from error
    if not isinstance(data, dict):
        raise UserError(f"{path.name} must be a mapping with the paper's id, title, …, reported and claims")
    claims = data.get("claims")
    if isinstance(claims, list):
        data = data | {
            "claims": [{"paper": data.get("id"), **c} if isinstance(c, dict) else c for c in claims]
        }
    try:
        paper = Paper.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{path.name}: {_first(error, data)}") from error
    fault = next(_faults(paper, path), None)
    if fault:
        raise UserError(f"{path.name}: {fault}")
    return paper


def _first(error: ValidationError, data: Mapping[str, object]) -> str:
    """One line for the first problem: the claim or number it is in, the field, and what is wrong."""
    problems = error.errors(include_url=False, include_context=False)
    location = list(problems[0]["loc"])
    where = ""
    if len(location) > 1 and location[0] in ("claims", "reported") and isinstance(location[1], int):
        entry = data[location[0]][location[1]]  # type: ignore[index]
        name = entry.get("id") if isinstance(entry, dict) else None
        where = f"{'claim' if location[0] == 'claims' else 'number'} {name or f'no. {location[1] + 1}'}: "
        location = location[2:]
    at = ".".join(str(part) for part in location)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    message = problems[0]["msg"].removeprefix("Value error, ")
    return f"{where}{at + ': ' if at else ''}{message}{more}".replace("\n", " ")


def _faults(paper: Paper, path: Path) -> Iterator[str]:
    """What no single entry can know: double ids, dead references, sums that cannot be done."""
    if path.stem != paper.id:
        yield f"the file must be named {paper.id}.yml"
    for kind, ids in (("claim", [c.id for c in paper.claims]), ("number", [r.id for r in paper.reported])):
        for double in sorted({name for name in ids if ids.count(name) > 1}):
            yield f"{kind} {double}: the id is used twice"
    known = {claim.id for claim in paper.claims}
    for entry in paper.reported:
        if entry.claim is not None and entry.claim not in known:
            yield f"number {entry.id}: no claim {entry.claim}"
    for claim in paper.claims:
        before = [entry.check for entry in claim.history]
        for check in (claim.check, *claim.check_in.values(), *before):
            for name in sorted(check.reported_ids() - set(paper.numbers)):
                yield f"claim {claim.id}: no reported number {name}"
                return
        controls = [control.rule(claim.check) for control in claim.control if control.placebo]
        for check in (claim.check, *claim.check_in.values(), *controls):
            try:
                check.check_units(paper.record_units)
            except ValueError as error:
                yield f"claim {claim.id}: {error}"
        if claim.internal:
            try:
                evaluate(claim.check, Evidence(reported=paper.numbers))
            except ArithmeticError as error:
                yield f"claim {claim.id}: the sum cannot be done ({error})"
