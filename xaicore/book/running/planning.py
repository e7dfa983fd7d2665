"""What ``xaibook run`` would do: which notebooks, with which parameters, and whether each is up to date.

A plan is made before anything starts, and making it finds what is known to be wrong: parameters, data, weights, room on
the disk. The address of a task is a digest of everything that its results depend on: a complete run with the address of
its task need not be repeated.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

import xaicore.data
import xaicore.models
from xaicore.book.running.editions import Edition, choose
from xaicore.book.running.run_folder import RunFolder, seed_folder
from xaicore.core.errors import UnreadableFiles, UserError
from xaicore.core.files import nearest, write_atomically
from xaicore.core.fingerprint import digest, source_digest
from xaicore.data import SETS, ImageSet
from xaicore.run.committed import reported
from xaicore.run.params import SCHEMAS, NotebookParameters
from xaicore.run.params.base import unknown_parameter
from xaicore.run.params.readings import Reading
from xaicore.run.store import environment

ROOM_BYTES = 200 * 2**20


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


def check_room(folder: Path) -> None:
    """Raise a :class:`~xaicore.core.errors.UserError` when the disk of ``folder`` is as good as full."""
    free = shutil.disk_usage(nearest(folder)).free
    if free < ROOM_BYTES:
        raise UserError(
            f"only {free // 2**20} MiB are free on the disk of the runs; make room for {ROOM_BYTES // 2**20}"
        )


def check_folders(chosen: Mapping[str, NotebookParameters]) -> None:
    """Look for the folders of all image sets at once, so that nobody mends one and then hears of the next.

    Raises:
        UserError: several sets are not there. Where it is one, the notebook that needs it says so itself.
    """
    lacking: dict[str, list[str]] = {}
    reasons = []
    for notebook, parameters in chosen.items():
        for name, root in {(reading.dataset, reading.root): None for reading in parameters.readings}:
            try:
                if SETS[name].read_root is not None:
                    xaicore.data.find_root(name, root)
            except UserError as error:
                lacking.setdefault(name, []).append(notebook)
                reasons.append(str(error))
    if len(lacking) < 2:
        return
    places = "; ".join(f"{name} (for {', '.join(notebooks)})" for name, notebooks in lacking.items())
    without = [name for name in chosen if not any(name in notebooks for notebooks in lacking.values())]
    rest = f"; without them: --only {','.join(without)}" if without else ""
    raise UserError(f"image sets are missing: {places}; {reasons[0]}{rest}")


def check_model(parameters: NotebookParameters) -> None:
    """Raise a :class:`~xaicore.core.errors.UserError` when a network cannot be built or its weights do not fit.

    Published weights, which may have to be downloaded, are left to the notebook.
    """
    for subject in parameters.subjects:
        if subject.model is None or subject.weights == "imagenet":
            continue
        images = xaicore.data.load(subject.dataset, subject.root, classes=subject.classes)
        if len(images.classes) < 2:
            raise UserError(
                f"{images.name} has a single class, {images.classes[0]!r}, but a network needs at least two: add a folder"
            )
        options = {"channels": SETS[subject.dataset].channels, "input_size": subject.size, **subject.options}
        xaicore.models.load(subject.model, len(images.classes), subject.weights, **options)


def check_data(parameters: NotebookParameters, memory: Path) -> str:
    """Open the image sets, decode every file that the notebook will read once, and return a fingerprint of all of it.

    Args:
        parameters: of a notebook.
        memory: a folder to remember verified images in; those whose files have not changed are not decoded again.

    Raises:
        UnreadableFiles: naming all files that are no images.
        UserError: the folder is missing or laid out wrongly, a class is not there, or there are fewer images than
            asked for.
    """
    parts = [
        (reading, images, position)
        for reading in parameters.readings
        for position, images in enumerate(reading.load())
    ]
    for reading, images, _ in parts:
        if reading.split == "test":
            parameters.check_test_images(images.name, len(images))
    fingerprints: list[str] = []
    reasons: dict[str, str] = {}
    for part in parts:
        try:
            fingerprints.append(_checked(*part, memory))
        except UnreadableFiles as error:
            reasons |= error.reasons
    if reasons:
        raise UnreadableFiles(reasons)
    return digest(fingerprints)


def _checked(reading: Reading, images: ImageSet, position: int, memory: Path) -> str:
    """Return the fingerprint of images; those in a folder are decoded unless they are remembered."""
    if SETS[reading.dataset].read_root is None:
        return _of_package(reading.dataset)
    folder = xaicore.data.find_root(reading.dataset, reading.root)
    states = [_state(file) for file in images.files or sorted(folder.iterdir())]
    selection = digest(reading, position, str(folder.resolve()), states)
    remembered = memory / f"{selection}.json"
    try:
        return str(json.loads(remembered.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        images.verify()
    content = json.dumps({"fingerprint": images.fingerprint})
    write_atomically(remembered, content, what="the check of the image set")
    return images.fingerprint


@cache
def _of_package(name: str) -> str:
    """Return the fingerprint of a set that comes inside a package, and so never changes."""
    return xaicore.data.load(name, split="all").fingerprint


def _state(file: Path) -> tuple[str, int, int]:
    """Return name, size and time of a file: equal until it is touched."""
    try:
        facts = file.stat()
    except OSError:
        return str(file), -1, -1  # gone since its folder was read: told when it is opened
    return str(file), facts.st_size, facts.st_mtime_ns
