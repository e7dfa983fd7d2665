"""Editions: which notebook runs with which parameters, and what that needs.

An edition is a YAML file in ``editions/``. The same notebooks run in every edition; only parameters differ.
"""

import math
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xaicore.core.errors import UserError
from xaicore.data import SETS
from xaicore.run.engine import cores
from xaicore.run.params import SCHEMAS

CUSTOM = "custom"
Seed = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Needs(_Part):
    """What a machine must have for an edition."""

    network: bool = Field(default=False, description="downloads weights or data")
    gpu: bool = Field(default=False, description="does not end in useful time without a GPU")


class NotebookRun(_Part):
    """One notebook of an edition."""

    parameters: dict[str, Any] = {}
    seeds: list[Seed] | None = Field(None, min_length=1, description="in place of the edition's")
    expected_seconds: float = Field(..., gt=0)
    expected_memory_mb: float | None = Field(None, gt=0)
    after: list[str] = Field([], description="notebooks that must be complete before")
    optional_figures: list[str] = Field([], description="names of figures that may have nothing to show")


class Edition(_Part):
    """A named set of notebooks with parameters."""

    name: str = Field(..., pattern=r"^[a-z0-9_]+$")
    description: str
    needs: Needs = Needs()
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of each notebook")
    cell_seconds: int = Field(
        86_400, ge=1, le=31_536_000, description="a cell that takes longer is taken for endless and ended"
    )
    seeds: list[Seed] = Field(
        [0],
        min_length=1,
        description="of the runs that are pooled into evidence; the first is run where none is named",
    )
    notebooks: dict[str, NotebookRun] = Field(..., min_length=1)

    def seeds_of(self, notebook: str) -> list[int]:
        """Return the seeds of a notebook's runs."""
        return self.notebooks[notebook].seeds or self.seeds

    @property
    def data(self) -> list[str]:
        """Names of the image sets that its notebooks read from a folder."""
        read = (
            reading.dataset
            for name, run in self.notebooks.items()
            for reading in SCHEMAS[name].of_record(run.parameters).readings
        )
        return sorted({name for name in read if SETS[name].read_root is not None})

    def expected_seconds(self, cores: int = 1) -> float:
        """Return how long all notebooks take on so many cores, as ``xaibook run`` starts them: the longest first, each
        when those that it comes after are complete.
        """
        waiting = sorted(self.notebooks.items(), key=lambda item: -item[1].expected_seconds)
        ends: dict[str, float] = {}
        threads = max(run.parameters.get("threads") or self.threads for run in self.notebooks.values())
        now, workers = 0.0, max(1, cores // threads)
        while waiting:
            running = [end for end in ends.values() if end > now]
            ready = [(n, r) for n, r in waiting if all(ends.get(o, math.inf) <= now for o in r.after)]
            if ready and len(running) < workers:
                waiting.remove(ready[0])
                ends[ready[0][0]] = now + ready[0][1].expected_seconds
            else:
                now = min(running)
        return max(ends.values())


def on_cores() -> str:
    """Return, in words, on how many cores of this machine the notebooks of an edition share their time."""
    count = cores()
    return f"on {count} core{'s' * (count != 1)}"


def edition_names(root: Path) -> list[str]:
    """Return the names of the editions that the project at ``root`` has."""
    return sorted(path.stem for path in (root / "editions").glob("*.yml"))


def load_edition(root: Path, name: str) -> Edition:
    """Read and check ``editions/<name>.yml``, its parameters included.

    Raises:
        UserError: there is no such edition, or the file is not right.
    """
    path = root / "editions" / f"{name}.yml"
    names = edition_names(root)
    if name not in names:
        raise UserError(f"there is no edition {name!r}; there are {', '.join(names)}")
    try:
        edition = Edition.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        wrong = _wrong(edition, name)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        wrong = f": {place}: {first['msg'].lower()}"
        if not place:
            wrong = " must be a mapping with name, description and notebooks"
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        wrong = f" cannot be read{where}: mend its YAML"
    if wrong:
        raise UserError(f"editions/{path.name}{wrong}")
    return edition


def _wrong(edition: Edition, name: str) -> str | None:
    """Return what is wrong between the parts of an edition's file."""
    if edition.name != name or name == CUSTOM:
        return f": name must be {name}, got {edition.name!r}"
    for notebook, run in edition.notebooks.items():
        if notebook not in SCHEMAS:
            return f": there is no notebook {notebook!r}; there are {', '.join(SCHEMAS)}"
        for other in run.after:
            if other not in edition.notebooks:
                return f": {notebook} comes after {other!r}, which is not in the edition"
    try:
        TopologicalSorter({each: run.after for each, run in edition.notebooks.items()}).prepare()
    except CycleError as error:
        return f": {', '.join(dict.fromkeys(error.args[1]))} wait for each other in a circle"
    return None


def choose(edition: Edition, only: str | None) -> list[str]:
    """Return the notebooks of ``edition`` whose names begin with one of the comma-separated ``only``; all for
    None.

    Raises:
        UserError: a name fits no notebook.
    """
    if only is None:
        return list(edition.notebooks)
    chosen: set[str] = set()
    for prefix in (part.strip() for part in only.split(",")):
        # A prefix that ends in a digit does not fit a longer number: p1 is not p10.
        beginning = re.compile(re.escape(prefix) + (r"(?!\d)" if prefix[-1:].isdigit() else ""))
        matches = [name for name in edition.notebooks if prefix and beginning.match(name)]
        if not matches:
            raise UserError(
                f"no notebook {prefix!r} in the edition {edition.name}; it has {', '.join(edition.notebooks)}"
            )
        chosen.update(matches)
    return [name for name in edition.notebooks if name in chosen]


def chosen_seeds(text: str) -> list[int]:
    """Return the seeds that a command line names, such as ``0-4`` or ``0,3,7-9``.

    Raises:
        UserError: it is no list of seeds and ranges.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()) or (part.strip().endswith("-")):
            raise UserError(f"--seeds {text!r} must be seeds and ranges such as 0-4 or 0,2,5-9")
        seeds |= dict.fromkeys(range(int(first), int(last or first) + 1))
    if not seeds:
        raise UserError(f"--seeds {text!r} names no seed; a range goes from the smaller to the larger")
    return list(seeds)
