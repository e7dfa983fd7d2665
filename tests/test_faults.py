"""What ARCHITECTURE lists under "Failing well", as a user meets it: one clear line, nothing half-written, nothing lost.

Damaged entries of the store, weights that mean harm and wrong folders have tests of their own in test_store.py,
test_models_weights.py and test_data_folders.py; killed runners and kernels in test_runner.py and test_kernel.py.
"""

import ast
import gzip
import hashlib
import io
import os
import pickle
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests import toy
from xaicore import data, models
from xaicore.book import cli
from xaicore.book.running import planning
from xaicore.book.running.runner import completed_runs, run
from xaicore.core.errors import UserError
from xaicore.core.files import is_disk_full, one_line, replace_folder, restore_folder
from xaicore.models.weights import check_cached
from xaicore.run.records import Run, load_record
from xaicore.run.store import Store

ROOT = Path(__file__).resolve().parent.parent
PAGE = os.sysconf("SC_PAGE_SIZE")
FULL = "the disk is full: {} was not written; free some space and run again, the rest is kept"

project = toy.project
Disk = Callable[[Path, int], None]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# A full disk


def test_a_store_on_a_full_disk_keeps_what_it_has(tmp_path: Path, small_disk: Disk) -> None:
    small_disk(tmp_path / "disk", 2**20)

    def work(k: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((75_000,), float(k))}  # 300 kB, so the fourth does not fit

    store = Store(tmp_path / "disk")
    for k in range(3):
        store.get_or_compute("a step", k, lambda k=k: work(k), code=work)
    with pytest.raises(UserError) as caught:
        store.get_or_compute("a step", 3, lambda: work(3), code=work)
    assert str(caught.value) == FULL.format("a result of a step")
    kept = files(tmp_path / "disk")
    assert store.computed == len(kept) == 3
    assert all(name.endswith(".safetensors") for name in kept)
    small_disk(tmp_path / "disk", 2**22)
    again = Store(tmp_path / "disk")
    for k in range(9):
        assert (again.get_or_compute("a step", k, lambda k=k: work(k), code=work)["x"] == k).all()
    assert (again.reused, again.computed) == (3, 6)


def test_a_record_on_a_full_disk_is_not_there_at_all(tmp_path: Path, small_disk: Disk) -> None:
    small_disk(tmp_path / "disk", 2**18)

    def results() -> Run:
        found = Run("toy", {"seed": 0}, tmp_path / "disk")
        found.value("sum", 45.0)
        found.table("small", pd.DataFrame({"a": range(10)}))
        found.table("large", pd.DataFrame({"a": range(60_000)}))
        return found

    with pytest.raises(UserError) as caught:
        results().finish()
    assert str(caught.value) == FULL.format("the table large")
    assert files(tmp_path / "disk") == {"tables/small.csv"}, "without record.json nothing counts as a run"
    (tmp_path / "disk" / "filler").write_bytes(bytes(2**18 - 4 * PAGE))
    small = Run("toy", {"seed": 0, "note": "x" * 3 * PAGE}, tmp_path / "disk")
    with pytest.raises(UserError) as caught:
        small.finish()
    assert str(caught.value) == FULL.format("the record of toy")
    assert files(tmp_path / "disk") == {"tables/small.csv", "filler"}
    small_disk(tmp_path / "disk", 2**21)
    results().finish()
    assert load_record(tmp_path / "disk")["values"]["sum"]["value"] == 45.0


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_on_a_full_disk_leave_the_old_ones(tmp_path: Path, small_disk: Disk, suffix: str) -> None:
    small_disk(tmp_path / "disk", 2**18)
    small = models.load("small_cnn", classes=3, channels=1, width=0.125)
    path = models.save(small, tmp_path / "disk" / f"w{suffix}")
    before = path.read_bytes()
    large = models.load("small_cnn", classes=3, channels=1, width=1.0)
    with pytest.raises(UserError) as caught:
        models.save(large, path)
    assert str(caught.value) == FULL.format("the weights file")
    assert files(tmp_path / "disk") == {path.name}
    assert path.read_bytes() == before


def test_a_run_on_a_full_disk_continues_when_there_is_room(
    project: Path, small_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "ROOM_BYTES", 0)  # else it says so before anything starts
    runs = project / "runs"
    for place, pages, lost in (
        ("", 1, "toy failed: " + FULL.format("the executed notebook")),
        ("", 12, "toy failed: " + FULL.format("the executed notebook")),
        ("store", 6, "toy failed in cell 3: UserError: " + FULL.format("a result of halve")),
    ):
        if place:
            small_disk(runs, 2**22)
        small_disk(runs / place, pages * PAGE)
        screen = toy.Screen()
        assert run(project, "quick", show=screen) == 1
        assert screen.lines[-1] == lost
        assert not any(str(project) in said for said in screen.lines)
        assert completed_runs(project, "quick") == {}
        assert not (runs / "quick" / "toy").exists()
    kept = len(toy.batches(project))
    assert kept < toy.BATCHES

    small_disk(runs / "store", 2**22)
    assert run(project, "quick", show=toy.Screen()) == 0
    record = load_record(completed_runs(project, "quick")["toy"])
    assert record["provenance"]["store"] == {"computed": toy.BATCHES - kept, "reused": kept}
    assert record["values"]["sum"]["value"] == 22.5


def test_a_run_that_cannot_begin_on_a_full_disk_is_one_line(
    project: Path, small_disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "ROOM_BYTES", 0)
    small_disk(project / "runs", PAGE)
    (project / "runs" / "filler").write_bytes(bytes(PAGE))
    monkeypatch.chdir(project)
    assert cli.main(["run", "--edition", "quick"]) == 2
    assert capsys.readouterr().err == f"xaibook: {FULL.format('the folder of the run')}\n"
    (project / "runs" / "filler").unlink()
    assert completed_runs(project, "quick") == {}


def test_a_disk_that_is_as_good_as_full_is_told_before_anything_starts(
    project: Path, small_disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_disk(project / "runs", 2**20)
    monkeypatch.chdir(project)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("something was started"))
        assert cli.main(["run", "--edition", "quick"]) == 2
    said = capsys.readouterr()
    assert said.err == "xaibook: only 1 MiB are free on the disk of the runs; make room for 200\n"
    assert said.out == ""


def test_what_the_disk_does_not_allow_is_one_line() -> None:
    with (
        pytest.raises(UserError, match=r"^the book cannot be written: html: Permission denied$"),
        one_line("the book"),
    ):
        raise PermissionError(13, "Permission denied", "/somewhere/html")
    with pytest.raises(FileNotFoundError), one_line("the book"):
        raise FileNotFoundError(2, "No such file", "/somewhere/html")
    assert is_disk_full(shutil_error("[Errno 28] No space left on device"))
    assert not is_disk_full(shutil_error("[Errno 2] No such file or directory"))


def shutil_error(why: str) -> OSError:
    import shutil

    return shutil.Error([("a", "b", why)])


# Damage between two runs


def test_a_damaged_entry_costs_its_own_batch_only(project: Path) -> None:
    assert run(project, "quick", show=toy.Screen()) == 0
    first = load_record(completed_runs(project, "quick")["toy"])
    entry = sorted(toy.batches(project))[3]
    content = bytearray(entry.read_bytes())
    content[-3] ^= 4
    entry.write_bytes(content)
    record = project / "runs" / "quick" / "toy" / "record.json"
    record.write_bytes(record.read_bytes()[:-40])
    assert completed_runs(project, "quick") == {}, "a run whose record is damaged is to be made again"
    screen = toy.Screen()
    assert run(project, "quick", show=screen) == 0
    assert "toy: a stored result of halve is damaged and is computed anew" in screen.lines
    again = load_record(completed_runs(project, "quick")["toy"])
    assert again["provenance"]["store"] == {"computed": 1, "reused": toy.BATCHES - 1}
    assert again["values"] == first["values"]


def test_a_finished_folder_takes_the_place_of_another_or_that_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "results" / "run"

    def new(text: str) -> Path:
        folder = tmp_path / "partial"
        folder.mkdir()
        (folder / "a").write_text(text)
        return folder

    for text in ("one", "two"):
        replace_folder(new(text), target)
        assert (target / "a").read_text() == text
    assert {path.name for path in target.parent.iterdir()} == {"run"}
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "no such folder", target)
    assert (target / "a").read_text() == "two"

    rename, killed = Path.rename, RuntimeError("the process ends between the two renames")

    def once(self: Path, to: Path) -> Path:
        if to == target:
            raise killed
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(RuntimeError):
        replace_folder(new("three"), target)
    monkeypatch.undo()
    assert not target.exists()
    restore_folder(target)
    assert (target / "a").read_text() == "two"


def test_ctrl_c_is_one_line_and_keeps_what_is_finished(project: Path) -> None:
    toy.set_edition(project, {"toy": {"nap": 0.4}})
    process = subprocess.Popen(
        toy.command(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a script in the background ignores it
    )
    toy.wait(lambda: len(toy.batches(project)) >= 2)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out.splitlines()[-1] == "interrupted; run again to continue, finished batches are kept"
    assert error == ""
    assert not (project / "runs" / "quick" / "toy").exists()
    kept = len(toy.batches(project))
    assert 2 <= kept < toy.BATCHES
    time.sleep(1)
    assert len(toy.batches(project)) == kept, "the kernel must not outlive the runner"


# One bad file among many


def test_one_corrupt_image_among_thousands_stops_the_run_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 200), ("test", 800)):
        for name in ("cat", "dog"):
            folder = project / "cats-vs-dogs" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                picture.save(folder / f"{name}.{k}.jpg")
    bad = project / "cats-vs-dogs" / "test" / "dog" / "dog.666.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    toy.set_edition(project, {"toy": {"dataset": "cats-vs-dogs"}})
    monkeypatch.setenv("XAICORE_DATA", str(project))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("something was started"))
    monkeypatch.chdir(project)
    assert cli.main(["run", "--edition", "quick"]) == 2
    said = capsys.readouterr()
    assert re.fullmatch(
        r"xaibook: cats-vs-dogs/test/dog/dog\.666\.jpg is corrupt or no image \(.+\); replace or remove the file\n",
        said.err,
    )
    assert files(project / "runs") == {"quick/.toy.lock"}


# Weights that are truncated, that mean harm, or that do not fit


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("kind", ["truncated", "hostile"])
def test_bad_weights_stop_the_run_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = project / "w.pt"
    models.save(models.load("small_cnn", classes=10, channels=1), path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        torch.save({"features.0.weight": Hostile(project / "executed")}, path)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("something was started"))
    monkeypatch.chdir(project)
    assert cli.main(["run", "--edition", "quick", "-p", "weights", "w.pt"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("xaibook: toy: w.pt ")
    assert re.search("truncated|nothing of it was executed", said)
    assert said.count("\n") == 1
    assert not (project / "executed").exists()


def test_a_downloaded_file_that_was_damaged_since_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    file.write_bytes(pickle.dumps(Hostile(tmp_path / "executed")))
    with pytest.raises(
        UserError, match=r"^the downloaded file resnet18-f37072fd\.pth is damaged; delete it"
    ) as caught:
        models.load("resnet18", classes=2, weights="imagenet")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "executed").exists()
    check_cached(file, hashlib.sha256(file.read_bytes()).hexdigest()[:8])
    check_cached(tmp_path / "none.pth", "0")


@pytest.mark.parametrize("zipped", [True, False], ids=["of today", "of old"])
def test_published_weights_are_read_as_data_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    """torchvision's files are of both kinds; a hostile one with the right sum in its name executes nothing."""
    import torchvision

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("xaicore.models.registry.check_cached", lambda file, digest: None)
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    with torch.random.fork_rng():
        published = torchvision.models.resnet18().state_dict()
    torch.save(published, file, _use_new_zipfile_serialization=zipped)
    found = models.load("resnet18", weights="imagenet").network
    assert torch.equal(found.fc.weight, published["fc.weight"])
    torch.save({"a": Hostile(tmp_path / "executed")}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as caught:
        models.load("resnet18", weights="imagenet")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


# Archives


def test_no_archive_is_ever_unpacked() -> None:
    """So no member of one can be written where it should not; gzip, which has no members, is read in bounds.

    A ZIP is written, for the EPUB, and opened in no other mode.
    """
    unpacking = {"tarfile", "shutil.unpack_archive", "unpack_archive", "extract", "extractall", "PyZipFile"}
    for path in (ROOT / "xaicore").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or "", *(alias.name for alias in node.names)}
                assert node.module != "zipfile", path.name
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "zipfile.ZipFile":
                assert ast.literal_eval(node.args[1]) == "w", path.name
            elif isinstance(node, ast.Attribute):
                names = {node.attr}
            assert not names & unpacking, path.name


def test_a_gzip_file_that_would_fill_the_memory_is_not_unpacked(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with gzip.open(bomb, "wb") as file:
        file.write(bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (60000, 28, 28)))
        for _ in range(64):
            file.write(bytes(2**20))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(bomb.getvalue())
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(
        bytes([0, 0, 8, 1]) + (60000).to_bytes(4, "big") + bytes(60000)
    )
    with pytest.raises(UserError, match="does not hold the 47040000 bytes that it announces"):
        data.load("mnist", tmp_path, "train")
    claims = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2**31, 2**31, 2**31))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(claims))
    with pytest.raises(UserError, match="fetch it again"):
        data.load("mnist", tmp_path, "train")


# A cell that never ends


ENDLESS = """
import os, signal, time
from pathlib import Path

Path(f"kernel-{os.getpid()}").touch()
if end == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(1)
"""


def test_a_cell_that_never_ends_is_ended(project: Path) -> None:
    """Also one that no signal but the last ends. (That the next run continues, ``test_runner`` shows of any failure.)"""
    limit = 8  # the cells before import nothing
    for name in ("toy", "other"):
        toy.write_notebook(project, name, ENDLESS)
    toy.set_edition(project, {"toy": {"end": "never"}, "other": {"end": "stubborn"}}, cell_seconds=limit)
    screen = toy.Screen()
    assert run(project, "quick", show=screen) == 1
    assert sorted(line for line in screen.lines if "failed" in line) == [
        f"{name} failed in cell 4: took longer than the {limit} seconds that a cell may take and was ended; choose "
        "smaller parameters or raise cell_seconds in the edition's file, then run again: finished batches are kept"
        for name in ("other", "toy")
    ]
    assert completed_runs(project, "quick") == {}
    assert not list((project / "runs").rglob("toy/*"))
    assert "record.json" not in files(project / "runs" / "quick" / ".toy.failed")
    kernels = list(project.glob("kernel-*"))
    assert len(kernels) == 2
    for kernel in kernels:
        with pytest.raises(ProcessLookupError):
            os.kill(int(kernel.name.removeprefix("kernel-")), 0)
