"""The pages made of the judgements, in MyST: a ledger for each paper and the front page's scoreboard and list of claims.

A ledger gives every claim a block of short definitions (it must read well on a phone, so no wide tables)
under a label of its own, then every number the paper reports beside ours. A verdict is always a word; its
colour only helps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xaicore.book.claims.assessment import Judgement, earlier
from xaicore.book.claims.evidence import LEAST, WIDEST_SHARE, Measured, Verdict
from xaicore.book.claims.schema import EDITIONS, Paper
from xaicore.book.claims.several import deciding
from xaicore.book.verify import MISSING, OTHER, OUTSIDE
from xaicore.core.units import number

_KINDS = {
    "value": "a value",
    "ordering": "an ordering",
    "trend": "a trend",
    "qualitative": "a statement made measurable",
    "internal-consistency": "the paper against itself",
}

_REACHED = {
    Verdict.REPRODUCED: "**It does**",
    Verdict.PARTLY: "It does in part only",
    Verdict.NOT_REPRODUCED: "It does not",
    Verdict.INCONCLUSIVE: "Whether it does is open",
    Verdict.NOT_TESTABLE: "It cannot be judged",
}
"""What a control comes to."""


def badge(verdict: Verdict) -> str:
    """The verdict as inline HTML: the word, with a class for its colour."""
    return f'<span class="verdict verdict-{verdict.replace(" ", "-")}">{verdict}</span>'


def scoreboard(papers: Sequence[Paper], judgements: Sequence[Judgement]) -> str:
    """The front page's overview: how many claims, one a judgement, of each paper have which verdict.

    MyST Markdown without headings; its links are relative to ``book/index``.
    """
    by_paper = _by_paper(papers, judgements)
    head = [f"{{doc}}`{paper.id.upper()} <claims/{paper.id}>`" for paper in papers]
    lines = [_row(["Verdict", *head]), _row(["---"] + ["---:"] * len(papers))]
    for verdict in Verdict:
        counts = [sum(j.verdict is verdict for j in by_paper[paper.id]) for paper in papers]
        lines.append(_row([badge(verdict), *(str(count or "·") for count in counts)]))
    lines.append(_row(["all claims", *(str(len(by_paper[paper.id])) for paper in papers)]))
    lines += ["", _bases(judgements)]
    pending = sum(judgement.pending for judgement in judgements)
    if pending:
        lines += ["", f"Of the claims not testable here, {pending} wait for their chapter to be run."]
    return "\n".join(lines) + "\n"


def claim_list(papers: Sequence[Paper], judgements: Sequence[Judgement]) -> str:
    """Every claim, one a judgement, paper by paper, with its verdict, the edition it rests on and n.

    As of :func:`scoreboard`.
    """
    by_paper = _by_paper(papers, judgements)
    lines: list[str] = []
    for paper in papers:
        lines += ["", f"**{paper.id.upper()} · {{doc}}`{paper.short} <claims/{paper.id}>`**", ""]
        for judgement in by_paper[paper.id]:
            claim = judgement.claim
            link = f"{{ref}}`{claim.id.removeprefix(paper.id + '.')} <{claim.anchor}>`"
            lines.append(f"- {badge(judgement.verdict)} {link} {_basis(judgement)}".rstrip())
    return "\n".join(lines[1:]) + "\n"


def ledger_page(
    paper: Paper, judgements: Sequence[Judgement], compared: Mapping[str, Any] | None = None
) -> str:
    """One paper's ledger: every claim with rule and verdict, what our numbers are, every reported number beside ours.

    Args:
        paper: the paper.
        judgements: one per claim; those of other papers are ignored.
        compared: value id → the row of :func:`xaicore.book.verify.verify` for the run that the pages show, where its
            edition has evidence.

    Returns:
        A MyST page whose labels are :attr:`xaicore.book.claims.schema.Claim.anchor`.
    """
    mine = [judgement for judgement in judgements if judgement.claim.paper == paper.id]
    lines = [f"# {paper.id.upper()}: ledger", "", f"*{paper.title}*.", _source(paper), ""]
    lines += [paper.note, ""] if paper.note else []
    lines += ["## Claims", ""]
    for judgement in mine:
        lines += [*_block(judgement, paper.numbers), ""]
        lines += _this_run(judgement, compared or {})
    if paper.records:
        # <attack> in code is a placeholder that is shown; elsewhere a browser would take it for an element.
        records = re.sub(r"(`[^`]*`)|<", lambda found: found[1] or "&lt;", paper.records)
        lines += ["## What our numbers are", "", records, ""]
    lines += ["## Every reported number", "", *_numbers(paper, mine)]
    return "\n".join(lines).rstrip() + "\n"


def _this_run(judgement: Judgement, compared: Mapping[str, Any]) -> list[str]:
    """Return how the numbers of the run that the pages show lie to what the evidence predicts."""
    rows = [compared[name] for name in judgement.claim.results if name in compared]
    rows = [row for row in rows if row["outcome"] != MISSING]
    if not rows:
        return []
    outside = [row for row in rows if row["outcome"] in (OUTSIDE, OTHER)]
    text = f"{len(rows) - len(outside)} of {len(rows)} values are where {{ref}}`the evidence <committed-run>` has them"
    shown = "; ".join(f"`{row['id']}` is {number(row['here'])}" for row in outside)
    return ["This run", f": {text}{', not these: ' if outside else ''}{shown}", ""]


def _by_paper(papers: Sequence[Paper], judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    return {paper.id: [j for j in judgements if j.claim.paper == paper.id] for paper in papers}


def _bases(judgements: Sequence[Judgement]) -> str:
    """Return in a line how many verdicts rest on which edition."""
    counts = {f"the {name} edition": sum(j.edition == name for j in judgements) for name in EDITIONS}
    counts["the papers' own numbers"] = sum(judgement.claim.internal for judgement in judgements)
    parts = [f"{count} on {basis}" for basis, count in counts.items() if count]
    return f"Verdicts by what they rest on: {', '.join(parts) or 'none on a run'}."


def _source(paper: Paper) -> str:
    links = [
        f"[doi:{paper.doi}](https://doi.org/{paper.doi})" if paper.doi else "",
        f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else "",
        f"[{paper.hal}](https://hal.science/{paper.hal})" if paper.hal else "",
        f"<{paper.url}>" if paper.url else "",
    ]
    head = f"{', '.join(paper.authors)} ({paper.year}){f', {paper.venue}' if paper.venue else ''}"
    return ", ".join([head, *(link for link in links if link)]) + f"; {{cite:p}}`{paper.bib}`."


def _block(judgement: Judgement, reported: Mapping[str, float]) -> list[str]:
    claim, outcome = judgement.claim, judgement.outcome
    check = claim.check_for(judgement.edition or "")
    paper = f"{claim.reported_text or 'no number'} ({claim.locator}; {_KINDS[claim.kind]})"
    lines = [f"({claim.anchor})=", f"### `{claim.id}`", "", f"{badge(outcome.verdict)} {claim.statement}", ""]
    lines += ["Paper", f": {paper}", ""]
    if not claim.internal:
        lines += ["Ours", *_ours(judgement), ""]
    lines += ["Rule", f": Reproduced if {check.words()}. *Why:* {check.reason}", ""]
    lines += _terms("Control", _controls(judgement)) + _terms("Images", _images(judgement))
    basis = f" ({judgement.edition})" if len(_editions(judgement)) > 1 else ""
    lines += [f"Verdict{basis}", f": {_sentence(outcome.explanation)}"]
    if len(outcome.parts) > 1:
        lines += ["", *(f"  - {badge(part.verdict)} {_sentence(part.explanation)}" for part in outcome.parts)]
    decided = deciding(outcome)
    lines += ["", *_terms("What would decide it", [_sentence(decided)] if decided else [])]
    for until, words, reason, found in earlier(claim, judgement.edition or "", judgement.values, reported):
        text = f"{badge(found.verdict)} {_sentence(words)} *Changed because:* {_sentence(reason)}"
        lines += _terms(f"Until {until}", [text])
    lines = lines[:-1] if not lines[-1] else lines
    other = [
        f"{name} {badge(found.verdict)} {_sentence(found.explanation)}"
        for name, found in judgement.by_edition.items()
        if name in EDITIONS and name != judgement.edition
    ]
    if other:
        lines += ["", *_terms("Other editions", other)[:-1]]
    if claim.note:
        lines += ["", "Note", f": {claim.note}"]
    return lines


def _terms(name: str, texts: Sequence[str]) -> list[str]:
    """A definition with a paragraph for each text and an empty line behind; nothing where there is no text."""
    if not texts:
        return []
    first, *rest = texts
    return [name, f": {first}", *(line for text in rest for line in ("", f"  {text}")), ""]


def _controls(judgement: Judgement) -> list[str]:
    lines = []
    check = judgement.claim.check_for(judgement.edition or "")
    found = dict(judgement.outcome.controls)
    for control in judgement.claim.control:
        if control.placebo is None:
            lines.append(f"None: {control.none}." if control.none else f"Not run yet: {control.missing}.")
            continue
        words = f"{_sentence(control.placebo)} It must not reach this: {control.rule(check).words()}."
        outcome = found.get(control.placebo)
        lines.append(words + (f" {_REACHED[outcome.verdict]}: {outcome.explanation}." if outcome else ""))
    return lines


def _images(judgement: Judgement) -> list[str]:
    """How many images a number needs, and how many and how many networks the first one has."""
    claim, measured = judgement.claim, judgement.measured
    if claim.internal:
        return []
    text = f"at least {LEAST} behind each number, and a share known to ± {number(WIDEST_SHARE)} points"
    if measured is not None and measured.n is not None:
        networks = f" × {measured.runs} networks" if measured.runs > 1 else " × 1 network"
        text += f"; behind `{claim.results[0]}` are {measured.n} images{networks}"
    return [_sentence(text)]


def _ours(judgement: Judgement) -> list[str]:
    editions = _editions(judgement)
    if len(editions) > 1:
        return _ours_side_by_side(judgement, editions)
    shown = [name for name in judgement.claim.results if name in judgement.values]
    if not shown:
        return [
            ": no result yet"
            if judgement.edition is None
            else f": no result in the {judgement.edition} edition"
        ]
    lines = [f": {judgement.edition} edition", ""]
    return lines + [f"  - {_strong(judgement, name, judgement.values[name])}, `{name}`" for name in shown]


def _ours_side_by_side(judgement: Judgement, editions: Sequence[str]) -> list[str]:
    runs = judgement.values_by_edition
    shown = [name for name in judgement.claim.results if any(name in runs[edition] for edition in editions)]
    lines = [": " + _row(["Number", *editions]), "  " + _row(["---"] * (1 + len(editions)))]
    for name in shown:
        values = [_strong(judgement, name, runs[edition].get(name)) for edition in editions]
        lines.append("  " + _row([f"`{name}`", *values]))
    verdicts = [badge(judgement.by_edition[edition].verdict) for edition in editions]
    return [*lines, "  " + _row(["verdict", *verdicts])]


def _editions(judgement: Judgement) -> list[str]:
    """The editions that have a number of the claim, the smallest first."""
    runs = judgement.values_by_edition
    return [
        edition
        for edition in reversed(EDITIONS)
        if any(name in runs.get(edition, {}) for name in judgement.claim.results)
    ]


def _strong(judgement: Judgement, name: str, value: Measured | None) -> str:
    """A number as text, in bold where it is the claim's most telling one."""
    if value is None:
        return "·"
    return f"**{value}**" if name == judgement.claim.results[0] else str(value)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _basis(judgement: Judgement) -> str:
    if judgement.claim.internal:
        return "(the paper's own numbers)"
    if judgement.edition is None:
        return ""
    measured = judgement.measured
    n = f", n = {measured.n:,}" if measured is not None and measured.n is not None else ""
    runs = judgement.runs.get(judgement.edition, 1)
    return f"({judgement.edition}{n}{f' × {runs} runs' if runs > 1 else ', one run'})"


def _numbers(paper: Paper, judgements: Sequence[Judgement]) -> list[str]:
    runs = {edition: run for j in judgements for edition, run in j.values_by_edition.items()}
    editions = [edition for edition in reversed(EDITIONS) if edition in runs]
    heads = [f"Ours, {edition}" for edition in editions] or ["Ours"]
    anchors = {claim.id: claim.anchor for claim in paper.claims}
    lines = []
    for locator in dict.fromkeys(entry.locator for entry in paper.reported):
        entries = [entry for entry in paper.reported if entry.locator == locator]
        lines += [f"**{locator}**", "", _row(["What", "Paper", *heads])]
        lines.append(_row(["---", "---:", *["---"] * len(heads)]))
        for entry in entries:
            what = entry.label if entry.claim is None else f"{{ref}}`{entry.label} <{anchors[entry.claim]}>`"
            ours = [str(runs[edition].get(entry.result or "", "·")) for edition in editions] or ["·"]
            lines.append(_row([what, entry.text, *ours]))
        lines.append("")
    return lines


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
