"""Results of a committed edition on the chapters' pages: the tabs, and what is said of them."""

import base64
import copy
import io
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from PIL import Image

from tests.kept import P1, ROOT, code, figure, project, run
from xaicore.book.keeping import keep
from xaicore.book.pages.build import gather_records, offer_downloads
from xaicore.book.pages.staging import EXTRA, page_notebook
from xaicore.book.pages.statistics import conditions, run_label, statistics_page
from xaicore.book.pages.tabs import ChapterRun, load_run, other_runs, show_editions
from xaicore.figures import display

STATISTICS = (ROOT / "book" / "statistics.md").read_text(encoding="utf-8")
LARGER = {"n_images": 2000, "size": 112, "dataset": "cats-vs-dogs"}


def table(**columns: list) -> str:
    return str(display.table(pd.DataFrame(columns)).data)


def cells(text: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def pixels(picture: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(picture)) as image:
        return image.size, image.convert("RGBA").tobytes()


def record(notebook: str, **parameters: object) -> dict:
    data = [{"name": "faces", "split": "all", "n": n, "fingerprint": "f"} for n in (240, 40, 41)]
    return {"notebook": notebook, "parameters": parameters, "provenance": {"data": data}}


def test_what_a_run_looked_at_in_a_phrase() -> None:
    small = record("arena", dataset="mnist-5k", n_images=50, size=28, model="small_cnn")
    assert conditions(small) == "mnist-5k, 50 images, 28 px, small_cnn"
    small = record("atlas", n_images=3000, n_photographs=1)
    assert conditions(small) == "mnist-5k, 3,000 images, 28 px, small_cnn; imagenet-20, 1 image, 128 px"
    faces = record("p3_layer_by_layer", dataset="faces", n_images=None, model="vgg16", second_dataset=None)
    assert conditions(faces) == "faces, 41 images, 48 px, vgg16"
    gone = record("p2_gradcam_shift", dataset="faces", device="cuda:9", no_longer="there")
    assert conditions(gone) == "faces, 40 images, 48 px, resnet50", "what this machine lacks is no matter"


@pytest.fixture
def chapter(tmp_path: Path) -> Path:
    """A project whose embedded chapter has a kept reference run with other tables, figures, code and cells."""
    root = project(tmp_path)

    def shown(success: float, colour: str, changed: str, rows: list[str]) -> list[nbformat.NotebookNode]:
        drawn = code("figure", "draw()", png=figure(colour))
        drawn.metadata["mystnb"]["figure"] = {"name": "the-figure", "caption": "What is drawn."}
        panel = '<b>panel</b><script src="x.js"></script>'
        return [
            code("joined", "show(one)", html=table(attack=["FGSM", "PGD"], success=[success, 2 * success])),
            drawn,
            code("block", "show(two)", html=table(layer=rows, depth=[success] * len(rows))),
            code("changed", changed, html=table(attack=["FGSM"], success=[success])),
            code("same", "show(three)", html=table(attack=["FGSM"], success=[7.25])),
            code("panel", "panel()", html=panel),
            code("silent", "x = 1"),
        ]

    value = {"p1.drop.fgsm": (30.0, 500, (28.0, 32.0))}
    run(
        root,
        "embedded",
        value,
        cells=[*shown(12.5, "teal", "show(now)", ["a", "b"]), code("new", "y", png=figure())],
    )
    larger = {"p1.drop.fgsm": (12.0, 2000, (10.0, 13.0))}
    run(
        root,
        "reference",
        larger,
        parameters=LARGER,
        cells=shown(3.25, "red", "show(before)", ["a", "b", "c"]),
    )
    keep(root, "reference")
    return root


def page_of(
    root: Path, edition: str = "embedded", pictures: str = "pictures"
) -> tuple[nbformat.NotebookNode, Path]:
    here = load_run(edition, root / "runs" / edition / P1)
    page = page_notebook(here.notebook)
    show_editions(page, here, other_runs(root, edition).get(P1, []), P1, root / pictures)
    return page, root / pictures


def tabs_of(page: nbformat.NotebookNode, id: str) -> dict[str, str]:
    """The content of a cell's tabs by edition, in their order; empty where it has none."""
    (cell,) = [cell for cell in page.cells if cell.id == id]
    texts = [output.data["text/markdown"] for output in cell.outputs if "text/markdown" in output.data]
    if not texts:
        return {}
    (text,) = texts
    assert cell.metadata["mystnb"]["markdown_format"] == "myst"
    assert text.startswith("::::::{tab-set}\n:sync-group: edition\n")
    found = re.findall(r":::::\{tab-item\} (.+?)\n:sync: (\w+)\n(.*?)\n:::::\n", text, re.DOTALL)
    titles = {"reference": "Evidence: reference edition", "embedded": "This run: embedded edition"}
    assert all(title == titles[edition] for title, edition, _ in found)
    return {edition: content for _, edition, content in found}


def test_what_differs_stands_in_tabs_the_evidence_in_front(chapter: Path) -> None:
    page, pictures = page_of(chapter)
    tabs = tabs_of(page, "joined")
    assert list(tabs) == ["reference", "embedded"]
    assert cells(tabs["embedded"])[1:] == [["FGSM", "12.50"], ["PGD", "25.00"]]
    assert cells(tabs["reference"])[1:] == [["FGSM", "3.25"], ["PGD", "6.50"]]
    assert '<p class="edition-note">cats-vs-dogs, 2,000 images, 112 px, vgg16</p>' in tabs["reference"]
    assert '<p class="edition-note">mnist-5k, 20 images, 32 px, vgg16</p>' in tabs["embedded"]

    kept = nbformat.read(chapter / "results" / "reference" / P1 / "notebook.ipynb", as_version=4)
    ours = load_run("embedded", chapter / "runs" / "embedded" / P1).notebook
    tabs = tabs_of(page, "figure")
    for edition, notebook in (("reference", kept), ("embedded", ours)):
        assert f'alt="What figure shows. ({edition} edition)" width="60" height="40"' in tabs[edition]
        assert 'loading="lazy"' in tabs[edition]
        source = re.search(r'<img src="([^"]+)"', tabs[edition])
        assert source is not None
        (output,) = next(cell for cell in notebook.cells if cell.id == "figure").outputs
        assert pixels((pictures / source[1]).read_bytes()) == pixels(
            base64.b64decode(output.data["image/png"])
        )

    changed = tabs_of(page, "changed")
    assert "The code of this cell has changed since that run." in changed["reference"]
    assert "has changed" not in changed["embedded"]
    assert "has changed" not in tabs["reference"]
    by_id = {cell.id: cell for cell in page.cells}
    for cell in ours.cells:
        if cell.id in ("same", "panel", "silent"):
            assert by_id[cell.id].outputs == cell.get("outputs"), cell.id


def test_a_figure_that_one_edition_did_not_draw(chapter: Path) -> None:
    path = chapter / "runs" / "embedded" / P1 / "notebook.ipynb"
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [cell for cell in notebook.cells if cell.id == "figure"]
    cell.outputs = [nbformat.v4.new_output("stream", text="nothing to draw")]
    nbformat.write(notebook, path)
    page, _ = page_of(chapter)
    (cell,) = [cell for cell in page.cells if cell.id == "figure"]
    said, tabs = cell.outputs
    assert said.text == "nothing to draw"
    assert "This edition shows nothing here." in tabs.data["text/markdown"].partition(":sync: embedded")[2]


def test_what_only_this_edition_has_says_so(chapter: Path) -> None:
    page, _ = page_of(chapter)
    (cell,) = [cell for cell in page.cells if cell.id == "new"]
    (output,) = cell.outputs
    said = '<p class="edition-note">This run: embedded edition: mnist-5k, 20 images, 32 px, vgg16</p>'
    assert said in output.data["text/markdown"]


def test_the_head_of_a_chapter_says_which_editions_it_shows(chapter: Path) -> None:
    page, _ = page_of(chapter)
    lines = page.cells[0].source.splitlines()
    assert lines[0] == "# A chapter"
    assert lines[2] == "{.editions}"
    assert lines[3].startswith(
        "Editions on this page: **{ref}`embedded <run-embedded-p1-inspecting-attacks>`**"
    )
    assert "(mnist-5k, 20 images, 32 px, vgg16, run on 2026-01-02) and **" in lines[3]
    assert (
        "(cats-vs-dogs, 2,000 images, 112 px, vgg16, run on 2026-01-02; the code of 2 cells has changed since)"
        in lines[3]
    )
    assert page.cells[0].source.endswith("\n\nIts first sentence.")


def test_without_another_edition_pictures_lie_beside_the_page_and_the_head_is_new(chapter: Path) -> None:
    here = load_run("embedded", chapter / "runs" / "embedded" / P1)
    plain = page_notebook(here.notebook)
    page = page_notebook(here.notebook)
    show_editions(page, here, [], P1, chapter / "pictures")
    assert page.cells[0].source.splitlines()[3].startswith("Edition on this page: ")
    for cell, before in zip(page.cells[1:], plain.cells[1:], strict=True):
        if cell.id in ("figure", "new"):
            (output,) = cell.outputs
            text = output.data["text/markdown"]
            assert text.startswith(
                f'````{{raw}} html\n<div class="edition-figure"><img src="{P1}/embedded/{cell.id}.webp" '
            )
            assert "tab" not in text
        else:
            assert cell == before
    assert {path.name for path in (chapter / "pictures" / P1 / "embedded").iterdir()} == {
        "figure.webp",
        "new.webp",
    }
    assert other_runs(chapter, "reference") == {}, "an edition does not stand beside itself"


def test_the_run_is_not_changed_by_showing_it(chapter: Path) -> None:
    here = load_run("embedded", chapter / "runs" / "embedded" / P1)
    before = copy.deepcopy(here.notebook)
    show_editions(
        page_notebook(here.notebook), here, other_runs(chapter, "embedded")[P1], P1, chapter / "pictures"
    )
    assert here.notebook == before


def test_fresh_runs_come_before_committed_records(chapter: Path) -> None:
    assert set(gather_records(chapter, "embedded")) == {"embedded", "reference"}
    run(chapter, "reference", {"p1.drop.fgsm": (99.0, 5, (98.0, 100.0))})
    drop = {
        edition: gather_records(chapter, edition)["reference"][P1]["values"]["p1.drop.fgsm"]["value"]
        for edition in ("embedded", "reference")
    }
    assert drop == {"embedded": 12.0, "reference": 99.0}
    (chapter / "runs" / "reference" / P1 / "status.json").unlink()
    assert gather_records(chapter, "reference")["reference"][P1]["values"]["p1.drop.fgsm"]["value"] == 12.0


def test_time_and_memory_stand_against_the_images(chapter: Path) -> None:
    records = gather_records(chapter, "embedded")
    again = copy.deepcopy(records["reference"][P1])
    again["provenance"] |= {"store": {"computed": 3, "reused": 1}, "device": "NVIDIA H200", "seconds": 125.0}
    again["provenance"] |= {"peak_memory_bytes": 3 * 2**30, "threads": 4}
    text = statistics_page(STATISTICS, {**records, "paper": {P1: again}})
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| {doc}`p1 </notebooks/p1_inspecting_attacks>`")
    ]
    assert [re.findall(r"`(\w+) <run-", row) for row in rows] == [["embedded"], ["reference"], ["paper"]]
    assert "| mnist-5k, 20 images, 32 px, vgg16 |" in rows[0]
    assert "at least" not in rows[0] + rows[1]
    assert rows[2].endswith(
        "| cats-vs-dogs, 2,000 images, 112 px, vgg16 | at least\u00a02\u00a0min\u00a005\u00a0s "
        "| 3,072 | NVIDIA H200, 4 threads |"
    )
    for edition in ("embedded", "reference", "paper"):
        assert text.count(f"({run_label(edition, P1)})=\n") == 1


def test_a_damaged_status_is_no_kept_run(chapter: Path) -> None:
    (chapter / "results" / "reference" / P1 / "status.json").write_text("{")
    assert other_runs(chapter, "embedded") == {}


def test_a_chapter_run_finds_its_code_cells_only() -> None:
    text = nbformat.v4.new_markdown_cell("x")
    text.id = "t"
    notebook = nbformat.v4.new_notebook(cells=[text, code("c", "1")])
    found = ChapterRun("embedded", notebook, {})
    assert found.cell("t") is None
    assert found.cell("c") is not None


def test_the_download_is_the_notebook_without_other_editions(tmp_path: Path) -> None:
    clean, built = tmp_path / EXTRA / "_sources" / "notebooks", tmp_path / "html" / "_sources"
    for folder, text in (
        (clean, "executed"),
        (built / "notebooks", "with other editions"),
        (built / "book", "page"),
    ):
        folder.mkdir(parents=True)
        (folder / "one").write_text(text)
    offer_downloads(tmp_path, tmp_path / "html")
    assert (built / "notebooks" / "one").read_text() == "executed"
    assert (built / "book" / "one").read_text() == "page"
