"""Results of a committed edition on the chapters' pages: the second column, the block, and what is said of them."""

import base64
import copy
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from tests.kept import P1, code, figure, project, run
from xaicore.book.gate import html_findings
from xaicore.book.keeping import keep
from xaicore.book.pages.build import gather_records, offer_downloads
from xaicore.book.pages.conditions import conditions, differences
from xaicore.book.pages.staging import EXTRA, page_notebook
from xaicore.book.pages.statistics import run_label, statistics_page
from xaicore.book.pages.tabs import ChapterRun, load_run, other_runs, show_editions
from xaicore.book.second_column import joined
from xaicore.figures import display

LARGER = {"n_images": 2000, "size": 112, "dataset": "cats-vs-dogs"}


def table(**columns: list) -> str:
    return str(display.table(pd.DataFrame(columns)).data)


def pair(one: str, other: str) -> str | None:
    return joined([("embedded", one), ("reference", other)])


def cells(text: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_the_same_rows_get_a_second_column_of_numbers() -> None:
    one = table(attack=["FGSM", "PGD"], eps=[0.1, 0.1], success=[50.0, 60.5])
    other = table(attack=["FGSM", "PGD"], eps=[0.1, 0.1], success=[-40.0, 70.0])
    text = pair(one, other)
    assert text is not None
    assert cells(text) == [
        ["attack", "eps", "success"],
        ["embedded", "reference"],
        ["FGSM", "0.100", "50.00", "−40"],
        ["PGD", "0.100", "60.50", "70"],
    ]
    assert text.count('colspan="2"') == 1
    assert text.count('rowspan="2"') == 2


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ({"a": ["x", "y"], "n": [1, 2]}, {"a": ["x", "z"], "n": [3, 4]}, "other rows"),
        ({"a": ["x", "y"], "n": [1, 2]}, {"a": ["y", "x"], "n": [3, 4]}, "another order"),
        ({"a": ["x", "y"], "n": [1, 2]}, {"a": ["x"], "n": [3]}, "fewer rows"),
        ({"a": ["x", "y"], "n": [1, 2]}, {"a": ["x", "y"], "m": [3, 4]}, "another column"),
        ({"a": ["x", "x"], "n": [1, 2]}, {"a": ["x", "x"], "n": [3, 4]}, "rows that words do not tell apart"),
        (
            {"a": ["x", "x"], "eps": [1, 2], "n": [1, 2]},
            {"a": ["x", "x"], "eps": [3, 4], "n": [5, 6]},
            "other sizes",
        ),
        ({"n": [1, 2], "m": [1, 2]}, {"n": [3, 4], "m": [5, 6]}, "numbers alone"),
        (
            {"a": ["x", "y"], "n": [1, 2], "b": ["p", "q"]},
            {"a": ["x", "y"], "n": [3, 4], "b": ["p", "r"]},
            "words",
        ),
        ({"a": ["x"], "n": [1], "m": [2], "k": [3]}, {"a": ["x"], "n": [4], "m": [5], "k": [6]}, "too many"),
        (
            {"a": ["x"], "n": ["1 [0, 2]"], "m": ["1 [0, 2]"]},
            {"a": ["x"], "n": ["3 [2, 4]"], "m": ["4 [3, 5]"]},
            "wide",
        ),
        ({"a": ["x"], "n": [1]}, {"a": ["x"], "n": [1]}, "nothing differs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_could_be_mistaken_is_not_joined(one: dict, other: dict, why: str) -> None:
    assert pair(table(**one), table(**other)) is None, why


def test_sizes_that_are_the_same_tell_rows_apart() -> None:
    one = table(attack=["FGSM", "FGSM"], eps=[0.1, 0.2], success=[50.0, 60.0])
    other = table(attack=["FGSM", "FGSM"], eps=[0.1, 0.2], success=[51.0, 62.0])
    text = pair(one, other)
    assert text is not None
    assert cells(text)[2:] == [["FGSM", "0.100", "50", "51"], ["FGSM", "0.200", "60", "62"]]
    assert pair(one, "<p>no table</p>") is None


def record(**parameters: object) -> dict:
    data = [{"name": "faces", "split": "all", "n": n, "fingerprint": "f"} for n in (240, 40, 41)]
    return {"parameters": parameters, "provenance": {"data": data}}


def test_what_a_run_looked_at_in_a_phrase() -> None:
    small = record(dataset="mnist-5k", n_images=50, size=28, model="small_cnn", photographs="imagenet-20")
    assert conditions(small) == "mnist-5k, 50 images, 28 px; imagenet-20"
    assert conditions(record(dataset="faces", n_images=None, size=48)) == "faces, 41 images, 48 px"
    assert conditions(record(dataset="imagenet", n_images=1, second_dataset=None)) == "imagenet, 1 image"
    large = copy.deepcopy(small)
    large["parameters"] |= {"n_images": 3000}
    assert differences(large, small) == "mnist-5k, 3,000 images, 28 px"
    large["parameters"] |= {"model": "vgg16"}
    assert differences(large, small) == "mnist-5k, 3,000 images, 28 px; vgg16"
    assert differences(small, small) == "the same images"


@pytest.fixture
def chapter(tmp_path: Path) -> Path:
    """A project whose embedded chapter has a kept reference run with other tables, figures, code and cells."""
    root = project(tmp_path)

    def shown(success: float, colour: str, changed: str, rows: list[str]) -> list[nbformat.NotebookNode]:
        panel = '<b>panel</b><script src="x.js"></script>'
        return [
            code("joined", "show(one)", html=table(attack=["FGSM", "PGD"], success=[success, 2 * success])),
            code("figure", "draw()", png=figure(colour)),
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


def block_after(page: nbformat.NotebookNode, id: str) -> str | None:
    ids = [cell.id for cell in page.cells]
    after = page.cells[ids.index(id) + 1 :][:1]
    return after[0].source if after and after[0].id == f"{id}-reference" else None


def test_a_chapter_shows_the_other_edition_beside_its_own(chapter: Path) -> None:
    page, pictures = page_of(chapter)
    by_id = {cell.id: cell for cell in page.cells}
    text = by_id["joined"].outputs[0].data["text/html"]
    assert cells(text)[2:] == [["FGSM", "12.50", "3.25"], ["PGD", "25.00", "6.50"]]
    assert "reference: cats-vs-dogs, 2,000 images, 112 px</p>" in text
    assert block_after(page, "joined") is None

    block = block_after(page, "figure")
    assert block is not None
    assert "<strong>Reference edition:</strong> cats-vs-dogs, 2,000 images, 112 px</summary>" in block
    assert 'alt="What figure shows. (reference edition)" width="60" height="40"' in block
    source = re.search(r'<img src="([^"]+)"', block)
    assert source is not None
    kept = nbformat.read(chapter / "results" / "reference" / P1 / "notebook.ipynb", as_version=4)
    (output,) = next(cell for cell in kept.cells if cell.id == "figure").outputs
    assert (pictures / source[1]).read_bytes() == _bytes(output)

    block = block_after(page, "block")
    assert block is not None
    assert [row[0] for row in cells(block)] == ["layer", "a", "b", "c"]
    assert "has changed" not in block
    assert "\n\n" not in block, "an empty line would end it"
    changed = block_after(page, "changed")
    assert changed is not None
    assert "The code of this cell has changed since that run." in changed
    assert "3.25" in changed
    for id in ("same", "panel", "silent", "new"):
        assert block_after(page, id) is None, id


def _bytes(output: nbformat.NotebookNode) -> bytes:
    return base64.b64decode(output.data["image/png"])


def test_the_head_of_a_chapter_says_which_editions_it_shows(chapter: Path) -> None:
    page, _ = page_of(chapter)
    lines = page.cells[0].source.splitlines()
    assert lines[0] == "# A chapter"
    assert lines[2] == "{.editions}"
    assert lines[3].startswith(
        "Editions on this page: **{ref}`embedded <run-embedded-p1-inspecting-attacks>`**"
    )
    assert "(mnist-5k, 20 images, run on 2026-01-02) and **" in lines[3]
    assert (
        "(cats-vs-dogs, 2,000 images, 112 px, run on 2026-01-02; the code of 2 cells has changed since)"
        in lines[3]
    )
    assert page.cells[0].source.endswith("\n\nIts first sentence.")


def test_without_another_edition_only_the_head_is_new(chapter: Path) -> None:
    here = load_run("embedded", chapter / "runs" / "embedded" / P1)
    plain = page_notebook(here.notebook)
    page = page_notebook(here.notebook)
    show_editions(page, here, [], P1, chapter / "pictures")
    assert page.cells[0].source.splitlines()[3].startswith("Edition on this page: ")
    assert page.cells[1:] == plain.cells[1:]
    assert not (chapter / "pictures").exists()
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
    text = statistics_page({**records, "paper": {P1: again}})
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| {doc}`p1 </notebooks/p1_inspecting_attacks>`")
    ]
    assert [re.findall(r"`(\w+) <run-", row) for row in rows] == [["embedded"], ["reference"], ["paper"]]
    assert "| mnist-5k, 20 images |" in rows[0]
    assert "at least" not in rows[0] + rows[1]
    assert rows[2].endswith(
        "| cats-vs-dogs, 2,000 images, 112 px | at least 2 min 05 s | 3,072 | NVIDIA H200, 4 threads |"
    )
    for edition in ("embedded", "reference", "paper"):
        assert text.count(f"({run_label(edition, P1)})=\n") == 1


CONF = """
extensions = ["myst_nb", "sphinx_design"]
myst_enable_extensions = ["attrs_inline", "attrs_block", "colon_fence", "deflist"]
nb_execution_mode = "off"
root_doc = "index"
html_theme = "basic"
html_extra_path = ["pictures"]
exclude_patterns = ["runs", "results", "claims", "editions", "pictures"]
"""


def test_the_page_builds_and_its_blocks_hold_together(chapter: Path) -> None:
    page, _ = page_of(chapter, pictures="pictures/notebooks")
    page.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    nbformat.write(page, chapter / "notebooks" / f"{P1}.ipynb")
    (chapter / "book").mkdir()
    (chapter / "book" / "reading.md").write_text("# Reading\n")
    statistics = statistics_page(gather_records(chapter, "embedded"))
    (chapter / "book" / "statistics.md").write_text(statistics)
    (chapter / "conf.py").write_text(CONF)
    toctree = f"```{{toctree}}\nnotebooks/{P1}\nbook/reading\nbook/statistics\n```\n"
    (chapter / "index.md").write_text(f"# Front\n\n{toctree}")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html", "."]
    answer = subprocess.run([*command, "out"], cwd=chapter, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    built = (chapter / "out" / "notebooks" / f"{P1}.html").read_text(encoding="utf-8")
    assert re.search(
        r'<p class="editions">Editions on this page: <strong><a class="reference internal" href="', built
    )
    blocks = re.findall(r'<details class="other-edition">.*?</details>', built, re.DOTALL)
    assert [("<figure>" in block, "<table" in block) for block in blocks] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert "&lt;td" not in built
    assert not [finding for finding in html_findings(chapter / "out") if "edition" in finding]


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
