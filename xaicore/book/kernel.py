"""The process that executes one notebook: ``python -m xaicore.book.kernel JOB``.

It is a process of its own so that several notebooks run side by side and none takes the runner down with it.
It starts a kernel of the very Python it runs in, lets papermill execute the notebook and writes what came of
it to a file, because neither papermill's exit status nor the notebook's metadata tells a dead kernel from
success. When the runner disappears, so does this process, and with it the kernel.
"""

import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.execute import execute_notebook, remove_error_markers

from xaicore.files import is_disk_full

START_TIMEOUT_SECONDS = 120
STARTS = 2
DISK_FULL = 74
"""Exit status of a process that had no room to write its notebook, or what came of it."""
ENDLESS = (
    "took longer than the {} seconds that a cell may take and was ended; choose smaller parameters or raise cell_seconds "
    "in the edition's file, then run again: finished batches are kept"
)
DIED = "the kernel died (killed, perhaps out of memory); run again, finished batches are kept"


def execute(job: dict[str, Any]) -> dict[str, Any]:
    """Execute a notebook and say what came of it.

    Args:
        job: ``notebook`` (path), ``output`` (path), ``parameters`` (mapping), ``folder`` (where the kernel
            works), ``cell_seconds`` (after which a cell is ended).

    Returns:
        ``{"state": "completed"}``, or ``{"state": "failed", "cell": position from 1 or None, "error": one
        line}``.
    """
    at = 0

    def note(cell: nbformat.NotebookNode, cell_index: int) -> None:
        nonlocal at
        at = cell_index

    for start in range(1, STARTS + 1):
        try:
            execute_notebook(
                job["notebook"],
                job["output"],
                parameters=job["parameters"],
                kernel_name="python3",
                language="python",
                progress_bar=False,
                log_output=False,
                start_timeout=START_TIMEOUT_SECONDS,
                execution_timeout=job["cell_seconds"],
                on_cell_start=note,
                cwd=job["folder"],
            )
            return {"state": "completed"}
        except PapermillExecutionError as error:
            _drop_error_markers(Path(job["output"]))
            line = next((line.strip() for line in str(error.evalue).splitlines() if line.strip()), "")
            said = f"{error.ename}: {line}" if line else error.ename
            return {"state": "failed", "cell": error.cell_index + 1, "error": said}
        except CellTimeoutError:
            return {"state": "failed", "cell": at + 1, "error": ENDLESS.format(job["cell_seconds"])}
        except DeadKernelError:
            return {"state": "failed", "cell": None, "error": DIED}
        except (
            RuntimeError
        ) as error:  # the kernel did not come up; several starting at once can get in each other's way
            print(f"start {start} of the kernel failed: {error}", file=sys.stderr, flush=True)
    return {"state": "failed", "cell": None, "error": "the kernel did not start; see: xaibook doctor"}


def _drop_error_markers(path: Path) -> None:
    """Take out the cells that papermill adds to a failed notebook, so that positions stay right."""
    if path.is_file():
        nbformat.write(remove_error_markers(nbformat.read(path, as_version=4)), path)


def own_kernelspec(folder: Path) -> None:
    """Make ``python3`` mean this interpreter, whatever kernels the machine has or lacks."""
    place = folder / "kernels" / "python3"
    place.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    others = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(folder) + (os.pathsep + others if others else "")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)  # unwinds, so that the kernel is shut down


def main() -> int:
    """Execute the job described by the JSON file named first; its ``outcome`` file gets the result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with, args=(job["parent"],), daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(prefix="xaicore-") as folder:
            own_kernelspec(Path(folder))
            outcome = execute(job)
        Path(job["outcome"]).write_text(json.dumps(outcome), encoding="utf-8")
    except OSError as error:
        if is_disk_full(error):
            return DISK_FULL
        raise
    return 0 if outcome["state"] == "completed" else 1


if __name__ == "__main__":
    sys.exit(main())
