"""Kernels that need not import: copies of a process that has imported already what the notebooks import.

The process is the ``forkserver`` of :mod:`multiprocessing`. A copy of it becomes an ``ipykernel`` like any other, in a
session of its own. It takes milliseconds, where the imports take seconds for each notebook (``python -m
benchmarks.kernels`` has the times).
"""

import ast
import atexit
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint
from multiprocessing import forkserver, process
from pathlib import Path
from typing import Any, ClassVar

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

LAUNCHER = "ipykernel_launcher"
FIXED_SEED = 67280421310721
"""What torch seeds its generator with on import, in versions that do not take a random seed."""


@contextmanager
def warm_kernels(environment: Mapping[str, str], notebooks: Sequence[Path]) -> Iterator[None]:
    """Let kernels that are started in this context be copies, on Linux; elsewhere they import for themselves.

    Args:
        environment: all environment variables that the kernels have in common.
        notebooks: those whose imports are made beforehand.
    """
    if sys.platform != "linux":  # the frameworks of macOS do not survive a fork
        yield
        return
    mine = dict(os.environ)
    WarmProvisioner.context.set_forkserver_preload(["ipykernel.kernelapp", __name__, *_imports(notebooks)])
    os.environ.update(environment)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(mine)
    factory = KernelProvisionerFactory.instance()
    before = factory.default_provisioner_name
    place = f"{__name__}:{WarmProvisioner.__name__}"
    factory.provisioners["warm"] = EntryPoint("warm", place, KernelProvisionerFactory.GROUP_NAME)
    factory.default_provisioner_name = "warm"
    try:
        yield
    finally:
        factory.default_provisioner_name = before
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # or the next run would have these imports


class WarmProvisioner(LocalProvisioner):
    """Starts a kernel as a copy, or as a command where no copy can be had."""

    context: ClassVar = multiprocessing.get_context("forkserver")

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Launch a kernel with a command, see :class:`jupyter_client.provisioning.LocalProvisioner`."""
        environment, folder, log = (kwargs.get(name) for name in ("env", "cwd", "stdout"))
        copy = self.context.Process(
            target=_become_kernel, args=(cmd[3:], environment, folder, getattr(log, "name", os.devnull))
        )
        try:
            copy.start()
        except (OSError, EOFError):
            return await super().launch_kernel(cmd, **kwargs)
        self.process = _Copy(copy)  # type: ignore[assignment]  # it has all that is used of a Popen
        self.pid = self.pgid = copy.pid
        self.cwd = folder
        return self.connection_info


class _Copy:
    """A process of :mod:`multiprocessing` with the methods of ``subprocess.Popen`` that jupyter_client calls."""

    stdin = stdout = stderr = None

    def __init__(self, copy: process.BaseProcess) -> None:
        self._copy = copy
        self.terminate, self.kill = copy.terminate, copy.kill

    def poll(self) -> int | None:
        return self._copy.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._copy.join(timeout)
        return self._copy.exitcode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._copy.pid or 0, number)


def _become_kernel(arguments: list[str], environment: dict[str, str], folder: str, log: str) -> None:
    """Be what ``python -m ipykernel_launcher`` would be."""
    os.setsid()  # Ctrl-C reaches the runner alone
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    runner = multiprocessing.parent_process()
    assert runner is not None
    threading.Thread(target=_end_with, args=(runner,), daemon=True).start()
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    os.chdir(folder)
    sys.path[:] = [place for place in sys.path if place not in ("", str(Path(sys.executable).parent))]
    spec = importlib.util.find_spec(LAUNCHER)
    sys.argv = [(spec and spec.origin) or LAUNCHER, *arguments]
    _seed_anew()
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(arguments)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # to take apart all that was imported would take a second


def _end_with(runner: process.BaseProcess) -> None:
    runner.join()
    os.killpg(0, signal.SIGKILL)


def _seed_anew() -> None:
    """Seed the global generators as their import would have done; Python's own does so by itself after a fork."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed()  # this very generator is the one that scipy and scikit-learn use
    if torch is not None and torch.initial_seed() != FIXED_SEED:
        torch.default_generator.seed()


def _imports(notebooks: Sequence[Path]) -> list[str]:
    """Return the modules that the code cells of notebooks import, and names that may be modules, each once."""
    found: dict[str, None] = {}
    for path in notebooks:
        with suppress(
            OSError, ValueError, KeyError, SyntaxError
        ):  # the notebook itself will say what is wrong
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            plain = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
            for node in ast.walk(ast.parse(plain)):
                if isinstance(node, ast.Import):
                    found |= {alias.name: None for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found |= {
                        node.module: None,
                        **{f"{node.module}.{alias.name}": None for alias in node.names},
                    }
    return list(found)
