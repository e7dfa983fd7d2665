"""``xaibook run``: executes the notebooks of an edition, side by side where the machine allows it.

Everything that can be known to be wrong is said before the first notebook starts (:mod:`xaicore.book.planning`). A
notebook runs in a process of its own (:mod:`xaicore.book.processes`) into a temporary folder, which gets its name when
it is complete (:mod:`xaicore.book.run_folder`). A notebook whose complete run has the address it would have now is not
executed again; one that was killed starts over, but takes its finished batches from the store.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from xaicore import engine as engines
from xaicore.book.display import Display, Row, clock, display
from xaicore.book.editions import CUSTOM, choose, load_edition
from xaicore.book.kernel import DIED, DISK_FULL
from xaicore.book.planning import Task, plan
from xaicore.book.preflight import check_room
from xaicore.book.processes import ForkServers, NotebookProcess
from xaicore.book.run_folder import NOTEBOOK, RunFolder, alone
from xaicore.errors import UserError
from xaicore.files import disk_full, one_line
from xaicore.params import SCHEMAS
from xaicore.records import load_record

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
INTERRUPTED = 130


@one_line("the folder of the run")
def run(
    root: Path,
    edition: str = "embedded",
    *,
    only: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    fresh: bool = False,
    engine: str = "local",
    show: Display | None = None,
) -> int:
    """Execute the notebooks of an edition.

    Args:
        root: the project's folder.
        edition: name of the edition.
        only: comma-separated beginnings of notebook names; None means all.
        overrides: parameters that replace the edition's, for every chosen notebook that has them. Such runs
            go to ``runs/custom``, so they never stand where an edition's results are expected.
        fresh: execute notebooks that are up to date as well, and compute every step anew.
        engine: where batches run, see :func:`xaicore.engine.get`.
        show: where progress is shown; None means the screen.

    Returns:
        Exit status: 0, 1 when a notebook failed, 130 after Ctrl-C.

    Raises:
        UserError: something is known to be wrong before the first notebook starts.
    """
    engines.check(engine)
    chosen = load_edition(root, edition)
    runs = root / "runs" / (CUSTOM if overrides else edition)
    check_room(runs)
    variables = {"XAICORE_EDITION": runs.name}
    if fresh:
        variables["XAICORE_STORE_READ"] = "0"
    if not chosen.needs.network:
        variables["HF_HUB_OFFLINE"] = "1"
    names = choose(chosen, only)
    with alone(runs, names), ForkServers(root) as servers, ExitStack() as stack:
        if engine == "local":
            variables |= stack.enter_context(engines.for_notebooks(engine))
            never_run = [name for name in names if RunFolder(runs, name).status() is None]
            sources = [root / "notebooks" / f"{name}.ipynb" for name in never_run]
            if all(source.is_file() for source in sources):  # a server imports while the plan is made
                servers.start(chosen.threads, _environment(root, variables, chosen.threads), sources)
        tasks = plan(root, chosen, runs, only=only, overrides=overrides or {})
        if engine != "local" and (fresh or not all(task.up_to_date for task in tasks)):
            variables |= stack.enter_context(engines.for_notebooks(engine))
        screen = stack.enter_context(show or display())
        return _Runner(root, tasks, variables, screen, servers).work(fresh=fresh)


def _environment(root: Path, variables: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the variables that all notebooks with so many threads have in common."""
    return {
        **os.environ,
        "XAICORE_STORE": os.environ.get("XAICORE_STORE") or str(root / "runs" / "store"),
        **variables,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "MPLBACKEND": "agg",
        "PYTHONHASHSEED": "0",
    }


def completed_runs(root: Path, edition: str) -> dict[str, Path]:
    """Return notebook → folder of an edition's complete runs; see :mod:`xaicore.book.run_folder`."""
    runs = root / "runs" / edition
    if not runs.is_dir():
        return {}
    found = {name: RunFolder(runs, name) for name in SCHEMAS}
    return {name: folder.final for name, folder in found.items() if folder.status() is not None}


class _Runner:
    """Starts tasks when their turn comes and sees them to their end."""

    def __init__(
        self,
        root: Path,
        tasks: Sequence[Task],
        variables: Mapping[str, str],
        screen: Display,
        servers: ForkServers,
    ) -> None:
        self.root = root
        self.tasks = list(tasks)
        self.variables = variables
        self.screen = screen
        self.rows = {task.name: Row(task.name, task.expected_seconds) for task in tasks}
        self.running: dict[str, tuple[Task, NotebookProcess, IO[bytes]]] = {}
        self.servers = servers
        self.workers = max(1, engines.cores() // max((task.threads for task in tasks), default=1))
        self.workers = min(self.workers, max(1, len(self.tasks)))

    def work(self, *, fresh: bool) -> int:
        waiting = []
        for task in self.tasks:
            if not fresh and task.up_to_date:
                self.rows[task.name].state = "up to date"
                self.screen.say(f"{task.name}: up to date")
            else:
                waiting.append(task)
        # The longest first: a long one that starts last would run alone.
        waiting.sort(key=lambda task: -task.expected_seconds)
        try:
            self._start_servers(waiting)
            while waiting or self.running:
                self._start(waiting)
                time.sleep(POLL_SECONDS if self.running else 0)
                for name in list(self.running):
                    self._look_after(name)
                self.screen.update(list(self.rows.values()))
        except KeyboardInterrupt:
            self._stop_all()
            self.screen.say("interrupted; run again to continue, finished batches are kept")
            return INTERRUPTED
        except BaseException:
            self._stop_all()
            raise
        return 1 if any(row.state == "failed" for row in self.rows.values()) else 0

    def _start(self, waiting: list[Task]) -> None:
        for task in list(waiting):
            states = {other: self.rows[other].state for other in task.after}
            if "failed" in states.values():
                waiting.remove(task)
                self.rows[task.name].state = "failed"
                lost = ", ".join(other for other, state in states.items() if state == "failed")
                self.screen.say(f"{task.name} not run: {lost}, which it needs, failed")
            elif len(self.running) < self.workers and not set(states.values()) & {"waiting", "running"}:
                waiting.remove(task)
                self._launch(task)

    def _start_servers(self, waiting: Sequence[Task]) -> None:
        """Start a server for each environment that several notebooks have in common."""
        for threads in {task.threads for task in waiting}:
            sources = [task.source for task in waiting if task.threads == threads]
            self.servers.start(threads, self._environment(threads), sources)

    def _launch(self, task: Task) -> None:
        folder = task.folder
        folder.begin()
        job = {
            "notebook": str(task.source),
            "output": str(folder.partial / NOTEBOOK),
            "parameters": task.given,
            "folder": str(self.root),
            "cell_seconds": task.cell_seconds,
            "outcome": str(folder.partial / "outcome.json"),
        }
        own = {
            "XAICORE_WORKERS": str(max(1, engines.cores() // (self.workers * task.threads))),
            "XAICORE_NOTEBOOKS": str(self.workers),
            "XAICORE_OUTPUT_DIR": str(folder.partial),
            "XAICORE_PROGRESS": str(folder.partial / "progress.jsonl"),
        }
        path = folder.partial / "job.json"
        log = folder.log.open("wb")

        def write(parent: int) -> None:
            path.write_text(json.dumps({**job, "parent": parent}), encoding="utf-8")

        def cold() -> NotebookProcess:
            write(os.getpid())
            return subprocess.Popen(
                [sys.executable, "-m", "xaicore.book.kernel", str(path)],
                cwd=self.root,
                env={**self._environment(task.threads), **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the runner alone, which then ends its children
            )

        server = self.servers.of(task.threads)
        if server is None:
            process = cold()
        else:
            write(server.pid)
            process = server.start(path, folder.log, own, cold)
        self.running[task.name] = (task, process, log)
        row = self.rows[task.name]
        row.state, row.begin = "running", time.monotonic()

    def _environment(self, threads: int) -> dict[str, str]:
        return _environment(self.root, self.variables, threads)

    def _look_after(self, name: str) -> None:
        task, process, log = self.running[name]
        row = self.rows[name]
        row.follow(task.folder.partial / "progress.jsonl")
        while row.warnings:
            self.screen.say(f"{name}: {row.warnings.pop(0)}")
        status = process.poll()
        if status is None:
            return
        del self.running[name]
        log.close()
        row.seconds = time.monotonic() - row.begin
        problem = _problem(task, status)
        if problem is None:
            try:
                task.folder.complete(task.address, row.seconds)
                row.state = "completed"
                counters = load_record(task.folder.final)["provenance"]["store"]
                self.screen.say(
                    f"{name}: completed in {clock(row.seconds)}, {counters['computed']} steps computed, "
                    f"{counters['reused']} taken from the store"
                )
                return
            except UserError as error:
                problem = f": {error}"
        row.state = "failed"
        task.folder.fail(problem.lstrip(": "))
        self.screen.say(f"{name} failed{problem}")

    def _stop_all(self) -> None:
        for _, process, _ in self.running.values():
            process.terminate()
        end = time.monotonic() + GRACE_SECONDS
        for _, process, log in self.running.values():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()
        self.running.clear()


def _problem(task: Task, status: int) -> str | None:
    """Return how a task whose process ended with ``status`` failed, as the end of a line that begins with
    ``… failed``; None when it did not."""
    try:
        outcome = json.loads((task.folder.partial / "outcome.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f": {disk_full('the executed notebook') if status == DISK_FULL else DIED}"
    if outcome["state"] == "completed":
        return None
    place = f" in cell {outcome['cell']}" if outcome.get("cell") else ""
    return f"{place}: {outcome['error']}"
