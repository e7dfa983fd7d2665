"""The runner, on a small notebook: killed, failing, dying, interrupted; nothing half-done is left."""

import io
import json
import re
import signal
import subprocess
import time

import nbformat
import pytest
from rich.console import Console
from rich.text import Text

from tests import toy
from tests.toy import BATCHES, Screen, batches, command, set_edition, wait
from xaicore.book.running.display import Bars, PlainLines, Row
from xaicore.book.running.runner import completed_runs, run
from xaicore.core.errors import UserError
from xaicore.run.records import load_record

project = toy.project


def test_a_killed_run_continues_and_ends_like_an_undisturbed_one(project):
    set_edition(project, {"toy": {"nap": 0.4}})
    killed = subprocess.Popen(command(project), stdout=subprocess.DEVNULL)
    wait(lambda: len(batches(project)) >= 2)
    with pytest.raises(UserError, match="another run of quick is under way"):
        run(project, "quick", show=Screen())
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert completed_runs(project, "quick") == {}
    assert not (project / "runs" / "quick" / "toy").exists()
    time.sleep(2.5)  # the orphaned kernel notices within a second or two
    kept = len(batches(project))
    assert 2 <= kept < BATCHES, "the kernel must not outlive the runner"

    screen = Screen()
    assert run(project, "quick", show=screen) == 0
    folder = completed_runs(project, "quick")["toy"]
    record = load_record(folder)
    assert record["provenance"]["store"] == {"computed": BATCHES - kept, "reused": kept}
    assert record["edition"] == "quick"
    assert {path.name for path in folder.iterdir()} == {"notebook.ipynb", "record.json", "status.json"}
    assert any(line.startswith("toy: halve") for line in screen.lines)
    assert screen.lines[-1].startswith("toy: completed in ")
    text = (folder / "notebook.ipynb").read_text()
    assert str(project) not in text
    assert "papermill" not in text
    assert "iopub" not in text

    again = Screen()
    assert run(project, "quick", show=again) == 0
    assert again.lines == ["toy: up to date"]

    set_edition(project, {"toy": {"nap": 0.4}}, expected_memory_mb=1)
    first = project / "first"
    folder.rename(first)
    large = Screen()
    assert run(project, "quick", fresh=True, show=large) == 0
    assert re.fullmatch(r"toy: took \d{2,4} MiB, the edition says 1 at most", large.lines[-1])
    undisturbed = load_record(folder)
    assert undisturbed["provenance"]["store"] == {"computed": BATCHES, "reused": 0}
    before, now = load_record(first), load_record(folder)
    assert all(now[part] == before[part] for part in ("notebook", "parameters", "values", "tables"))
    assert (first / "notebook.ipynb").read_bytes() == (folder / "notebook.ipynb").read_bytes()


def test_notebooks_of_an_edition_run_as_independent_processes(project):
    """As the lines of a job array on several machines with a common folder would."""
    set_edition(project, {"toy": {"nap": 0.3}, "other": {"nap": 0.3, "seed": 1}})
    line = subprocess.Popen(command(project, "toy"), stdout=subprocess.DEVNULL)
    wait(lambda: len(batches(project)) >= 1)
    with pytest.raises(UserError, match="another run of quick is under way for toy; wait for it"):
        run(project, "quick", only="toy,other", show=Screen())
    screen = Screen()
    assert run(project, "quick", only="other", show=screen) == 0
    assert line.wait(timeout=120) == 0
    assert not any("waiting" in said for said in screen.lines)
    assert set(completed_runs(project, "quick")) == {"toy", "other"}
    again = Screen()
    assert run(project, "quick", show=again) == 0
    assert sorted(again.lines) == ["other: up to date", "toy: up to date"]


def test_failures_are_one_line_each_and_leave_nothing_under_the_final_name(project):
    set_edition(project, {"toy": {"end": "mistake"}, "other": {"end": "kill"}})
    screen = Screen()
    assert run(project, "quick", show=screen) == 1
    ends = [line for line in screen.lines if "failed" in line]
    assert sorted(ends) == [
        "other failed: the kernel died (killed, perhaps out of memory); run again, finished batches are kept",
        "toy failed in cell 5: UserError: the folder is not there; name another",
    ]
    assert completed_runs(project, "quick") == {}
    runs = project / "runs" / "quick"
    assert {path.name for path in runs.iterdir()} == {
        ".toy.lock",
        ".other.lock",
        ".toy.failed",
        ".other.failed",
        "toy.log",
        "other.log",
    }
    status = json.loads((runs / ".toy.failed" / "status.json").read_text())
    assert status["state"] == "failed"
    cells = nbformat.read(runs / ".toy.failed" / "notebook.ipynb", as_version=4).cells
    assert cells[4].outputs[0].output_type == "error"
    assert len(batches(project)) == BATCHES, "both notebooks make the same batches"
    set_edition(project, {"toy": {}})
    again = Screen()
    assert run(project, "quick", show=again) == 0
    assert f"0 steps computed, {BATCHES} taken from the store" in again.lines[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": "p9"}, "no notebook 'p9' in the edition quick; it has toy"),
        ({"overrides": {"nape": "1"}}, "unknown parameter 'nape'; did you mean 'nap'"),
        ({"overrides": {"nap": "abc"}}, "toy: parameter nap: 'abc' is not a number"),
        ({"overrides": {"output_dir": "x"}}, "toy: output_dir is chosen by the runner"),
        ({"overrides": {"model": "vgg61"}}, "toy: parameter model: there is no 'vgg61'"),
        ({"overrides": {"device": "cuda:99"}}, "toy: parameter device: cuda:99"),
        ({"overrides": {"dataset": "cats-vs-dogs"}}, "toy: cats-vs-dogs is read from a folder"),
        (
            {"overrides": {"dataset": "cats-vs-dogs", "data_root": "nowhere"}},
            "toy: there is no folder nowhere",
        ),
        ({"overrides": {"n_images": "1000000"}}, "toy: .*1000000"),
        ({"overrides": {"weights": "nowhere.pt"}}, "toy: .*nowhere.pt"),
        ({"engine": "ray://head:x"}, "'ray://head:x' is no address of a Ray cluster"),
        ({"edition": "slow"}, "there is no edition 'slow'; there are quick"),
    ],
)
def test_what_is_known_to_be_wrong_is_said_before_anything_starts(project, monkeypatch, options, message):
    monkeypatch.delenv("XAICORE_DATA", raising=False)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("something was started"))
    options = {"edition": "quick", **options}
    with pytest.raises(UserError, match=message) as caught:
        run(project, show=Screen(), **options)
    assert "\n" not in str(caught.value)


def test_a_notebook_waits_for_those_it_needs(project):
    set_edition(project, {"toy": {}})
    content = json.loads((project / "editions" / "quick.yml").read_text())
    content["notebooks"]["other"] = {"expected_seconds": 1, "after": ["toy"]}
    (project / "editions" / "quick.yml").write_text(json.dumps(content))
    with pytest.raises(UserError, match="other needs toy, which has no complete run; run it too"):
        run(project, "quick", only="other", show=Screen())


def test_progress_lines_come_with_every_step_and_every_quarter_minute(tmp_path, capsys, monkeypatch):
    path = tmp_path / "progress"
    row = Row("toy", 75.0, state="running", begin=time.monotonic())
    screen = PlainLines()

    def tell(text):
        with path.open("a") as file:
            file.write(text)
        row.follow(path)
        screen.update([row])

    tell('{"step": "train", "done": 0, "total": 3}\n{"step": "train", "do')
    tell('ne": 1, "total": 3}\n')
    tell('{"step": "attack", "done": 0, "total": 2}\n{"warning": "a stored result is damaged"}\n')
    assert capsys.readouterr().out.splitlines() == [
        "toy: train 0/3, 0:00 of about 1:15",
        "toy: attack 0/2, 0:00 of about 1:15",
    ]
    assert row.warnings == ["a stored result is damaged"]
    later = time.monotonic() + 16
    monkeypatch.setattr(time, "monotonic", lambda: later)
    screen.update([row])
    assert capsys.readouterr().out.splitlines() == ["toy: attack 0/2, 0:16 of about 1:15"]


def test_a_terminal_has_bars_with_the_expected_time():
    rows = [
        Row("toy", 100.0, state="running", begin=time.monotonic() - 25, step="attack", done="1/4"),
        Row("late", 10.0, state="running", begin=time.monotonic() - 25),
        Row("done", 60.0, state="completed", begin=1.0, seconds=30.0),
        Row("next", 60.0),
    ]
    assert [row.share for row in rows] == [pytest.approx(0.25, abs=0.2), 0.99, 1, 0]
    screen = Bars()
    screen._live.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    screen.update(rows)
    screen._live.console.print(screen._live.renderable)
    lines = Text.from_ansi(screen._live.console.file.getvalue()).plain.splitlines()
    full = [sum(map(line.count, "━╸╺")) for line in lines]
    assert full == [20] * 4
    assert [re.sub("[━╸╺]+", "|", line).split() for line in lines[:1] + lines[2:]] == [
        ["toy", "|", "0:25", "of", "about", "1:40", "attack", "1/4"],
        ["done", "|", "0:30", "of", "about", "1:00", "completed"],
        ["next", "|", "0:00", "of", "about", "1:00", "waiting"],
    ]
