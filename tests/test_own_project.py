"""The guide for other projects is a program that runs, in the order of its page."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "book" / "own_project.md").read_text(encoding="utf-8"), re.S | re.M
)


@pytest.mark.filterwarnings("error::xaicore.attacks.AttackWarning")
def test_the_guide_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {}
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f"block {number} of own_project.md", "exec"), found)
    assert number >= 8
    right = found["right"]
    assert right.float().mean() > 0.5, "the network of the guide has learnt something"
    assert found["fooled"][right].float().mean() > 0.5
    assert found["heatmaps"].shape == found["images"].shape == found["others"].shape
    assert len(capsys.readouterr().out.splitlines()) >= 6
