"""The benchmark of the detectors: both routes give the same entropies, and the report holds every row."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import detectors


def test_both_routes_agree_and_the_report_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    assert detectors.main([str(tmp_path / "out.json"), "--threads", "1", "--repeats", "1", "--quick"]) == 0
    assert torch.get_num_threads() == threads
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [(row["subject"], row["explanation"]) for row in report["rows"]] == [
        (subject, explanation)
        for subject in ("digits", "photographs")
        for explanation in ("smooth_ig", "integrated_gradients")
    ]
    assert all(row["median_difference"] < detectors.DIFFERENT for row in report["rows"])
    assert "4 rows" in capsys.readouterr().out
    described = detectors.__doc__ or ""
    assert all(name in described for name in (*report, *report["rows"][0]))
