"""Kernels of notebooks: warm ones are like cold ones in all that a notebook can see, and gone when they should be."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest

from tests.toy import wait
from xaicore.book.running.kernel import DIED, Execution, OwnKernel
from xaicore.book.warm import FIXED_SEED, warm_kernels

ROOT = Path(__file__).parents[1]
VARIABLES = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "agg"}

# What could differ between a process that has imported everything itself and a copy of one that had.
STATE = """
import gc, json, locale, os, random, signal, sys, threading, warnings
import numpy as np
import torch

OWN = {"JPY_PARENT_PID", "JPY_SESSION_NAME", "LINES", "COLUMNS"}
handlers = {n.name: str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE)}
os.umask(mask := os.umask(0))
print(json.dumps({
    "environment": {name: value for name, value in os.environ.items() if name not in OWN},
    "folder": os.getcwd(),
    "arguments": [sys.argv[0], *sys.argv[3:]],
    "flags": [str(sys.flags), sys.warnoptions, sys.getrecursionlimit(), sys.executable],
    "handlers": handlers,
    "umask": mask,
    "parent": int(os.environ["JPY_PARENT_PID"]) == os.getppid(),
    "session": os.getsid(0) == os.getpid(),
    "main thread": threading.current_thread() is threading.main_thread(),
    "locale": [locale.getlocale(), sys.stdout.encoding],
    "hash": hash("a string"),
    "errors": np.geterr(),
    "collector": [gc.isenabled(), gc.get_threshold()],
    "torch": [
        torch.get_num_threads(), torch.get_num_interop_threads(), str(torch.get_default_dtype()),
        torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled,
    ],
    "underflow": (torch.tensor(1e-38) / 100).item(),
    "input": os.read(0, 1).decode(),
}))
"""
WARM = "import sys\nprint('toy_module' in sys.modules)"
SLEEP = "import os, time\nopen({!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are copies on Linux only")


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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which kernels are warm: they have imported a module of ours, and torch."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "toy_module.py").write_text("import torch\n")
    sources = [
        _notebook(folder / "damaged.ipynb", "1 +"),
        _notebook(folder / "imports.ipynb", "import no_such_module, toy_module"),
    ]
    with warm_kernels(_environment(folder), sources):
        yield folder


@linux
def test_a_warm_kernel_is_like_a_cold_one(place, tmp_path):
    _begin(place, "warm", STATE, WARM, NAMED="x", PYTHONPATH=str(ROOT)).join(120)
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests import test_kernel as t
t._begin(Path({str(place)!r}), "cold", t.STATE, t.WARM, NAMED="x", PYTHONPATH={str(ROOT)!r}).join(120)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    states, marks = zip(*(_printed(place, name).splitlines() for name in ("warm", "cold")), strict=True)
    assert marks == ("True", "False"), "both kernels are what they are said to be"
    one, two = map(json.loads, states)
    for key in two:
        assert one[key] == two[key], key
    assert one["torch"][0] == 1
    assert one["input"] == ""


@linux
def test_each_notebook_has_its_environment_and_its_random_numbers(place):
    cell = """
import os, random
import numpy as np
import torch
print(os.environ["NAMED"], torch.initial_seed(), torch.rand(1).item(), random.random(), np.random.rand())
"""
    copies = [_begin(place, name, cell, NAMED=name) for name in ("a", "b")]
    for copy in copies:
        copy.join(120)
        assert copy.problem is None
    (one, *first), (two, *second) = (_printed(place, name).split() for name in ("a", "b"))
    assert (one, two) == ("a", "b")
    assert (first[:2] == second[:2]) == (first[0] == str(FIXED_SEED))
    assert not set(first[2:]) & set(second[2:])
    assert "NAMED" not in os.environ


@pytest.mark.parametrize("warm", [pytest.param(True, marks=linux), False])
def test_what_came_of_a_notebook_is_told(tmp_path, warm):
    with warm_kernels(_environment(tmp_path), []) if warm else nullcontext():
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


@pytest.mark.parametrize(
    "warm", [pytest.param("t.warm_kernels(t._environment(folder), [])", marks=linux), "t.nullcontext()"]
)
def test_nothing_outlives_a_runner_that_is_killed(tmp_path, warm):
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests import test_kernel as t
folder = Path({str(tmp_path)!r})
with {warm}:
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
