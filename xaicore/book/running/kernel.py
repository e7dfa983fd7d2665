"""One notebook executed by papermill, with a kernel of its own.

papermill works in a thread of the runner; what the notebook does happens in its kernel, a process of its own, so that
several notebooks run side by side and none takes the runner down with it. What came of it is told here, because neither
papermill's exception nor the notebook's metadata tells a dead kernel from success.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.execute import execute_notebook, remove_error_markers

from xaicore.core.files import disk_full, is_disk_full

logging.getLogger("papermill").addHandler(logging.NullHandler())  # the runner tells what came of a notebook
START_TIMEOUT_SECONDS = 120
STARTS = 2
ENDLESS = (
    "took longer than the {} seconds that a cell may take and was ended; choose smaller parameters or raise cell_seconds "
    "in the edition's file, then run again: finished batches are kept"
)
DIED = "the kernel died (killed, perhaps out of memory); run again, finished batches are kept"


class OwnKernel(AsyncKernelManager):
    """Starts kernels of the very Python it runs in, whatever kernels the machine has or lacks.

    Attributes:
        options: how the process is started: ``cwd``, ``env``, ``stdout`` and ``stderr``.
    """

    options: Mapping[str, Any] = {}
    _kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="Python 3 (ipykernel)",
        language="python",
    )

    async def _async_pre_start_kernel(self, **given: Any) -> tuple[list[str], dict[str, Any]]:
        return await super()._async_pre_start_kernel(**{**given, **self.options})


class Execution(threading.Thread):
    """A notebook that is being executed.

    Args:
        notebook: the source.
        output: where the executed notebook goes.
        parameters: what papermill injects.
        folder: where the kernel works.
        environment: all environment variables of the kernel.
        log: the file that gets what the kernel prints beside the notebook's outputs.
        cell_seconds: after so many a cell is ended.

    Attributes:
        problem: once it has ended: None where it completed, else how it failed, as the end of a line that begins with
            ``… failed``.
    """

    def __init__(
        self,
        notebook: Path,
        output: Path,
        parameters: Mapping[str, Any],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        cell_seconds: float,
    ) -> None:
        super().__init__(name=f"notebook {notebook.stem}", daemon=True)
        self.problem: str | None = f": {DIED}"
        self._output, self._log, self._cell_seconds = output, log, cell_seconds
        self._given = str(notebook), str(output), dict(parameters)
        self._start = {"cwd": str(folder), "env": dict(environment)}
        self._kernel: AsyncKernelManager | None = None
        self._stopped = False
        self._cell = 0

    def run(self) -> None:
        """Execute the notebook."""
        try:
            self.problem = self._execute()
        except OSError as error:  # without the name of the file, which is of this machine
            said = error.strerror or type(error).__name__
            self.problem = f": {disk_full('the executed notebook') if is_disk_full(error) else said}"
        except Exception as error:  # not the kernel's doing: papermill could not read the notebook, say
            self.problem = f": {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"

    def stop(self) -> None:
        """End the kernel, if it has come up; the thread ends soon after."""
        self._stopped = True
        process = getattr(self._kernel and self._kernel.provisioner, "pid", None)
        if process:
            with suppress(OSError):
                os.killpg(process, signal.SIGKILL)

    def _execute(self) -> str | None:
        for _ in range(STARTS):
            with self._log.open("ab") as log:
                try:
                    execute_notebook(
                        *self._given,
                        kernel_name="python3",
                        language="python",
                        progress_bar=False,
                        log_output=False,
                        start_timeout=START_TIMEOUT_SECONDS,
                        execution_timeout=self._cell_seconds,
                        on_cell_start=self._note,
                        kernel_manager_class=self._manager(log),
                    )
                    return None
                except PapermillExecutionError as error:
                    # papermill adds cells to a failed notebook; without them positions stay right.
                    notebook = remove_error_markers(nbformat.read(self._output, as_version=4))
                    nbformat.write(notebook, self._output)
                    line = next((line.strip() for line in str(error.evalue).splitlines() if line.strip()), "")
                    return f" in cell {error.cell_index + 1}: {error.ename}{': ' if line else ''}{line}"
                except CellTimeoutError:
                    return f" in cell {self._cell}: {ENDLESS.format(self._cell_seconds)}"
                except DeadKernelError:
                    return f": {DIED}"
                except RuntimeError as error:  # it did not come up; several can get in each other's way
                    if self._stopped:
                        return f": {DIED}"
                    log.write(f"a start of the kernel failed: {error}\n".encode())
        return ": the kernel did not start; see: xaibook doctor"

    def _manager(self, log: Any) -> type[OwnKernel]:
        execution = self

        class Kernel(OwnKernel):
            options = {**execution._start, "stdout": log, "stderr": log}  # noqa: RUF012

            def __init__(self, **given: Any) -> None:
                super().__init__(**given)
                execution._kernel = self

        return Kernel

    def _note(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        self._cell = cell_index + 1
