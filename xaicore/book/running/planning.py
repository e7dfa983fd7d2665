"""What ``xaibook run`` would do: which notebooks, with which parameters, and whether each is up to date.

A plan is made before anything starts, and making it finds what is known to be wrong. The address of a task is a digest of
everything that its results depend on: a complete run with the address of its task need not be repeated.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from xaicore.book.running.editions import Edition, choose
from xaicore.book.running.preflight import check_data, check_folders, check_model
from xaicore.book.running.run_folder import RunFolder, seed_folder
from xaicore.core.errors import UnreadableFiles, UserError
from xaicore.core.fingerprint import digest, source_digest
from xaicore.run.committed import reported
from xaicore.run.params import SCHEMAS, NotebookParameters
from xaicore.run.params.base import unknown_parameter
from xaicore.run.store import environment


@dataclass(frozen=True)
class Task:
    """A notebook that is to run.

    Attributes:
        name: the notebook's name, with the seed behind it where that is not the edition's first.
        source: its file.
        given: the parameters to inject, as given.
        parameters: all of them, checked.
        threads: CPU threads.
        address: digest of everything its results depend on.
        after: names of the tasks that must be complete before.
        expected_seconds: how long it is said to take.
        expected_memory_mb: how much memory it is said to take at most, in MiB; None where nothing is said.
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
    expected_memory_mb: float | None
    folder: RunFolder

    @property
    def up_to_date(self) -> bool:
        """Whether the complete run that there is has this very address."""
        status = self.folder.status()
        return status is not None and status.get("address") == self.address


def plan(
    root: Path,
    edition: Edition,
    runs: Path,
    *,
    only: str | None = None,
    overrides: Mapping[str, Any],
    seed: int | None = None,
) -> list[Task]:
    """Return what is to be executed, after checking parameters, data and weights of all of it.

    Args:
        root: the project's folder.
        edition: which one.
        runs: the folder of its runs.
        only: comma-separated beginnings of notebook names; None means all.
        overrides: parameters that replace the edition's, for every chosen notebook that has them.
        seed: of the runs, which then lie in the folder of that seed; None: that of the edition's parameters.

    Raises:
        UserError: the first thing that is wrong, with the notebook's name.
    """
    names = choose(edition, only)
    known = {field: None for notebook in names for field in SCHEMAS[notebook].model_fields}
    for name in overrides:
        if name not in known:
            raise UserError(unknown_parameter(name, known))
    # All parameters before the first look at data, which may take long.
    overrides = overrides if seed is None else {**overrides, "seed": seed}
    given = {name: _given(root, edition, name, overrides) for name in names}
    parameters = {}
    for name in names:
        with _named(name):
            parameters[name] = SCHEMAS[name].check(given[name])
    check_folders(parameters)
    runs = seed_folder(runs, seed)
    tasks: list[Task] = []
    unreadable: dict[str, str] = {}
    for name in names:
        run, source = edition.notebooks[name], _source(root, name)
        threads = parameters[name].threads or edition.threads
        try:
            with _named(name):
                check_model(parameters[name])
                data = check_data(parameters[name], root / "runs" / ".verified")
        except UnreadableFiles as error:  # all of them at once, whichever notebook reads them
            unreadable |= error.reasons
            continue
        for other in run.after:
            if other not in names and RunFolder(runs, other).status() is None:
                raise UserError(f"{_name(name, seed)} needs {other}, which has no complete run; run it too")
        address = _address(source, given[name], parameters[name], data, threads)
        after = tuple(_name(other, seed) for other in run.after if other in names)
        where = address, after, run.expected_seconds, run.expected_memory_mb, RunFolder(runs, name)
        tasks.append(Task(_name(name, seed), source, given[name], parameters[name], threads, *where))
    if unreadable:
        raise UnreadableFiles(unreadable)
    return tasks


def _source(root: Path, notebook: str) -> Path:
    return root / "notebooks" / f"{notebook}.ipynb"


def _given(root: Path, edition: Edition, notebook: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters to inject into a notebook."""
    if not _source(root, notebook).is_file():
        raise UserError(f"notebooks/{notebook}.ipynb is missing; take it from the repository")
    fields, given = SCHEMAS[notebook].model_fields, dict(edition.notebooks[notebook].parameters)
    if edition.threads != fields["threads"].default:
        given.setdefault("threads", edition.threads)
    given.update({name: value for name, value in overrides.items() if name in fields})
    if "output_dir" in given:
        raise UserError(
            f"{notebook}: output_dir is chosen by the runner; run papermill yourself to choose another"
        )
    return given


def _name(notebook: str, seed: int | None) -> str:
    return notebook if seed is None else f"{notebook} (seed {seed})"


def _address(
    source: Path, given: Mapping[str, Any], parameters: NotebookParameters, data: str, threads: int
) -> str:
    """Return the digest of a notebook's cells and code, its parameters, weights, data, the paper's numbers, and what the
    machine adds.
    """
    cells = nbformat.read(source, as_version=4).cells
    shown = [[cell.cell_type, cell.source, dict(cell.metadata)] for cell in cells]
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    plain = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
    resolved = parameters.model_dump(mode="json", exclude={"output_dir", "data_root"})
    weights = [subject.weights for subject in parameters.subjects]
    files = [Path(file) for file in weights if file not in (None, "imagenet")]
    machine = {**environment(parameters.torch_device.type), "threads": threads}
    numbers = reported(source.parent.parent, source.stem.split("_")[0])
    return digest(shown, given, source_digest(plain), resolved, files, data, machine, numbers)


@contextmanager
def _named(notebook: str) -> Iterator[None]:
    try:
        yield
    except UnreadableFiles:
        raise
    except UserError as error:
        raise UserError(f"{notebook}: {error}") from None
