"""A small project whose two notebooks are quick to run and end as they are told, to see what the runner does with them.

A test file that names the fixture (``project = toy.project``) can use it.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from pydantic import Field

from xaicore.book.running.display import PlainLines
from xaicore.run.params import SCHEMAS, NotebookParameters
from xaicore.run.params.base import NetworkName

ROOT = Path(__file__).resolve().parent.parent
BATCHES = 10

PARAMETERS = 'seed: int = 0\nnap: float = 0.0\nend: str = "well"\nthreads: int = 1'
WORK = """
import os, time, torch
from xaicore.run import engine, records
from xaicore.core.errors import UserError
from xaicore.run.store import Store

given = {"seed": seed, "nap": nap, "end": end}
store = Store()
run = records.Run("toy", given, store=store)

def halve(images, seconds):
    time.sleep(seconds)
    return {"half": images / 2}

images = torch.arange(10.0) + seed
local = engine.get(store=store)
half = local.map("halve", halve, {"images": images}, constants={"seconds": nap}, batch_size=1)
"""
END = """
if end == "mistake":
    raise UserError("the folder is not there; name another")
if end == "kill":
    os.kill(os.getpid(), 9)
run.value("sum", half["half"].sum(), n=10)
run.finish()
half["half"].tolist()
"""

# The runner in a process of its own, which a test can kill.
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests import toy
from xaicore.book.running.runner import run
from xaicore.run.params import SCHEMAS
SCHEMAS.clear()
SCHEMAS["toy"] = SCHEMAS["other"] = toy.Toy
sys.exit(run(Path({project!r}), "quick", only=({only!r})))
"""


class Toy(NotebookParameters):
    """What the notebooks can be told: how long to sleep for each batch, and how to end."""

    model: NetworkName = Field("small_cnn")
    threads: int | None = Field(1, ge=1)
    nap: float = Field(0.0, ge=0)
    end: str = Field("well")


class Screen(PlainLines):
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def write_notebook(project: Path, name: str, *sources: str) -> None:
    """Write a notebook whose code cells, after its parameters, are these."""
    cells = [
        nbformat.v4.new_markdown_cell("# A toy"),
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        *map(nbformat.v4.new_code_cell, sources),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project / "notebooks" / f"{name}.ipynb")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the notebooks toy and other and the edition quick."""
    for name in ("editions", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("XAICORE_STORE", raising=False)
    monkeypatch.setattr("xaicore.run.params.SCHEMAS", SCHEMAS)
    for name in list(SCHEMAS):
        monkeypatch.delitem(SCHEMAS, name)
    for name in ("toy", "other"):
        monkeypatch.setitem(SCHEMAS, name, Toy)
        write_notebook(tmp_path, name, WORK, END)
    set_edition(tmp_path, {"toy": {}})
    return tmp_path


def set_edition(
    project: Path, notebooks: Mapping[str, Mapping[str, Any]], *, cell_seconds: int = 600, **more: Any
) -> None:
    """Write the edition quick anew: notebook → parameters, and what else is said of each."""
    runs = {name: {"parameters": given, "expected_seconds": 9, **more} for name, given in notebooks.items()}
    content = {"name": "quick", "description": "A toy", "threads": 1, "notebooks": runs}
    content["cell_seconds"] = cell_seconds
    (project / "editions" / "quick.yml").write_text(json.dumps(content))


def command(project: Path, only: str | None = None) -> list[str]:
    """The command that runs the edition quick as a process of its own."""
    return [sys.executable, "-c", SCRIPT.format(root=str(ROOT), project=str(project), only=only)]


def batches(project: Path) -> list[Path]:
    """The batches that are in the store."""
    return list((project / "runs" / "store").rglob("*.safetensors"))


def wait(condition: Callable[[], object], seconds: float = 180) -> None:
    """Wait until something is true; long, since another's work may keep the processors busy."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
