"""``xaibook run``: executes the notebooks of an edition, side by side where the machine allows it.

Everything that can be known to be wrong is said before the first notebook starts. A notebook runs in a
process of its own into a temporary folder, which gets its name when it is complete
(:mod:`xaicore.book.run_folder`). A notebook whose complete run has the address it would have now is not
executed again; one that was killed starts over, but takes its finished batches from the store.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nbformat

from xaicore import engine as engines
from xaicore.book.display import Display, Row, clock, display
from xaicore.book.editions import CUSTOM, Edition, choose, load_edition
from xaicore.book.kernel import DIED, DISK_FULL
from xaicore.book.preflight import check_data, check_model, check_room
from xaicore.book.processes import FORKS, ForkServer, NotebookProcess
from xaicore.book.run_folder import NOTEBOOK, RunFolder
from xaicore.errors import UserError
from xaicore.files import disk_full, one_line
from xaicore.fingerprint import digest, source_digest
from xaicore.params import SCHEMAS, NotebookParameters
from xaicore.params.base import unknown_parameter
from xaicore.records import load_record
from xaicore.store import environment

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
INTERRUPTED = 130


@dataclass(frozen=True)
class Task:
    """A notebook that is to run.

    Attributes:
        name: the notebook's name.
        source: its file.
        given: the parameters to inject, as given.
        parameters: all of them, checked.
        threads: CPU threads.
        address: digest of everything its results depend on.
        after: notebooks that must be complete before.
        expected_seconds: how long it is said to take.
        folder: where its run goes.
    """

    name: str
    source: Path
    given: dict[str, Any]
    parameters: NotebookParameters
    threads: int
    address: str
    after: tuple[str, ...]
    expected_seconds: float
    folder: RunFolder

    @property
    def up_to_date(self) -> bool:
        """Whether the complete run that there is has this very address."""
        status = self.folder.status()
        return status is not None and status.get("address") == self.address


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
    with _alone(runs, names), ExitStack() as stack:
        servers: dict[int, ForkServer] = {}
        if engine == "local":
            variables |= stack.enter_context(engines.for_notebooks(engine))
            servers = _begin_early(root, chosen, names, runs, variables)
            for server in servers.values():
                stack.callback(server.close)
        tasks = plan(root, chosen, runs, only=only, overrides=overrides or {})
        if engine != "local" and (fresh or not all(task.up_to_date for task in tasks)):
            variables |= stack.enter_context(engines.for_notebooks(engine))
        screen = stack.enter_context(show or display())
        return _Runner(root, tasks, variables, screen, servers).work(fresh=fresh)


def _begin_early(
    root: Path, edition: Edition, names: Sequence[str], runs: Path, variables: Mapping[str, str]
) -> dict[int, ForkServer]:
    """Start the server of an edition's notebooks where several have never run: it imports while the plan is made."""
    sources = [
        root / "notebooks" / f"{name}.ipynb" for name in names if RunFolder(runs, name).status() is None
    ]
    if not FORKS or len(sources) < 2 or not all(source.is_file() for source in sources):
        return {}
    with suppress(OSError):
        return {edition.threads: ForkServer(root, _environment(root, variables, edition.threads), sources)}
    return {}


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


def plan(
    root: Path, edition: Edition, runs: Path, *, only: str | None = None, overrides: Mapping[str, Any]
) -> list[Task]:
    """Return what is to be executed, after checking parameters, data and weights of all of it.

    Raises:
        UserError: the first thing that is wrong, with the notebook's name.
    """
    names = choose(edition, only)
    for name in overrides:
        if not any(name in SCHEMAS[notebook].model_fields for notebook in names):
            known = {field: None for notebook in names for field in SCHEMAS[notebook].model_fields}
            raise UserError(unknown_parameter(name, known))
    checked = []
    for notebook in names:
        source = root / "notebooks" / f"{notebook}.ipynb"
        if not source.is_file():
            raise UserError(f"notebooks/{source.name} is missing; take it from the repository")
        schema, given = SCHEMAS[notebook], dict(edition.notebooks[notebook].parameters)
        if edition.threads != schema.model_fields["threads"].default:
            given.setdefault("threads", edition.threads)
        given.update({name: value for name, value in overrides.items() if name in schema.model_fields})
        with _named(notebook):
            if "output_dir" in given:
                raise UserError(
                    "output_dir is chosen by the runner; run papermill yourself to choose another"
                )
            checked.append((notebook, source, given, schema.check(given)))
    tasks = []
    for notebook, source, given, parameters in checked:
        run = edition.notebooks[notebook]
        with _named(notebook):
            check_model(parameters)
            data = check_data(parameters, root / "runs" / ".verified")
        for other in run.after:
            if other not in names and RunFolder(runs, other).status() is None:
                raise UserError(f"{notebook} needs {other}, which has no complete run; run it too")
        threads = parameters.threads or edition.threads
        address = _address(source, given, parameters, data, threads)
        folder = RunFolder(runs, notebook)
        after = tuple(other for other in run.after if other in names)
        tasks.append(
            Task(notebook, source, given, parameters, threads, address, after, run.expected_seconds, folder)
        )
    return tasks


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
        servers: Mapping[int, ForkServer] | None = None,
    ) -> None:
        self.root = root
        self.tasks = list(tasks)
        self.variables = variables
        self.screen = screen
        self.rows = {task.name: Row(task.name, task.expected_seconds) for task in tasks}
        self.running: dict[str, tuple[Task, NotebookProcess, IO[bytes]]] = {}
        self.servers: dict[int, ForkServer] = dict(servers or {})
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
        finally:
            for server in self.servers.values():
                server.close()
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
            if FORKS and len(sources) > 1 and threads not in self.servers:
                with suppress(OSError):
                    self.servers[threads] = ForkServer(self.root, self._environment(threads), sources)

    def _launch(self, task: Task) -> None:
        folder = task.folder
        folder.begin()
        job = {
            "notebook": str(task.source),
            "output": str(folder.partial / NOTEBOOK),
            "parameters": task.given,
            "folder": str(self.root),
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

        server = self.servers.get(task.threads)
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


def _address(
    source: Path, given: Mapping[str, Any], parameters: NotebookParameters, data: str, threads: int
) -> str:
    cells = nbformat.read(source, as_version=4).cells
    shown = [[cell.cell_type, cell.source, dict(cell.metadata)] for cell in cells]
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    plain = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
    resolved = parameters.model_dump(mode="json", exclude={"output_dir", "data_root"})
    weights = parameters.weights
    file = Path(weights) if weights and weights != "imagenet" else None
    machine = {**environment(parameters.torch_device.type), "threads": threads}
    return digest(shown, given, source_digest(plain), resolved, file, data, machine)


@contextmanager
def _named(notebook: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{notebook}: {error}") from None


@contextmanager
def _alone(runs: Path, notebooks: Sequence[str]) -> Iterator[None]:
    """Hold the notebooks' places in the edition's folder, so that two commands never write the same run.

    Commands for different notebooks of an edition work side by side, also on several machines with a common folder.
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
