"""Kernels of notebooks: what came of one is told, and none outlives its runner."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat

from tests.toy import wait
from xaicore.book.running.kernel import DIED, Execution, OwnKernel

ROOT = Path(__file__).parents[1]
VARIABLES = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "agg"}

SLEEP = "import os, time\nopen({!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"


def _notebook(path, *cells):
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code), path)
    return path


def _environment(folder, **more):
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    path = f"{ROOT}{os.pathsep}{folder}"
    return {**inherited, "PYTHONPATH": path, "PYTHONHASHSEED": "0", **VARIABLES, **more}


def _begin(folder, name, *cells, seconds=600, **variables):
    source, output = _notebook(folder / f"{name}.ipynb", *cells), folder / f"{name}.out.ipynb"
    environment = _environment(folder, **variables)
    execution = Execution(
        source, output, {}, folder=folder, environment=environment, log=folder / "log", cell_seconds=seconds
    )
    execution.start()
    return execution


def _printed(folder, name):
    cells = nbformat.read(folder / f"{name}.out.ipynb", as_version=4).cells
    return "".join(output.text for cell in cells for output in cell.outputs if output.name == "stdout")


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_came_of_a_notebook_is_told(tmp_path):
    killed = _begin(tmp_path, "killed", "import os\nos.kill(os.getpid(), 9)")
    wrong = _begin(tmp_path, "wrong", "1 + 1", "raise ValueError('too much')")
    endless = _begin(tmp_path, "endless", "1 + 1", "while True: pass", seconds=2)
    stopped = _begin(tmp_path, "stopped", SLEEP.format("stopped.pid"))
    pid = tmp_path / "stopped.pid"
    wait(lambda: pid.is_file() and pid.read_text())
    stopped.stop()
    for execution in (killed, wrong, endless, stopped):
        execution.join(120)
        assert not execution.is_alive()
    assert killed.problem == stopped.problem == f": {DIED}"
    assert wrong.problem == " in cell 2: ValueError: too much"
    assert endless.problem.startswith(" in cell 2: took longer than the 2 seconds")
    assert len(nbformat.read(tmp_path / "wrong.out.ipynb", as_version=4).cells) == 2
    assert not _alive(int(pid.read_text()))


def test_nothing_outlives_a_runner_that_is_killed(tmp_path):
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests import test_kernel as t
folder = Path({str(tmp_path)!r})
t._begin(folder, "sleeper", t.SLEEP.format("sleeper.pid")).join()
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    path = tmp_path / "sleeper.pid"
    wait(lambda: path.is_file() and path.read_text())
    pid = int(path.read_text())
    assert _alive(pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait(lambda: not _alive(pid), 10)


def test_the_kernel_is_of_this_python(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert OwnKernel().kernel_spec.argv[0] == sys.executable


def test_what_papermill_cannot_read_is_told_as_it_is(tmp_path):
    source = tmp_path / "damaged.ipynb"
    source.write_text("no notebook")
    environment = _environment(tmp_path)
    execution = Execution(
        source,
        tmp_path / "out.ipynb",
        {},
        folder=tmp_path,
        environment=environment,
        log=tmp_path / "log",
        cell_seconds=9,
    )
    execution.start()
    execution.join(60)
    assert execution.problem.startswith(": ")
    assert "kernel died" not in execution.problem
    assert str(tmp_path) not in execution.problem
