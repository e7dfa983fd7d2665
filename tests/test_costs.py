"""What an edition costs, extrapolated from what was measured."""

import json
import shutil
from pathlib import Path

import pytest

from xaicore.book import cli
from xaicore.book.pages.measured import COLUMNS, cost_rows
from xaicore.book.running.editions import load_edition
from xaicore.core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
P4 = "p4_heat_and_blur"


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A project where chapter 4 took 10 s, and 2 s and 1 GiB an image at 224 pixels, and far less at 32."""
    shutil.copytree(ROOT / "editions", tmp_path / "editions")
    rows = [
        {
            "chapter": P4, "data": data, "pixels": pixels, "channels": 3, "device": "cpu", "images": n,
            "seconds": 10 + each * n, "peak_mebibytes": 1024 * each * n / 2,
        }
        for data, pixels, each in (("imagenet", 224, 2.0), ("small", 32, 0.5))
        for n in (10, 20, 40)
    ]  # fmt: skip
    folder = tmp_path / "results" / "benchmarks"
    folder.mkdir(parents=True)
    report = {"machine": {"processor": "A processor"}, "rows": rows}
    (folder / "scaling.json").write_text(json.dumps(report))
    return tmp_path


def test_the_line_of_the_nearest_size_is_extended(measured: Path) -> None:
    rows = {
        row[0]: dict(zip(COLUMNS, row, strict=True))
        for row in cost_rows(measured, load_edition(measured, "paper"))
    }
    assert rows[P4] == {
        "notebook": P4, "images": "1,000", "measured with": "imagenet, 224 px", "s an image": "2",
        "time": "33:30", "memory": "1000.0 GiB", "the edition expects": "20:50:00, 16.6 GiB",
    }  # fmt: skip
    assert rows["arena"]["measured with"] == "not measured"
    assert rows["p1_inspecting_attacks"]["images"] == "all of cats-vs-dogs", "the set need not be here"


def test_all_images_of_a_set_in_a_package_are_counted(measured: Path) -> None:
    edition = load_edition(measured, "embedded")
    run = edition.notebooks[P4].model_copy(update={"parameters": {"size": 40, "n_images": None}})
    (row,) = cost_rows(measured, edition.model_copy(update={"notebooks": {P4: run}}))
    assert row[1:5] == ("20", "small, 32 px", "0.5", "0:20")


def test_the_command_says_what_its_numbers_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(["editions", "--costs", "paper"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in load_edition(ROOT, "paper").notebooks)
    assert "with one thread and the parameters of the quick edition, and are extrapolated" in out
    assert cli.main(["editions", "--costs", "slow"]) == 2


def test_nothing_measured_is_told(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "editions", tmp_path / "editions")
    with pytest.raises(
        UserError, match=r"run: python -m benchmarks\.scaling results/benchmarks/scaling\.json"
    ):
        list(cost_rows(tmp_path, load_edition(tmp_path, "quick")))
