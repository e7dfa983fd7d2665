"""Records: checked at the door, complete or not there, equal when the results are."""

import errno
import json
import os
import platform
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from xaicore.core.errors import UserError
from xaicore.core.machine import instruction_sets
from xaicore.run.params import NotebookParameters
from xaicore.run.records import Run, load_record
from xaicore.run.store import Store


@pytest.fixture
def run(tmp_path):
    return Run("p1_test", {"seed": 3, "eps": 0.1, "data_root": "/somewhere/private/cats"}, tmp_path / "out")


def _filled(folder, accuracy=0.75, table=(1.0, 2.0), edition=None):
    run = Run("p1_test", {"seed": 3}, folder, edition=edition)
    run.value("p1.accuracy", accuracy, n=4, ci=(0.5, 1.0), unit="%")
    run.table("p1.table", pd.DataFrame({"x": table}))
    return run.finish()


class Images(SimpleNamespace):
    def __len__(self):
        return 10


def test_a_record_holds_what_was_recorded(run, tmp_path):
    assert run.value("clean.accuracy", torch.tensor(0.5), n=10, ci=SimpleNamespace(low=0.4, high=0.6)) == 0.5
    run.value("count", 3)
    frame = pd.DataFrame({"model": ["a", "b"], "accuracy": [1 / 3, 0.1]})
    assert run.table("table1", frame) is frame
    run.table("named", pd.DataFrame({"x": [1]}, index=pd.Index(["r"], name="row")))
    run.data(Images(name="mnist-5k", split="test", fingerprint="ab" * 32))
    model = torch.nn.Linear(3, 2)
    model.name, model.fingerprint = "linear", "cd" * 32
    run.model("clear", model)
    path = run.finish()
    record = load_record(path)
    assert record == load_record(path.parent)
    assert record["values"]["clean.accuracy"] == {"value": 0.5, "n": 10, "ci": [0.4, 0.6], "unit": None}
    assert record["parameters"] == {"seed": 3, "eps": 0.1, "data_root": "cats"}
    assert record["tables"] == {"table1": "tables/table1.csv", "named": "tables/named.csv"}
    assert (path.parent / "tables/table1.csv").read_text() == "model,accuracy\na,0.333333333333\nb,0.1\n"
    assert (path.parent / "tables/named.csv").read_text() == "row,x\nr,1\n"
    source = record["provenance"]
    assert source["data"] == [{"name": "mnist-5k", "split": "test", "n": 10, "fingerprint": "ab" * 32}]
    assert source["models"] == [
        {"label": "clear", "name": "linear", "parameters": 8, "fingerprint": "cd" * 32}
    ]
    assert source["seed"] == 3
    assert source["instruction_sets"] == instruction_sets()
    assert source["packages"]["torch"]
    assert source["peak_memory_bytes"] > 10 * 2**20
    assert source["threads"] == torch.get_num_threads()
    assert source["seconds"] >= 0


def test_nothing_of_the_machine_is_in_it(run, tmp_path):
    text = run.finish().read_text()
    assert str(tmp_path) not in text
    assert "private" not in text
    assert os.path.expanduser("~") + "/" not in text
    assert json.dumps(platform.node()) not in text


@pytest.mark.parametrize("id", ["", "P1", "a b", "a-b", "é", 3, "a/b"])
def test_ids_are_checked(run, id):
    with pytest.raises(ValueError, match="id must be"):
        run.value(id, 1.0)
    with pytest.raises(ValueError, match="id must be"):
        run.table(id, pd.DataFrame())


def test_ids_are_taken_once(run):
    run.value("a", 1)
    run.table("a", pd.DataFrame({"x": [1]}))
    with pytest.raises(ValueError, match="already"):
        run.value("a", 2)
    with pytest.raises(ValueError, match="already"):
        run.table("a", pd.DataFrame())


@pytest.mark.parametrize(
    "arguments",
    [
        {"number": float("nan")},
        {"number": float("inf")},
        {"number": "many"},
        {"number": torch.ones(2)},
        {"number": 1.0, "n": 0},
        {"number": 1.0, "n": 1.5},
        {"number": 1.0, "n": True},
        {"number": 1.0, "ci": (1.0, 0.5)},
        {"number": 1.0, "ci": (0.5, float("inf"))},
    ],
)
def test_numbers_are_checked(run, arguments):
    with pytest.raises(ValueError):
        run.value("a", **arguments)
    assert run.values == {}


def test_a_record_appears_only_at_the_end(tmp_path):
    path = _filled(tmp_path)
    run = Run("p1_test", {}, tmp_path)
    assert not path.exists(), "the old record must not stand for the new run"
    run.value("a", 1)
    assert not path.exists()
    run.finish()
    assert path.exists()


def test_a_full_disk_leaves_no_record(tmp_path, monkeypatch):
    run = Run("p1_test", {}, tmp_path / "out")
    run.table("t", pd.DataFrame({"x": [1]}))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        run.finish()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_where_a_record_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XAICORE_OUTPUT_DIR", raising=False)
    assert Run("p1_test", {}).output_dir == tmp_path / "runs" / "custom" / "p1_test"
    monkeypatch.setenv("XAICORE_OUTPUT_DIR", str(tmp_path / "env"))
    assert Run("p1_test", {}).output_dir == tmp_path / "env"
    parameters = NotebookParameters.check({"output_dir": str(tmp_path / "param"), "device": "cpu"})
    assert Run("p1_test", parameters).output_dir == tmp_path / "param"
    assert Run("p1_test", parameters, tmp_path / "named").output_dir == tmp_path / "named"


def test_store_counters_and_edition(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    for _ in range(3):
        store.get_or_compute("step", 1, lambda: {"x": 1}, code=_filled)
    monkeypatch.setenv("XAICORE_EDITION", "quick")
    record = load_record(Run("p1_test", {}, tmp_path / "out", store=store).finish())
    assert record["provenance"]["store"] == {"computed": 1, "reused": 2}
    assert record["edition"] == "quick"


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("values"),
        lambda record: record.update(schema=2),
        lambda record: record.update(status="running"),
        lambda record: record["values"].update(x={"value": None}),
    ],
)
def test_damaged_records_are_refused_in_one_line(tmp_path, change):
    path = _filled(tmp_path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="not valid"):
        load_record(path)


def test_missing_and_unreadable_records(tmp_path):
    with pytest.raises(UserError, match="no record"):
        load_record(tmp_path / "record.json")
    (tmp_path / "record.json").write_text('{"schema"')
    with pytest.raises(UserError, match="cannot be read") as caught:
        load_record(tmp_path)
    assert str(tmp_path) not in str(caught.value)
