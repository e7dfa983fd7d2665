"""The store: what comes out is what went in, damaged entries are made anew, any number of writers."""

import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from xaicore.core.errors import UserError
from xaicore.run.store import Store, default_root

CONTENT = {
    "success": torch.tensor([True, False]),
    "labels": torch.tensor([1, 2]),
    "images": torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)),
    "half": torch.tensor([0.5, -1.0], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(3.0),
    "history": [{"epoch": 1, "loss": 0.25}],
    "best": 3,
    "name": "ε",
    "nothing": None,
}


def work():
    return CONTENT


def _only_entry(store):
    (entry,) = store.root.rglob("*.safetensors")
    return entry


def test_what_comes_out_is_what_went_in(tmp_path):
    first = Store(tmp_path).get_or_compute("Train the model!", {"seed": 1}, work, code=work)
    store = Store(tmp_path)
    again = store.get_or_compute(
        "Train the model!", {"seed": 1}, lambda: pytest.fail("computed again"), code=work
    )
    assert (first.reused, again.reused, store.reused, store.computed) == (False, True, 1, 0)
    assert again.seconds == first.seconds
    assert list(first) == list(again) == list(CONTENT)
    for name, value in CONTENT.items():
        for found in (first[name], again[name]):
            if isinstance(value, torch.Tensor):
                assert found.dtype == value.dtype
                assert torch.equal(found, value)
            else:
                assert found == value


def test_computed_values_look_as_they_will_when_found(tmp_path):
    view = torch.arange(6).reshape(2, 3).t()
    made = {"pair": (1, 2), "array": np.arange(3)[::-1], "number": np.float64(0.5), "view": view}
    first = Store(tmp_path).get_or_compute("step", 0, lambda: made, code=work)
    again = Store(tmp_path).get_or_compute("step", 0, lambda: made, code=work)
    for result in (first, again):
        assert result["pair"] == [1, 2]
        assert result["array"].tolist() == [2, 1, 0]
        assert isinstance(result["number"], float)
        assert torch.equal(result["view"], view)


@pytest.mark.parametrize("bad", [{"f": object()}, {1: 2}, [1]])
def test_what_cannot_be_kept_is_refused(tmp_path, bad):
    with pytest.raises(TypeError, match="step"):
        Store(tmp_path).get_or_compute("step", 0, lambda: bad, code=work)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_inputs_step_threads_and_versions_make_the_address(tmp_path, monkeypatch):
    store = Store(tmp_path)
    base = store.address("step", {"x": torch.ones(2)}, code=work)
    assert base == store.address("step", {"x": torch.ones(2)}, code=work)
    assert base != store.address("step", {"x": torch.zeros(2)}, code=work)
    assert base != store.address("other", {"x": torch.ones(2)}, code=work)
    assert base != store.address("step", {"x": torch.ones(2)}, code=_only_entry)
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    assert base != store.address("step", {"x": torch.ones(2)}, code=work)
    monkeypatch.undo()
    monkeypatch.setattr("xaicore.run.store.versions", lambda packages: {"torch": "0"})
    assert base != store.address("step", {"x": torch.ones(2)}, code=work)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 100),
    ],
    ids=["a flipped bit", "truncated", "empty", "garbage"],
)
def test_a_damaged_entry_is_told_and_made_anew(tmp_path, monkeypatch, capfd, damage):
    monkeypatch.setenv("XAICORE_PROGRESS", str(tmp_path / "progress"))
    Store(tmp_path).get_or_compute("step", 0, work, code=work)
    damage(_only_entry(Store(tmp_path)))
    store = Store(tmp_path)
    result = store.get_or_compute("step", 0, work, code=work)
    assert store.computed == 1
    assert torch.equal(result["images"], CONTENT["images"])
    (line,) = (tmp_path / "progress").read_text().splitlines()
    assert "damaged" in json.loads(line)["warning"]
    assert capfd.readouterr() == ("", "")
    assert Store(tmp_path).get_or_compute("step", 0, work, code=work).reused


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full") as caught:
        Store(tmp_path).get_or_compute("step", 0, work, code=work)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_store_that_does_not_read_still_uses_what_it_wrote(tmp_path, monkeypatch):
    Store(tmp_path).get_or_compute("step", 0, work, code=work)
    monkeypatch.setenv("XAICORE_STORE_READ", "0")
    store = Store(tmp_path)
    assert not store.get_or_compute("step", 0, work, code=work).reused
    assert store.get_or_compute("step", 0, work, code=work).reused


def test_leftovers_of_killed_writers_go_after_a_day(tmp_path):
    folder = tmp_path / "step"
    folder.mkdir()
    old, new = folder / ".a.tmp", folder / ".b.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    Store(tmp_path).get_or_compute("step", 0, work, code=work)
    assert (old.exists(), new.exists()) == (False, True)


def test_processes_that_write_the_same_entries_do_not_disturb_each_other(tmp_path):
    code = (
        "import sys, torch; from xaicore.run.store import Store, default_root\n"
        "store = Store(sys.argv[1])\n"
        "for k in range(20):\n"
        "    r = store.get_or_compute('s', k, lambda: {'x': torch.full((9000,), k)}, code=default_root)\n"
        "    assert (r['x'] == k).all()\n"
    )
    environment = {**os.environ, "XAICORE_PROGRESS": str(tmp_path / "progress"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    writers = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert not (tmp_path / "progress").exists(), "an entry was taken for damaged"
    assert len(list((tmp_path / "store").rglob("*.safetensors"))) == 20
    assert not list((tmp_path / "store").rglob("*.tmp"))


def test_where_the_store_lies(tmp_path, monkeypatch):
    monkeypatch.delenv("XAICORE_STORE", raising=False)
    project = tmp_path / "project"
    for name in ("editions", "notebooks"):
        (project / name).mkdir(parents=True)
    (project / "pyproject.toml").touch()
    monkeypatch.chdir(project / "notebooks")
    assert default_root() == project / "runs" / "store"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_root() == tmp_path / "cache" / "xaicore" / "store"
    monkeypatch.setenv("XAICORE_STORE", str(tmp_path / "named"))
    assert default_root() == tmp_path / "named"
