"""How a chapter's page opens and ends: its claims come first, and cells that only set up are folded together at the end.

Only the page is changed; the notebook that readers download keeps its order.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence

import nbformat

from xaicore.book.claims.assessment import Judgement
from xaicore.book.claims.evidence import Verdict
from xaicore.book.pages.ledgers import badge
from xaicore.book.pages.tabs import EDITIONS_LINE, NOT_OURS
from xaicore.core.units import number, quantity

SETUP = "Set-up of this page"
SETUP_OPENS = f"""## {SETUP}

````{{raw}} html
<details class="setup"><summary>Parameters, imports and helpers, which run first</summary>
````"""
DIGITS = 3
"""Of the numbers in the table of claims; the ledger has more."""
HIDDEN = {"hide-input", "hide-output", "remove-cell"}
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def open_with_claims(page: nbformat.NotebookNode, judgements: Sequence[Judgement]) -> None:
    """Put the claims of a chapter's paper below its title and the line on its editions.

    Args:
        page: the notebook that becomes the page, see :func:`xaicore.book.pages.tabs.show_editions`; it is changed.
        judgements: those of the paper's claims; without any the page stays as it is.
    """
    if not judgements:
        return
    lines = page.cells[0].source.splitlines()
    place = lines.index(EDITIONS_LINE) + 2
    table = ["", "````{raw} html", claims_html(judgements), "````", ""]
    page.cells[0].source = "\n".join(lines[:place] + table + lines[place:])


def claims_html(judgements: Sequence[Judgement]) -> str:
    """Return a table of claims, which the style sheet shows as cards on a phone.

    A row has the statement with a link from ``notebooks/`` to its place in the ledger, the paper's number, ours with its
    interval, images × runs with the edition, and the verdict.
    """
    counts = Counter(judgement.verdict for judgement in judgements)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", *LABELS))
    rows = "\n".join(map(_row, judgements))
    summary = f"The paper's {len(judgements)} claims: {said}"
    return (
        f'<details class="chapter-claims" open><summary>{summary}</summary>\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</details>"
    )


LABELS = ("Paper", "Ours (95 % interval)", "n × k", "Verdict")


def _row(judgement: Judgement) -> str:
    claim, ours = judgement.claim, judgement.measured
    shown, size = "–", ""
    if ours is not None:
        ends = f"{number(ours.low, DIGITS)} to {number(ours.high, DIGITS)}"
        interval = f' <span class="interval">({ends})</span>' if ours.interval else ""
        shown = f"{quantity(ours.value, ours.unit, DIGITS)}{interval}"
        size = f"{'–' if ours.n is None else f'{ours.n:,}'} × {ours.runs}"
    basis = "the paper's own numbers" if claim.internal else judgement.edition or "no run yet"
    cells = (
        _plain(claim.reported_text) or "–",
        shown,
        f"{size} <small>{basis}</small>",
        badge(judgement.verdict),
    )
    marked = "".join(
        f'<td data-label="{label}">{cell}</td>' for label, cell in zip(LABELS, cells, strict=True)
    )
    link = f'<a href="../{claim.page}">{_plain(claim.statement)}</a>'
    return f'<tr><th scope="row">{link}</th>{marked}</tr>'


def _plain(text: str) -> str:
    """Return a text of the claims as HTML; code stays code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def fold_setup(page: nbformat.NotebookNode) -> None:
    """Move what only sets up to the end of the page, into one section that opens with a click.

    That is the section of the parameters up to the next prose, cells with the tags of :data:`NOT_OURS`, and cells that
    show nothing before the first that does.

    Args:
        page: the notebook that becomes the page; it is changed.
    """
    moved = _setup(page.cells)
    if not moved:
        return
    for cell in moved:
        if cell.cell_type == "markdown":
            cell.source = HEADING.sub(r"**\1**", cell.source)
        else:
            cell.metadata["tags"] = [tag for tag in cell.metadata.get("tags", []) if tag not in HIDDEN]
    ids = {cell.id for cell in moved}
    page.cells = [
        *(cell for cell in page.cells if cell.id not in ids),
        nbformat.v4.new_markdown_cell(SETUP_OPENS, id="set-up-of-this-page"),
        *moved,
        nbformat.v4.new_markdown_cell("````{raw} html\n</details>\n````", id="end-of-set-up"),
    ]


def _setup(cells: Sequence[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    tags = [set(cell.metadata.get("tags", [])) for cell in cells]
    named = {k for k, found in enumerate(tags) if NOT_OURS & found}
    parameters = next((k for k, found in enumerate(tags) if "parameters" in found), None)
    if parameters is not None:
        if cells[parameters - 1].cell_type == "markdown" and parameters > 1:
            named.add(parameters - 1)
        for k in range(parameters + 1, len(cells)):
            if cells[k].cell_type == "markdown":
                break
            named.add(k)
    for k, cell in enumerate(cells):
        if cell.cell_type != "code" or k in named:
            continue
        if cell.outputs:
            break
        named.add(k)
    return [cells[k] for k in sorted(named)]
