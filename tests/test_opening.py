"""How a chapter's page opens and ends: claims first, set-up last."""

import html
import re
from pathlib import Path

import nbformat
import pytest

from tests.kept import ROOT, code, figure
from xaicore.book.claims.assessment import Judgement
from xaicore.book.claims.ledger import committed_evidence, judge
from xaicore.book.claims.schema import load_claims
from xaicore.book.pages.opening import LABELS, SETUP, claims_html, fold_setup, open_with_claims
from xaicore.core.units import number, quantity


def words(id: str, text: str) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_markdown_cell(text)
    cell.id = id
    return cell


def tagged(id: str, tag: str, **data: object) -> nbformat.NotebookNode:
    cell = code(id, f"{id} = 1", **data)
    cell.metadata["tags"] = [tag, "hide-input"]
    return cell


def chapter() -> nbformat.NotebookNode:
    drawn = code("figure", "draw()", png=figure())
    drawn.metadata["mystnb"]["figure"] = {"name": "the-figure", "caption": "What is drawn."}
    cells = [
        words("title", "# A chapter\n\n{.editions}\nEdition on this page: one.\n\nFirst sentence."),
        tagged("bootstrap", "bootstrap"),
        words("parameters-head", "## Parameters\n\nFrom outside."),
        tagged("given", "parameters"),
        tagged("injected", "injected-parameters"),
        code("resolved", "params", html="<table></table>"),
        code("imports", "import numpy"),
        words("images", "## Images\n\nWhat they are."),
        code("helper", "def f(): ..."),
        drawn,
        code("later", "x = 1"),
        code("table", "show()", html="<table></table>"),
        words("change", "## Change it"),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def test_set_up_is_folded_together_at_the_end_and_nothing_is_lost() -> None:
    before, page = chapter(), chapter()
    fold_setup(page)
    moved = ["bootstrap", "parameters-head", "given", "injected", "resolved", "imports", "helper"]
    stay = ["title", "images", "figure", "later", "table", "change"]
    assert [cell.id for cell in page.cells] == [*stay, "set-up-of-this-page", *moved, "end-of-set-up"]
    sources = {cell.id: cell for cell in page.cells}
    for cell in before.cells:
        assert sources[cell.id].get("outputs") == cell.get("outputs")
        if cell.id != "parameters-head":
            assert sources[cell.id].source == cell.source
    assert sources["parameters-head"].source == "**Parameters**\n\nFrom outside."
    assert sources["figure"].metadata == before.cells[9].metadata
    assert sources["given"].metadata["tags"] == ["parameters"], "inside of the fold nothing is folded again"
    text = "".join(cell.source for cell in page.cells)
    assert text.count("<details") == text.count("</details>") == 1
    assert sources["set-up-of-this-page"].source.startswith(f"## {SETUP}\n")


def test_a_page_without_set_up_stays_as_it_is() -> None:
    page = nbformat.v4.new_notebook(cells=[words("title", "# T"), code("one", "draw()", png=figure())])
    fold_setup(page)
    assert [cell.id for cell in page.cells] == ["title", "one"]


@pytest.mark.parametrize("path", sorted((ROOT / "results" / "reference").glob("*/notebook.ipynb")), ids=str)
def test_the_pages_keep_their_figures_and_labels_in_order(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    figures = [cell.id for cell in notebook.cells if "figure" in cell.metadata.get("mystnb", {})]
    labels = re.findall(r"^\(([\w-]+)\)=$", "\n".join(cell.source for cell in notebook.cells), re.MULTILINE)
    ids = {cell.id for cell in notebook.cells}
    fold_setup(notebook)
    end = [cell.id for cell in notebook.cells].index("set-up-of-this-page")
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.outputs, "the first cell shows something"
    assert ids < {cell.id for cell in notebook.cells}
    shown = notebook.cells[:end]
    assert [cell.id for cell in shown if "figure" in cell.metadata.get("mystnb", {})] == figures
    text = "\n".join(cell.source for cell in shown)
    assert re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE) == labels


@pytest.fixture(scope="module")
def judgements() -> list[Judgement]:
    return judge(load_claims(ROOT / "claims"), committed_evidence(ROOT))


def test_a_chapter_opens_with_its_claims(judgements: list[Judgement]) -> None:
    page = chapter()
    mine = [judgement for judgement in judgements if judgement.claim.paper == "p1"]
    open_with_claims(page, mine)
    head = page.cells[0].source
    assert head.startswith("# A chapter\n\n{.editions}\nEdition on this page: one.\n\n````{raw} html\n")
    assert head.endswith("\n````\n\n\nFirst sentence.")
    untouched = chapter()
    open_with_claims(untouched, [])
    assert untouched == nbformat.from_dict({**chapter(), "cells": untouched.cells})


def test_a_row_has_what_the_judgement_has(judgements: list[Judgement]) -> None:
    text = claims_html(judgements)
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", text)
    assert len(rows) == len(judgements)
    for row, judgement in zip(rows, judgements, strict=True):
        claim, ours = judgement.claim, judgement.measured
        assert f'href="../book/claims/{claim.paper}.html#{claim.anchor}"' in row
        assert re.findall(r'data-label="([^"]+)"', row) == list(LABELS)
        assert f">{judgement.verdict}</span>" in row
        assert html.escape(claim.reported_text, quote=False).replace("`", "") in re.sub("</?code>", "", row)
        if ours is not None:
            assert quantity(ours.value, ours.unit, 3) in row
            assert f"× {ours.runs} <small>{judgement.edition}</small>" in row
            ends = f"({number(ours.low, 3)} to {number(ours.high, 3)})"
            assert (ends in row) is (ours.interval is not None)
        elif claim.internal:
            assert "the paper's own numbers" in row
