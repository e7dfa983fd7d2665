"""What ``xaibook run`` would do: which notebooks, with which parameters, and whether each is up to date.

A plan is made before anything starts, and making it finds what is known to be wrong. The address of a task is a digest of
everything that its results depend on: a complete run with the address of its task need not be repeated.
"""

from collections.abc import Iterator, Mapping, Sequence
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
        notebook: the notebook's name.
        source: its file.
        given: the parameters to inject, as given.
        parameters: all of them, checked.
        threads: CPU threads.
        address: digest of everything its results depend on.
        after: names of the tasks that must be complete before.
        expected_seconds: how long it is said to take.
        folder: where its run goes.
        cell_seconds: how long a cell may take.
    """

    name: str
    notebook: str
    source: Path
    given: dict[str, Any]
    parameters: NotebookParameters
    threads: int
    address: str
    after: tuple[str, ...]
    expected_seconds: float
    folder: RunFolder
    cell_seconds: int

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
    for name in overrides:
        if not any(name in SCHEMAS[notebook].model_fields for notebook in names):
            known = {field: None for notebook in names for field in SCHEMAS[notebook].model_fields}
            raise UserError(unknown_parameter(name, known))
    # All parameters before the first look at data, which may take long.
    overrides = overrides if seed is None else {**overrides, "seed": seed}
    checked = {notebook: _checked(root, edition, notebook, overrides) for notebook in names}
    check_folders({notebook: parameters for notebook, (_, _, parameters) in checked.items()})
    tasks: list[Task] = []
    unreadable: dict[str, str] = {}
    for notebook in names:
        try:
            tasks.append(
                _task(
                    root,
                    edition,
                    seed_folder(runs, seed),
                    notebook,
                    *checked[notebook],
                    chosen=names,
                    seed=seed,
                )
            )
        except UnreadableFiles as error:  # all of them at once, whichever notebook reads them
            unreadable |= error.reasons
    if unreadable:
        raise UnreadableFiles(unreadable)
    return tasks


def _checked(
    root: Path, edition: Edition, notebook: str, overrides: Mapping[str, Any]
) -> tuple[Path, dict[str, Any], NotebookParameters]:
    """Return a notebook's file, the parameters to inject, and all of them, checked."""
    source = root / "notebooks" / f"{notebook}.ipynb"
    if not source.is_file():
        raise UserError(f"notebooks/{source.name} is missing; take it from the repository")
    schema, given = SCHEMAS[notebook], dict(edition.notebooks[notebook].parameters)
    if edition.threads != schema.model_fields["threads"].default:
        given.setdefault("threads", edition.threads)
    given.update({name: value for name, value in overrides.items() if name in schema.model_fields})
    with _named(notebook):
        if "output_dir" in given:
            raise UserError("output_dir is chosen by the runner; run papermill yourself to choose another")
        return source, given, schema.check(given)


def _task(
    root: Path,
    edition: Edition,
    runs: Path,
    notebook: str,
    source: Path,
    given: dict[str, Any],
    parameters: NotebookParameters,
    *,
    chosen: Sequence[str],
    seed: int | None,
) -> Task:
    """Return the task of a notebook, after checking its data and weights and what it needs beside those chosen."""
    run = edition.notebooks[notebook]
    with _named(notebook):
        check_model(parameters)
        data = check_data(parameters, root / "runs" / ".verified")
    for other in run.after:
        if other not in chosen and RunFolder(runs, other).status() is None:
            raise UserError(f"{_name(notebook, seed)} needs {other}, which has no complete run; run it too")
    threads = parameters.threads or edition.threads
    return Task(
        name=_name(notebook, seed),
        notebook=notebook,
        source=source,
        given=given,
        parameters=parameters,
        threads=threads,
        address=_address(source, given, parameters, data, threads),
        after=tuple(_name(other, seed) for other in run.after if other in chosen),
        expected_seconds=run.expected_seconds,
        folder=RunFolder(runs, notebook),
        cell_seconds=edition.cell_seconds,
    )


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
