"""A small project with a run of an edition that no notebook had to be executed for."""

import base64
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from xaicore.book.running.run_folder import seed_folder
from xaicore.run.records import Run

ROOT = Path(__file__).resolve().parent.parent
P1 = "p1_inspecting_attacks"

Value = tuple[float, int, tuple[float, float]]


def figure(colour: str = "teal", size: tuple[int, int] = (60, 40)) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def project(folder: Path) -> Path:
    """A folder with the editions and claims of this project, and nothing run."""
    for name in ("editions", "claims"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "claims" / "verdicts.yml").unlink()
    (folder / "notebooks").mkdir()
    (folder / "pyproject.toml").touch()
    return folder


def code(id: str, source: str, **data: Any) -> nbformat.NotebookNode:
    """A code cell that has run, with an output of the given media types (``html=``, ``png=``) where any is given."""
    cell = nbformat.v4.new_code_cell(source, execution_count=1)
    cell.id = id
    bundle: dict[str, Any] = {"text/plain": "<object>"}
    if "html" in data:
        bundle["text/html"] = data["html"]
    if "png" in data:
        bundle["image/png"] = base64.b64encode(data["png"]).decode("ascii")
        cell.metadata["mystnb"] = {"image": {"alt": f"What {id} shows."}}
    if data:
        cell.outputs = [nbformat.v4.new_output("execute_result", data=bundle, execution_count=1)]
    return cell


def run(
    root: Path,
    edition: str,
    values: Mapping[str, Value],
    *,
    name: str = P1,
    parameters: Mapping[str, Any] | None = None,
    cells: list[nbformat.NotebookNode] | None = None,
    seed: int = 0,
) -> Path:
    """A complete run under ``runs/<edition>/<name>``, or in the folder of another seed than 0; returns its folder."""
    import pandas as pd

    folder = seed_folder(root / "runs" / edition, seed or None) / name
    shutil.rmtree(folder, ignore_errors=True)
    record = Run(
        name,
        {"seed": seed, "dataset": "mnist-5k", "n_images": 20, **(parameters or {})},
        folder,
        edition=edition,
    )
    for id, (value, n, interval) in values.items():
        record.value(id, value, n=n, ci=interval, unit="points")
    record.table("p1.counts", pd.DataFrame({"set": ["test"], "images": [20]}))
    record.finish()
    title = nbformat.v4.new_markdown_cell("# A chapter\n\nIts first sentence.")
    notebook = nbformat.v4.new_notebook(cells=[title, *(cells or [code("one", "draw()", png=figure())])])
    nbformat.write(notebook, folder / "notebook.ipynb")
    status = {"notebook": name, "state": "completed", "seconds": 1.5, "when": "2026-01-02T03:04:05Z"}
    (folder / "status.json").write_text(json.dumps(status))
    return folder
