"""Warm processes for notebooks: like cold ones in all that a notebook can see, and gone when they should be."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import torch

from tests.toy import wait
from xaicore.book import processes, runner
from xaicore.book.kernel import DIED
from xaicore.book.planning import Task
from xaicore.book.processes import FORKS, ForkServer, ForkServers
from xaicore.book.warm_kernel import FIXED_SEED

ROOT = Path(__file__).parents[1]
VARIABLES = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "agg"}

# What could differ between a process that has imported everything itself and a copy of one that had.
STATE = """
import gc, json, locale, multiprocessing, os, random, signal, sys, threading, warnings
import numpy as np
import torch

OWN = {"JPY_PARENT_PID", "JPY_SESSION_NAME", "JUPYTER_PATH", "NAMED"}
handlers = {n.name: str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE)}
os.umask(mask := os.umask(0))
print(json.dumps({
    "environment": {name: value for name, value in os.environ.items() if name not in OWN},
    "folder": os.getcwd(),
    "path": sys.path,
    "arguments": [sys.argv[0], *sys.argv[3:]],
    "flags": [str(sys.flags), sys.warnoptions, sys.getrecursionlimit(), sys.executable],
    "filters": sorted(str(entry) for entry in warnings.filters),
    "handlers": handlers,
    "umask": mask,
    "parent": int(os.environ["JPY_PARENT_PID"]) == os.getppid(),
    "session": os.getsid(0) == os.getpid(),
    "main thread": threading.current_thread() is threading.main_thread(),
    "processes": [multiprocessing.get_start_method(), str(multiprocessing.parent_process())],
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
WARM = "import sys, torch\nprint('papermill' in sys.modules)"  # a cold kernel has no need of it

pytestmark = pytest.mark.skipif(not FORKS, reason="there is no fork server on this system")


def _notebook(path, *cells):
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code), path)
    return path


def _environment(**more):
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", **VARIABLES, **more}


class Place:
    """A folder with notebooks, and what is needed to execute one."""

    def __init__(self, folder, server=None):
        self.folder, self.server = folder, server

    def job(self, name, *cells, parent):
        job = {
            "notebook": str(_notebook(self.folder / f"{name}.ipynb", *cells)),
            "output": str(self.folder / f"{name}.out.ipynb"),
            "parameters": {},
            "folder": str(self.folder),
            "cell_seconds": 600,
            "outcome": str(self.folder / f"{name}.json"),
            "parent": parent,
        }
        path = self.folder / f"{name}.job"
        path.write_text(json.dumps(job))
        (self.folder / f"{name}.log").touch()
        return path

    def start(self, name, *cells, cold=None, **variables):
        path = self.job(name, *cells, parent=self.server.pid)
        return self.server.start(path, self.folder / f"{name}.log", variables, cold or _unwanted)

    def cold(self, name, *cells, **variables):
        path = self.job(name, *cells, parent=os.getpid())
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "xaicore.book.kernel", str(path)],
                cwd=self.folder,
                env=_environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def outcome(self, name):
        return json.loads((self.folder / f"{name}.json").read_text())

    def printed(self, name):
        cells = nbformat.read(self.folder / f"{name}.out.ipynb", as_version=4).cells
        return "".join(output.text for cell in cells for output in cell.outputs if output.name == "stdout")


def _unwanted():
    pytest.fail("a cold process was started")


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    server = ForkServer(folder, _environment(), [_notebook(folder / "imports.ipynb", STATE)])
    yield Place(folder, server)
    server.close()
    assert not _alive(server.pid)


SLEEP = """
import os, time
from pathlib import Path
Path({!r}).write_text(f"{{os.getpid()}} {{os.getppid()}}")
time.sleep(600)
"""


def _pids(path):
    """Return the processes of a kernel and of the job whose child it is, once it is at work."""
    wait(lambda: path.is_file() and len(path.read_text().split()) == 2)
    kernel, job = map(int, path.read_text().split())
    assert _alive(kernel)
    assert _alive(job)
    return kernel, job


def test_a_warm_kernel_is_like_a_cold_one(place):
    warm, cold = place.start("warm", STATE, WARM, NAMED="x"), place.cold("cold", STATE, WARM, NAMED="x")
    assert (warm.wait(60), cold.wait(60)) == (0, 0)
    assert place.outcome("warm") == place.outcome("cold") == {"state": "completed"}
    states, marks = zip(*(place.printed(name).splitlines() for name in ("warm", "cold")), strict=True)
    assert marks == ("True", "False"), "both kernels are what they are said to be"
    one, two = map(json.loads, states)
    for key in two:
        assert one[key] == two[key], key
    assert one["torch"][0] == 1
    assert one["input"] == ""
    # A kernel that is slow to end is interrupted, and says so; which of the two that meets is chance.
    logs = [
        [
            line
            for line in (place.folder / f"{name}.log").read_text().splitlines()
            if "KeyboardInterrupt" not in line
        ]
        for name in ("warm", "cold")
    ]
    assert logs[0] == logs[1]


def test_each_notebook_has_its_environment_and_its_random_numbers(place):
    cell = """
import os, random
import numpy as np
import torch
print(os.environ["NAMED"], torch.initial_seed(), torch.rand(1).item(), random.random(), np.random.rand())
"""
    copies = [place.start(name, cell, NAMED=name) for name in ("a", "b")]
    assert [copy.wait(60) for copy in copies] == [0, 0]
    (one, *first), (two, *second) = (place.printed(name).split() for name in ("a", "b"))
    assert (one, two) == ("a", "b")
    assert (first[:2] == second[:2]) == (first[0] == str(FIXED_SEED))
    assert not set(first[2:]) & set(second[2:])
    assert "NAMED" not in os.environ


def test_a_killed_kernel_and_a_mistake_are_told_as_ever(place):
    killed = place.start("killed", "import os\nos.kill(os.getpid(), 9)")
    wrong = place.start("wrong", "1 + 1", "raise ValueError('too much')")
    assert (killed.wait(60), wrong.wait(60)) == (1, 1)
    assert place.outcome("killed") == {"state": "failed", "cell": None, "error": DIED}
    assert place.outcome("wrong") == {"state": "failed", "cell": 2, "error": "ValueError: too much"}
    again = place.start("killed", "print(1)")
    assert again.wait(60) == 0
    assert place.outcome("killed") == {"state": "completed"}


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_notebook_that_is_ended_takes_its_kernel_along(place, end):
    copy = place.start(end, SLEEP.format(f"{end}.pids"))
    kernel, job = _pids(place.folder / f"{end}.pids")
    assert copy.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        copy.wait(0.1)
    getattr(copy, end)()
    assert copy.wait(30) == (128 + signal.SIGTERM if end == "terminate" else -signal.SIGKILL)
    assert not _alive(job)
    wait(lambda: not _alive(kernel), 5)
    assert not (place.folder / f"{end}.json").exists()
    copy.terminate()  # again, when it is gone


ALONE = """
import os, signal, sys
from xaicore.book import kernel, warm_kernel
kernel.START_TIMEOUT_SECONDS = 5
warm_kernel.offer_kernel()
waiting = warm_kernel.WarmProvisioner.waiting
os.kill(waiting.pid, signal.{end})
status = kernel.main()
print(warm_kernel.WarmProvisioner.waiting, waiting.poll())
sys.exit(status)
"""


@pytest.mark.parametrize(("end", "starts"), [("SIGKILL", 1), ("SIGSTOP", 2)])
def test_a_kernel_that_does_not_come_up_is_replaced_by_a_cold_one(tmp_path, end, starts):
    path = Place(tmp_path).job("only", WARM, parent=os.getpid())
    command = [sys.executable, "-c", ALONE.format(end=end), str(path)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert Place(tmp_path).outcome("only") == {"state": "completed"}
    assert Place(tmp_path).printed("only") == "False\n"
    assert done.stdout == "None -9\n"
    assert done.stderr.count("of the kernel failed") == starts - 1


SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests import test_fork_server as t
folder = Path({folder!r})
server = t.ForkServer(folder, t._environment(), [])
copy = t.Place(folder, server).start("sleeper", t.SLEEP.format("sleeper.pids"))
(folder / "server.pid").write_text(str(server.pid))
copy.wait()
"""


def test_nothing_outlives_a_runner_that_is_killed(tmp_path):
    script = SCRIPT.format(root=str(ROOT), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script])
    pids = [*_pids(tmp_path / "sleeper.pids"), int((tmp_path / "server.pid").read_text())]
    assert all(map(_alive, pids))
    process.kill()
    process.wait()
    wait(lambda: not any(map(_alive, pids)), 10)


def test_without_a_server_notebooks_run_cold_and_what_it_had_begun_has_died(tmp_path):
    place = Place(tmp_path, ForkServer(tmp_path, _environment(), []))
    begun = place.start("begun", SLEEP.format("begun.pids"))
    pids = _pids(tmp_path / "begun.pids")
    assert begun.poll() is None
    os.kill(place.server.pid, signal.SIGKILL)
    wait(lambda: begun.poll() is not None, 5)
    assert begun.poll() == -signal.SIGKILL
    wait(lambda: not any(map(_alive, pids)), 10)

    late = place.start("late", WARM, cold=lambda: place.cold("late", WARM, NAMED="late"))
    assert late.wait(60) == 0
    assert place.outcome("late") == {"state": "completed"}
    assert place.printed("late") == "False\n"
    place.server.close()


def test_a_notebook_ended_while_the_server_imports_does_not_start(tmp_path):
    place = Place(tmp_path, ForkServer(tmp_path, _environment(), []))
    copy = place.start("early", "print(1)")
    begin = time.monotonic()
    copy.terminate()
    assert copy.wait(5) == -signal.SIGKILL
    assert time.monotonic() - begin < 2
    place.server.close()
    assert not (tmp_path / "early.json").exists()


def test_an_edit_after_the_server_has_started_counts(tmp_path):
    package = tmp_path / "xaicore"
    shutil.copytree(ROOT / "xaicore", package, ignore=shutil.ignore_patterns("__pycache__"))
    cell = "import sys\nfrom xaicore import errors\nprint(getattr(errors, 'EDITED', 0), 'papermill' in sys.modules)"
    notebook = _notebook(tmp_path / "imports.ipynb", cell)
    place = Place(tmp_path, ForkServer(tmp_path, _environment(PYTHONPATH=str(tmp_path)), [notebook]))
    assert place.start("before", cell).wait(60) == 0
    assert place.printed("before") == "0 True\n"
    with (package / "errors.py").open("a") as file:
        file.write("\nEDITED = 1\n")
    assert place.start("after", cell).wait(60) == 0
    assert place.printed("after") == "1 False\n"
    place.server.close()


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch knows no GPU")
def test_an_import_that_touches_the_gpu_makes_no_copy(tmp_path):
    (tmp_path / "toucher.py").write_text("import torch\ntorch.cuda.is_available()\n")
    cell = "import toucher, torch\nprint(torch.cuda._is_in_bad_fork())\n" + WARM
    place = Place(
        tmp_path, ForkServer(tmp_path, _environment(), [_notebook(tmp_path / "imports.ipynb", cell)])
    )
    assert place.start("touched", cell).wait(60) == 0
    assert place.printed("touched") == "False\nFalse\n"
    place.server.close()


def test_the_runner_has_a_server_for_several_notebooks_only(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(processes, "ForkServer", lambda *given: made.append(Server(given)) or made[-1])
    tasks = [_task(name, threads) for name, threads in [("a", 1), ("b", 2), ("c", 1)]]
    with ForkServers(tmp_path) as servers:
        started = runner._Runner(tmp_path, tasks, {}, None, servers)
        started._start_servers(tasks)
        started._start_servers(tasks)
        assert servers.of(1) is made[0]
        assert servers.of(2) is None
        assert not made[0].closed
    assert made[0].closed
    assert [server.given[2] for server in made] == [[Path("a.ipynb"), Path("c.ipynb")]]
    assert made[0].given[1]["OMP_NUM_THREADS"] == "1"
    assert "XAICORE_OUTPUT_DIR" not in made[0].given[1]

    def impossible(*given):
        raise OSError("no process left")

    for change in [("ForkServer", impossible), ("FORKS", False)]:
        monkeypatch.setattr(processes, *change)
        with ForkServers(tmp_path) as servers:
            runner._Runner(tmp_path, tasks, {}, None, servers)._start_servers(tasks)
            assert servers.of(1) is None


class Server:
    """A server that only remembers what it was given, and whether it was ended."""

    def __init__(self, given):
        self.given, self.closed = given, False

    def close(self):
        self.closed = True


def _task(name, threads):
    return Task(name, Path(f"{name}.ipynb"), {}, None, threads, "", (), 1.0, None, 600)
