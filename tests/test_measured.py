"""Benchmarks on the pages: slopes by hand, marks replaced, a missing file said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest

from benchmarks import scaling
from xaicore.book.pages.measured import FOLDER, MARK, TABLES, place_measured, scaling_table

ROOT = Path(__file__).parents[1]


def row(
    images: int, seconds: float, memory: float, chapter: str = "p1_inspecting_attacks"
) -> dict[str, object]:
    size = {"pixels": 512, "channels": 1}  # an image of one mebibyte
    return {
        "chapter": chapter,
        "data": "digits",
        **size,
        "device": "a CPU",
        "images": images,
        "seconds": seconds,
        "peak_mebibytes": memory,
    }


def test_slopes_by_hand() -> None:
    rows = [row(10, 5, 900), row(20, 6, 930), row(40, 8, 990), row(10, 2, 800, "p2_gradcam_shift")]
    first, second = scaling_table({"rows": rows})[2:4]
    cells = [cell.strip() for cell in first.split("|")[1:-1]]
    assert cells[1:] == [
        "digits, 512 px",
        "10 · 20 · 40",
        "5 · 6 · 8",
        "0.1",
        "900 · 930 · 990",
        "3 (3 ×)",
        "a CPU",
    ]
    assert "nan" in second
    assert "p2" in second


def test_what_was_not_measured_is_said_and_how_to_measure_it(tmp_path: Path) -> None:
    page = place_measured(tmp_path, f"before\n{MARK.format('cluster')}\nafter")
    assert page.startswith(
        "before\nNot measured yet: `python -m benchmarks.cluster results/benchmarks/cluster.json`"
    )
    assert page.endswith("\nafter")


@pytest.mark.parametrize("name", TABLES)
def test_what_is_committed_makes_a_table(name: str) -> None:
    report = json.loads((ROOT / FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert not report["quick"]
    lines = [line for line in place_measured(ROOT, MARK.format(name)).splitlines() if line.startswith("|")]
    assert len(lines) >= 4
    assert len({line.count("|") for line in lines}) == 1


def test_every_benchmark_has_its_place_on_a_page() -> None:
    pages = "".join(
        (ROOT / "book" / f"{n}.md").read_text(encoding="utf-8") for n in ("statistics", "running")
    )
    assert [name for name in TABLES if pages.count(MARK.format(name)) != 1] == []


def test_every_case_can_be_asked_of_its_chapter(monkeypatch: pytest.MonkeyPatch) -> None:
    from xaicore.book.running.editions import load_edition
    from xaicore.run.params import SCHEMAS

    for folder in ("", "somewhere"):
        monkeypatch.setenv("XAICORE_DATA", folder)
        cases = scaling.cases()
        assert {case.chapter[:2] for case in cases} == {"p1", "p2", "p3", "p4", "p5"}
        for case in cases:
            quick = load_edition(ROOT, "quick").notebooks[case.chapter].parameters
            SCHEMAS[case.chapter].model_validate({**quick, **case.given(case.counts[-1])})


CHAPTER = """
import torch

from xaicore.run import records
from xaicore.run.store import Store

store = Store()
run = records.Run("p3_layer_by_layer", {"seed": 0, "n_images": n_images}, output_dir=output_dir, store=store)


def ones(n):
    return {"ones": torch.ones(n)}


store.get_or_compute("train", 0, lambda: ones(1), code=ones)
store.get_or_compute("attack", n_images, lambda: ones(n_images), code=ones)
run.value("p3.count.seeds", n_images)
run.finish()
"""
"""In the place of a chapter's cells: a network and work on images (each chapter is executed in ``test_book``)."""


def test_a_chapter_is_executed_and_its_cost_is_that_of_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First for the networks, which the measured run takes over, and nothing else."""
    monkeypatch.delenv("XAICORE_DATA", raising=False)
    shutil.copytree(ROOT / "editions", tmp_path / "editions")
    (tmp_path / "notebooks").mkdir()
    cells = [
        nbformat.v4.new_code_cell(
            "n_images: int = 1\noutput_dir: str = None", metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell(CHAPTER),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "notebooks" / "p3_layer_by_layer.ipynb")
    found: list[dict[str, Any]] = []
    executed = scaling.executed

    def kept(*given: Any) -> dict[str, Any]:
        found.append(executed(*given))
        return found[-1]

    case = next(each for each in scaling.cases() if each.chapter == "p3_layer_by_layer")
    monkeypatch.setattr(scaling, "cases", lambda: [replace(case, counts=(16,))])
    monkeypatch.setattr(scaling, "working_copy", lambda: tmp_path)
    monkeypatch.setattr(scaling, "executed", kept)
    assert scaling.main([str(tmp_path / "out.json")]) == 0
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    (only,) = report["rows"]
    assert [run["store"] for run in found] == [{"computed": 2, "reused": 0}, {"computed": 1, "reused": 1}]
    assert (only["images"], only["chapter"]) == (16, "p3_layer_by_layer")
    assert only["seconds"] == found[1]["seconds"] > 0
    assert 200 < only["peak_mebibytes"] < 3000
    assert only["peak_mebibytes"] == found[1]["peak_memory_bytes"] / 2**20
    described = scaling.__doc__ or ""
    assert all(name in described for name in (*report, *only))
    assert "p3_layer_by_layer" in capsys.readouterr().out


def test_one_chapter_measured_anew_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_now = iter([1.0, 2.0, 3.0, 4.0])

    def row(chapter: str) -> dict[str, Any]:
        return {
            "chapter": chapter,
            "data": "",
            "pixels": 1,
            "channels": 1,
            "device": "",
            "images": 1,
            "seconds": next(measured_now),
            "peak_mebibytes": 1.0,
        }

    cases = [scaling.Case(name, "", 1, 1, (1,)) for name in ("p1_x", "p5_x", "p4_x")]
    monkeypatch.setattr(scaling, "cases", lambda: cases)
    monkeypatch.setattr(scaling, "rows", lambda root, case, counts: iter([row(case.chapter)]))
    path = tmp_path / "out.json"
    assert scaling.main([str(path)]) == scaling.main([str(path), "--only", "p5"]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [(each["chapter"], each["seconds"]) for each in found["rows"]] == [
        ("p1_x", 1.0),
        ("p5_x", 4.0),
        ("p4_x", 3.0),
    ]
    path.write_text(json.dumps({**found, "machine": {}}), encoding="utf-8")
    assert scaling.main([str(path), "--only", "p5"]) == 2
    assert "is of another machine or version" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing/out.json"], "there is no folder missing to write to"),
        (["--only", "x"], "--only names no chapter that is measured; there are p1_"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scaling.main(arguments) == 2
    assert capsys.readouterr().err.startswith(message)
