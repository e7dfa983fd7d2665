"""The benchmark of explanations and metrics: its rows, its report, its errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import attribution

ROW: dict[str, Any] = {
    "name": "nissim",
    "peer": "a loop",
    "subject": "maps",
    "n": 3,
    "ours_ms": 1.0,
    "peer_ms": 12.0,
    "ratio": 12.0,
    "goal": 10.0,
    "met": True,
    "max_relative_error": 1e-7,
    "note": "",
}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    different = {**ROW, "name": "other numbers", "max_relative_error": 0.5}
    monkeypatch.setattr(
        attribution,
        "PARTS",
        {"explanations": (lambda **o: [ROW],), "metrics": (lambda **o: [different], lambda **o: [ROW])},
    )


def test_the_report_holds_every_row_and_no_ratio_of_different_outputs(
    parts: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attribution.main([str(tmp_path / "out.json"), "--threads", "1", "--quick"]) == 0
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [(row["kind"], row["name"], row["met"]) for row in report["rows"]] == [
        ("explanations", "nissim", True),
        ("metrics", "other numbers", False),
        ("metrics", "nissim", True),
    ]
    assert (report["threads"], report["quick"]) == (1, True)
    printed = capsys.readouterr().out
    assert "3 rows, 1 missed" in printed
    assert "10x MISSED" in printed
    described = attribution.__doc__ or ""
    assert all(name in described for name in (*report, *report["rows"][0]))


def test_only_one_kind(parts: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert attribution.main(["--only", "explanations", "--threads", "1"]) == 0
    assert "1 rows, 0 missed" in capsys.readouterr().out


def test_mistakes_are_one_line(parts: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert attribution.main(["--only", "attacks"]) == 2
    assert capsys.readouterr().err.strip() == "--only names attacks; there are explanations, metrics"
