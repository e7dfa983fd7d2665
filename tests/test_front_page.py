"""Figures of the run on the front page, and links from the chapters to cases of the explorer."""

import base64
import csv
import html
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from xaicore import figures
from xaicore.book.pages.findings import MARK, place_figures, wanted
from xaicore.book.pages.tabs import ChapterRun
from xaicore.figures.style import MARKERS, PALETTE
from xaicore.run.explorer_page import slugs

ROOT = Path(__file__).resolve().parent.parent
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(40))


def executed(path: Path, label: str, *, drawn: bool = True, caption: str = "What it shows.") -> Path:
    """A notebook with one figure cell, with or without its picture."""
    look = {"figure": {"caption": caption, "name": label}, "image": {"alt": "Two lines."}}
    cell = nbformat.v4.new_code_cell("draw()", metadata={"mystnb": look})
    if drawn:
        data = {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<figure>"}
        cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# T"), cell]), path)
    return path


def test_figures_come_from_the_run_with_caption_text_and_link(tmp_path: Path) -> None:
    page = tmp_path / "index.md"
    page.write_text(
        "Before.\n\n<!-- figures: one/a-fig two/b-fig -->\n\nAfter, <!-- figures: one/a-fig --> in a line.\n"
    )
    runs = {"one": executed(tmp_path / "1.ipynb", "a-fig"), "two": executed(tmp_path / "2.ipynb", "b-fig")}
    assert place_figures(page, runs) == ["a-fig", "b-fig"]
    text = page.read_text()
    assert (tmp_path / "figures" / "a-fig.png").read_bytes() == PNG
    assert text.count(":alt: Two lines.") == 2
    assert "What it shows. {numref}`a-fig`" in text
    assert text.index("a-fig.png") < text.index("b-fig.png") < text.index("After")
    assert "in a line" in text  # only a line of its own asks for figures


def test_the_strongest_evidence_that_has_a_figure_comes_first(tmp_path: Path) -> None:
    page = tmp_path / "index.md"
    page.write_text("<!-- figures: one/a-fig two/b-fig -->\n")
    runs = {"one": executed(tmp_path / "1.ipynb", "a-fig"), "two": executed(tmp_path / "2.ipynb", "b-fig")}
    kept = nbformat.read(executed(tmp_path / "3.ipynb", "a-fig", caption="Of more images."), as_version=4)
    jpeg = base64.b64encode(b"jpeg").decode()
    kept.cells[1].outputs = [nbformat.v4.new_output("display_data", data={"image/jpeg": jpeg})]
    empty = nbformat.read(executed(tmp_path / "4.ipynb", "b-fig", drawn=False), as_version=4)
    others = {
        "one": [ChapterRun("reference", kept, {})],
        "two": [ChapterRun("reference", empty, {})],
        "three": [],
    }
    assert place_figures(page, runs, others) == ["a-fig", "b-fig"]
    text = page.read_text()
    assert (tmp_path / "figures" / "a-fig.jpg").read_bytes() == b"jpeg"
    assert "Of more images. {numref}`a-fig` (reference edition)\n" in text
    assert (tmp_path / "figures" / "b-fig.png").read_bytes() == PNG
    assert "What it shows. {numref}`b-fig`\n" in text


@pytest.mark.parametrize("missing", ["not run", "other label", "not drawn"])
def test_what_a_run_has_not_drawn_is_left_out(tmp_path: Path, missing: str) -> None:
    page = tmp_path / "index.md"
    page.write_text(
        "The sentence.\n\n<!-- figures: one/a-fig two/b-fig -->\n\n<!-- figures: two/b-fig -->\n\nEnd."
    )
    runs = {"one": executed(tmp_path / "1.ipynb", "a-fig")}
    if missing != "not run":
        label = "b-fig" if missing == "not drawn" else "c-fig"
        runs["two"] = executed(tmp_path / "2.ipynb", label, drawn=missing == "other label")
    assert place_figures(page, runs) == ["a-fig"]
    text = page.read_text()
    assert text.count("{container} findings") == 1
    assert "b-fig" not in text
    assert text.startswith("The sentence.")
    assert text.endswith("End.")


def test_the_front_page_asks_for_figures_that_chapters_draw() -> None:
    text = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    asked = wanted(text)
    assert len(MARK.findall(text)) == 3, "each of the three findings has its figures"
    for name, label in asked:
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        looks = [cell.metadata.get("mystnb", {}) for cell in notebook.cells]
        found = [look for look in looks if look.get("figure", {}).get("name") == label]
        assert len(found) == 1, (name, label)
        assert found[0]["figure"]["caption"]
        assert found[0]["image"]["alt"]


def test_estimates_stand_at_their_numbers_with_their_intervals() -> None:
    rows = {
        "one": {"here": {"value": 3.0, "ci": [1.0, 4.0]}, "paper": {"value": 8.0, "ci": None}},
        "two": {"here": {"value": 5.0, "ci": [5.0, 6.0]}, "paper": None},
    }
    figure = figures.estimate_rows(rows, xlabel="x (%)", low=0, high=10)
    (axes,) = figure.axes
    points = [line for line in axes.lines if line.get_marker() in MARKERS]
    bars = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_color() in PALETTE]
    assert [float(np.ravel(line.get_xdata())[0]) for line in points] == [3.0, 8.0, 5.0]
    assert [list(line.get_xdata()) for line in bars] == [[1.0, 4.0], [5.0, 6.0]]
    assert points[0].get_color() == points[2].get_color() != points[1].get_color()
    assert float(np.ravel(points[2].get_ydata())[0]) == 1.0  # alone in its row: in the middle
    assert axes.get_xlim()[0] < 0 < 10 < axes.get_xlim()[1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["here", "paper"]
    assert not figures.estimate_rows({"a": {"": {"value": 1, "ci": None}}}, xlabel="x").legends
    with pytest.raises(ValueError, match="rows must have at least one"):
        figures.estimate_rows({}, xlabel="x")


def test_a_strip_draws_each_map_about_zero() -> None:
    image, heat = torch.rand(1, 6, 6), torch.linspace(-1, 3, 36).reshape(1, 6, 6)
    figure = figures.relevance_strip(image, {"before": heat, "after": -heat}, title="attacked")
    first, before, after = (axes.images[0] for axes in figure.axes)
    assert first.get_clim() == (0, 1)
    assert before.get_clim() == after.get_clim() == (-3, 3)
    np.testing.assert_array_equal(before.get_array(), -np.asarray(after.get_array()))
    assert [axes.get_title() for axes in figure.axes] == ["attacked", "before", "after"]


def explorer_links() -> Iterator[tuple[str, str]]:
    """Source and fragment of every link to a case of the explorer in the sources."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.md")}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        texts[path.name] = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for name, text in texts.items():
        for href in re.findall(r'href="([^"]*explorer\.html#[^"]*)"', text):
            folder, fragment = html.unescape(href).split("explorer.html#")
            assert folder == ("../notebooks/" if name.endswith(".md") else ""), (name, href)
            yield name, fragment


def test_every_link_to_the_explorer_names_a_case_of_the_embedded_edition() -> None:
    cases: set[tuple[str, ...]] = set()
    for subject in ("digits", "photographs"):
        table = ROOT / "results" / "embedded" / "explorer" / "tables" / f"explorer.{subject}.csv"
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        classes = {row["image"]: row["class"] for row in rows}
        names = dict(zip(classes, slugs(list(classes.values())), strict=True))
        keys = ("attack", "size", "kind", "explanation", "explained")
        cases |= {(names[row["image"]], *(row[key] for key in keys)) for row in rows}
    links = list(explorer_links())
    assert len({name for name, _ in links}) >= 5, "the chapters link to their cases"
    for name, fragment in links:
        chosen = dict(part.split("=", 1) for part in fragment.split("&"))
        assert list(chosen) == ["image", "attack", "size", "kind", "explanation", "explained"], (
            name,
            fragment,
        )
        assert tuple(chosen.values()) in cases, (name, fragment)
