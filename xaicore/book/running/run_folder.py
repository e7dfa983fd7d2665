"""The folder of one notebook's run, which appears under its name only when it is complete.

``runs/<edition>/<notebook>/``, or ``runs/<edition>/seed-<s>/<notebook>/`` for another seed than the edition's first,
holds ``notebook.ipynb``, ``record.json``, ``outcomes.csv``, ``tables/`` and ``status.json``.
Until all of it is there it is called ``.<notebook>.partial``; a run that failed is kept as
``.<notebook>.failed``; the log lies beside them as ``<notebook>.log``.
"""

import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat

from xaicore.core.errors import UserError
from xaicore.core.files import replace_folder, restore_folder, write_atomically
from xaicore.run.records import FILE, load_record

NOTEBOOK = "notebook.ipynb"
SEED = "seed-"
STATUS = "status.json"
PROGRESS = "progress.jsonl"


def seed_folder(runs: Path, seed: int | None) -> Path:
    """Return the folder of an edition's runs with a seed; None stands for the edition's first seed."""
    return runs if seed is None else runs / f"{SEED}{seed}"


class RunFolder:
    """Paths and changes of state of a notebook's run in ``runs``, the folder of an edition."""

    def __init__(self, runs: Path, notebook: str) -> None:
        self.notebook = notebook
        self.final = runs / notebook
        self.partial = runs / f".{notebook}.partial"
        self.failed = runs / f".{notebook}.failed"
        self.log = runs / f"{notebook}.log"

    def status(self) -> dict[str, Any] | None:
        """Return the status of the complete run, None where there is none whose record and notebook can be read."""
        restore_folder(self.final)
        try:
            status = json.loads((self.final / STATUS).read_text(encoding="utf-8"))
            load_record(self.final / FILE)
            json.loads((self.final / NOTEBOOK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return status if isinstance(status, dict) and status.get("state") == "completed" else None

    def begin(self) -> None:
        """Make an empty folder for a run; an older complete run stays where it is."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self.log.write_text(f"{self.notebook}\n", encoding="utf-8")

    def complete(self, address: str, seconds: float) -> None:
        """Check what the run left, free the notebook of papermill's traces, and give the folder its name.

        Raises:
            UserError: the record is missing or damaged, or a cell shows an error or was not executed.
        """
        load_record(self.partial / FILE)
        path = self.partial / NOTEBOOK
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.pop("papermill", None)
        for position, cell in enumerate(notebook.cells, start=1):
            for trace in ("papermill", "execution"):
                cell.metadata.pop(trace, None)
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.id = "injected-parameters"
            if cell.cell_type != "code" or not cell.source.strip():
                continue
            if cell.execution_count is None or any(output.output_type == "error" for output in cell.outputs):
                raise UserError(f"cell {position} was not executed or shows an error")
        write_atomically(path, nbformat.writes(notebook), what="the executed notebook")
        (self.partial / PROGRESS).unlink(missing_ok=True)
        self._write_status(state="completed", address=address, seconds=round(seconds, 3))
        replace_folder(self.partial, self.final)
        shutil.rmtree(self.failed, ignore_errors=True)

    def fail(self, error: str) -> None:
        """Keep what there is of a run that failed, for those who want to look."""
        shutil.rmtree(self.failed, ignore_errors=True)
        (self.partial / FILE).unlink(missing_ok=True)
        with suppress(UserError):  # where there is no room for it, the line on the screen must do
            self._write_status(state="failed", error=error)
        self.partial.rename(self.failed)
        try:
            shutil.copy(self.log, self.failed / "log.txt")
        except OSError:
            (self.failed / "log.txt").unlink(missing_ok=True)

    def _write_status(self, **status: Any) -> None:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = json.dumps({"notebook": self.notebook, **status, "when": when}, indent=1)
        write_atomically(self.partial / STATUS, f"{text}\n", what="the status of the run")


@contextmanager
def alone(runs: Path, notebooks: Sequence[str]) -> Iterator[None]:
    """Hold the notebooks' places in the edition's folder, so that two commands never write the same run.

    Commands for different notebooks of an edition work side by side, also on several machines with a common folder.

    Raises:
        UserError: another command holds one of them, or the folder's disk has no locks.
    """
    runs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for notebook in notebooks:
            lock = stack.enter_context((runs / f".{notebook}.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another run of {runs.name} is under way for {notebook}; wait for it, end it, or choose other "
                    "notebooks with --only"
                ) from None
            except OSError as error:
                raise UserError(
                    f"the folder of the runs gives no locks ({error.strerror}); mount it with them, or take another disk"
                ) from None
        yield
