"""``xaibook run``: executes the notebooks of an edition, side by side where the machine allows it.

Everything that can be known to be wrong is said before the first notebook starts (``planning``). A notebook has a kernel
of its own (``kernel``) and runs into a temporary folder, which gets its name when it is complete (``run_folder``). A
notebook whose complete run has the address it would have now is not executed again; one that was killed starts over, but
takes its finished batches from the store.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from xaicore.book.running.display import PlainLines, Row, clock, display
from xaicore.book.running.editions import CUSTOM, choose, load_edition
from xaicore.book.running.kernel import Execution
from xaicore.book.running.planning import Task, check_room, plan
from xaicore.book.running.run_folder import NOTEBOOK, PROGRESS, RunFolder, alone, seed_folder
from xaicore.core.errors import UserError
from xaicore.core.files import one_line
from xaicore.run import engine as engines
from xaicore.run.params import SCHEMAS
from xaicore.run.records import load_record

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
    seeds: Sequence[int] | None = None,
    fresh: bool = False,
    engine: str = "local",
    show: PlainLines | None = None,
) -> int:
    """Execute the notebooks of an edition.

    Args:
        root: the project's folder.
        edition: name of the edition.
        only: comma-separated beginnings of notebook names; None means all.
        overrides: parameters that replace the edition's, for every chosen notebook that has them. Such runs
            go to ``runs/custom``, so they never stand where an edition's results are expected.
        seeds: of the runs, each a run of its own; None means the first of each notebook's seeds in the edition.
        fresh: execute notebooks that are up to date as well, and compute every step anew.
        engine: where batches run, see :func:`xaicore.run.engine.get`.
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
    folders = dict.fromkeys(seed if seed != chosen.seeds[0] else None for seed in seeds or chosen.seeds[:1])
    with ExitStack() as stack:
        tasks: list[Task] = []
        for seed in folders:
            stack.enter_context(alone(seed_folder(runs, seed), names))
            tasks += plan(root, chosen, runs, only=only, overrides=overrides or {}, seed=seed)
        waiting = [task for task in tasks if fresh or not task.up_to_date]
        if waiting:
            variables |= stack.enter_context(engines.for_notebooks(engine))
        screen = stack.enter_context(show or display())
        return _Runner(root, tasks, waiting, variables, screen, chosen.cell_seconds).work()


def completed_runs(root: Path, edition: str, seed: int | None = None) -> dict[str, Path]:
    """Return notebook → folder of an edition's complete runs; see :mod:`xaicore.book.running.run_folder`."""
    runs = seed_folder(root / "runs" / edition, seed)
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
        waiting: Sequence[Task],
        variables: Mapping[str, str],
        screen: PlainLines,
        cell_seconds: float,
    ) -> None:
        self.root, self.screen, self.cell_seconds = root, screen, cell_seconds
        self.rows = {task.name: Row(task.name, task.expected_seconds) for task in tasks}
        for task in tasks:
            if task not in waiting:
                self.rows[task.name].state = "up to date"
                self.screen.say(f"{task.name}: up to date")
        # The longest first: a long one that starts last would run alone.
        self.waiting = sorted(waiting, key=lambda task: -task.expected_seconds)
        self.running: dict[str, tuple[Task, Execution]] = {}
        most = engines.cores() // max((task.threads for task in tasks), default=1)
        self.workers = max(1, min(most, len(tasks)))
        self.environment = {
            **os.environ,
            "XAICORE_STORE": os.environ.get("XAICORE_STORE") or str(root / "runs" / "store"),
            **variables,
            "MPLBACKEND": "agg",
            "PYTHONHASHSEED": "0",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the debugger of ipykernel 6 warns of itself in every kernel
            "XAICORE_NOTEBOOKS": str(self.workers),
        }

    def work(self) -> int:
        try:
            while self.waiting or self.running:
                self._start()
                time.sleep(POLL_SECONDS if self.running else 0)
                for name in list(self.running):
                    self._look_after(name)
                self.screen.update(list(self.rows.values()))
        except KeyboardInterrupt:
            self.screen.say("interrupted; run again to continue, finished batches are kept")
            return INTERRUPTED
        finally:
            self._stop_all()
        return 1 if any(row.state == "failed" for row in self.rows.values()) else 0

    def _start(self) -> None:
        for task in list(self.waiting):
            states = {other: self.rows[other].state for other in task.after}
            if "failed" in states.values():
                self.waiting.remove(task)
                self.rows[task.name].state = "failed"
                lost = ", ".join(other for other, state in states.items() if state == "failed")
                self.screen.say(f"{task.name} not run: {lost}, which it needs, failed")
            elif len(self.running) < self.workers and not set(states.values()) & {"waiting", "running"}:
                self.waiting.remove(task)
                self._launch(task)

    def _launch(self, task: Task) -> None:
        folder = task.folder
        folder.begin()
        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {
            **self.environment,
            **dict.fromkeys(threads, str(task.threads)),
            "XAICORE_WORKERS": str(max(1, engines.cores() // (self.workers * task.threads))),
            "XAICORE_OUTPUT_DIR": str(folder.partial),
            "XAICORE_PROGRESS": str(folder.partial / PROGRESS),
        }
        execution = Execution(
            task.source,
            folder.partial / NOTEBOOK,
            task.given,
            folder=self.root,
            environment=environment,
            log=folder.log,
            cell_seconds=self.cell_seconds,
        )
        execution.start()
        self.running[task.name] = task, execution
        row = self.rows[task.name]
        row.state, row.begin = "running", time.monotonic()

    def _look_after(self, name: str) -> None:
        task, execution = self.running[name]
        row = self.rows[name]
        row.follow(task.folder.partial / PROGRESS)
        while row.warnings:
            self.screen.say(f"{name}: {row.warnings.pop(0)}")
        if execution.is_alive():
            return
        del self.running[name]
        row.seconds = time.monotonic() - row.begin
        problem = execution.problem
        try:
            if problem is None:
                task.folder.complete(task.address, row.seconds)
                row.state = "completed"
                made = load_record(task.folder.final)["provenance"]
                steps, peak = made["store"], made["peak_memory_bytes"] / 2**20
                counts = f"{steps['computed']} steps computed, {steps['reused']} taken from the store"
                self.screen.say(f"{name}: completed in {clock(row.seconds)}, {counts}")
                if task.expected_memory_mb and peak > task.expected_memory_mb:
                    self.screen.say(
                        f"{name}: took {peak:.0f} MiB, the edition says {task.expected_memory_mb:g} at most"
                    )
                return
        except UserError as error:
            problem = f": {error}"
        row.state = "failed"
        task.folder.fail(problem.lstrip(": "))
        self.screen.say(f"{name} failed{problem}")

    def _stop_all(self) -> None:
        end = time.monotonic() + GRACE_SECONDS
        for _, execution in self.running.values():
            while execution.is_alive() and time.monotonic() < end:
                execution.stop()
                execution.join(POLL_SECONDS)
        self.running.clear()
