"""The gate lets nothing through that a reader could not trust or open."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from xaicore.book.gate import html_findings, notebook_findings

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def executed(
    tmp_path: Path, *outputs: nbformat.NotebookNode, count: int | None = 1, **metadata: object
) -> Path:
    cell = new_code_cell("1 + 1", execution_count=count, outputs=list(outputs), metadata=metadata)
    path = tmp_path / "page.ipynb"
    nbformat.write(new_notebook(cells=[cell]), path)
    return path


def page(tmp_path: Path, body: str, name: str = "index.html") -> Path:
    path = tmp_path / "html" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    return tmp_path / "html"


def test_a_clean_notebook_passes(tmp_path: Path) -> None:
    assert notebook_findings(executed(tmp_path, new_output("stream", name="stdout", text="2\n"))) == []


@pytest.mark.parametrize(
    ("output", "word"),
    [
        (new_output("error", ename="ValueError", evalue="no", traceback=[]), "shows ValueError: no"),
        (new_output("stream", name="stderr", text="careful\n"), "wrote to stderr: careful"),
        (new_output("display_data", data={"image/png": PIXEL}), "without an alternative text"),
    ],
)
def test_a_notebook_that_shows_trouble_does_not_pass(
    tmp_path: Path, output: nbformat.NotebookNode, word: str
) -> None:
    (finding,) = notebook_findings(executed(tmp_path, output))
    assert word in finding
    assert finding.startswith("page.ipynb, cell 1")


def test_a_cell_that_was_not_executed_does_not_pass(tmp_path: Path) -> None:
    (finding,) = notebook_findings(executed(tmp_path, count=None))
    assert "was not executed" in finding


def test_a_figure_with_a_text_passes(tmp_path: Path) -> None:
    figure = new_output("display_data", data={"image/png": PIXEL})
    assert notebook_findings(executed(tmp_path, figure, mystnb={"image": {"alt": "one pixel"}})) == []


FIGURE = {"figure": {"name": "p9-fig-1", "caption": "One pixel."}, "image": {"alt": "one pixel"}}


@pytest.mark.parametrize(
    ("count", "words"), [(0, "the figure p9-fig-1 has no picture"), (2, "the figure p9-fig-1 has 2 pictures")]
)
def test_a_captioned_figure_has_exactly_one_picture(tmp_path: Path, count: int, words: str) -> None:
    picture = new_output("display_data", data={"image/png": PIXEL})
    said = new_output("stream", name="stdout", text="nothing to see\n")
    assert notebook_findings(executed(tmp_path, said, picture, mystnb=FIGURE)) == []
    path = executed(tmp_path, said, *[picture] * count, mystnb=FIGURE)
    assert notebook_findings(path) == [f"page.ipynb, cell 1: {words}"]
    assert notebook_findings(path, ["p9-fig-2"]) == [f"page.ipynb, cell 1: {words}"]
    assert notebook_findings(path, ["p9-fig-1"]) == ([] if count == 0 else [f"page.ipynb, cell 1: {words}"])


def test_a_run_is_named_after_its_folder(tmp_path: Path) -> None:
    (tmp_path / "p9_page").mkdir()
    path = executed(tmp_path, mystnb=FIGURE).rename(tmp_path / "p9_page" / "notebook.ipynb")
    assert notebook_findings(path) == ["p9_page, cell 1: the figure p9-fig-1 has no picture"]


def test_internal_links_and_local_assets_pass(tmp_path: Path) -> None:
    page(tmp_path, '<h1 id="top">T</h1>', "sub/other.html")
    (tmp_path / "html" / "a b.png").write_bytes(b"")
    folder = page(
        tmp_path,
        '<a href="sub/other.html#top">x</a> <a href="#here" id="here">y</a> <img src="a%20b.png" alt="z">'
        '<a href="https://example.org">outside</a> <img src="data:image/png;base64,AA" alt="w">',
    )
    assert html_findings(folder) == []


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ('<a href="gone.html">x</a>', "dead link: gone.html"),
        ('<a href="index.html#gone">x</a>', "dead anchor"),
        ('<img src="gone.png" alt="x">', "dead link"),
        ('<img src="data:image/png;base64,AA">', "without an alternative text"),
        ('<script src="https://cdn.example.org/x.js"></script>', "from the network"),
        ('<script src="//cdn.example.org/x.js"></script>', "from the network"),
        ('<link rel="stylesheet" href="https://cdn.example.org/x.css">', "from the network"),
        ("<style>@import 'https://cdn.example.org/x.css';</style>", "from the network"),
        ('<p style="background: url(https://example.org/x.png)">x</p>', "from the network"),
        ("<p>/secret/folder/of/mine/file.txt</p>", "path of this machine"),
    ],
)
def test_a_page_in_trouble_does_not_pass(tmp_path: Path, body: str, word: str) -> None:
    findings = html_findings(page(tmp_path, body), forbidden=["/secret/folder/of/mine"])
    assert any(word in finding for finding in findings), findings


@pytest.mark.parametrize("name", ["record.json", "table.csv", "notebook.ipynb"])
def test_a_download_with_a_path_of_the_machine_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"data_root": "/secret/folder/of/mine/faces"}')
    findings = html_findings(tmp_path, forbidden=["/secret/folder/of/mine"])
    assert findings == [f"{name}: shows a path of this machine (/secret/folder/of/mine)"]


def test_a_link_to_a_case_passes_only_where_the_page_takes_it(tmp_path: Path) -> None:
    link = '<a href="{page}.html#image=bald-eagle&amp;attack=bim&amp;size=2/255">x</a>'
    page(tmp_path, '<section data-explorer="x/"></section>', "explorer.html")
    assert html_findings(page(tmp_path, link.format(page="explorer"))) == []
    page(tmp_path, "<p>no explorer here</p>", "other.html")
    (finding,) = html_findings(page(tmp_path, link.format(page="other")))
    assert "dead anchor" in finding
    (finding,) = html_findings(page(tmp_path, '<a href="explorer.html#gone">x</a>'))
    assert "dead anchor" in finding


def test_a_stylesheet_that_needs_the_network_does_not_pass(tmp_path: Path) -> None:
    folder = page(tmp_path, "x")
    (folder / "x.css").write_text("a { background: url('https://example.org/x.png') }", encoding="utf-8")
    assert len(html_findings(folder)) == 1
