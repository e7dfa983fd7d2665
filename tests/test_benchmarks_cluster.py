"""The benchmark of the cluster: its rows and its errors, with another engine in the cluster's place."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cluster
from benchmarks.subjects import Subject
from xaicore import models
from xaicore.run.engine import LocalEngine
from xaicore.run.store import Store


class Stand(LocalEngine):
    """Works here, and says it has two places."""

    def __init__(self, spec: str, store: Store, workers: int | None = None) -> None:
        super().__init__(store, workers)

    def places(self, resources: dict[str, int]) -> int:
        return 2


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture: dict[str, Any] = {"name": "small_cnn", "classes": 2, "channels": 1, "input_size": 16}
    images = torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    subject = Subject(
        "toy", models.load(**architecture), images, torch.arange(16) % 2, architecture, "sixteen images"
    )
    monkeypatch.setattr(cluster, "RayEngine", Stand)
    monkeypatch.setattr(cluster, "digits", lambda: subject)
    monkeypatch.setattr(cluster.engine, "check", lambda spec: None)
    monkeypatch.setattr(cluster, "PACKAGES", ("torch",))


def test_the_report_holds_a_row_for_each_number_of_workers(
    stand: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster.main([str(tmp_path / "out.json"), "--workers", "2,1", "--quick"]) == 0
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [(row["workers"], row["identical"]) for row in report["rows"]] == [(1, True), (2, True)]
    first, second = report["rows"]
    assert first["speedup"] == first["efficiency"] == 1
    assert second["efficiency"] == pytest.approx(second["speedup"] / 2)
    assert second["speedup"] == pytest.approx(first["cluster_seconds"] / second["cluster_seconds"])
    described = cluster.__doc__ or ""
    assert all(name in described for name in (*report, *first))
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "4", "--quick"], "room for 2 workers, not for 4"),
        (["--engine", "local"], "--engine must name a Ray cluster"),
    ],
)
def test_mistakes_are_one_line(
    stand: None, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
