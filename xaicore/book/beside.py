"""Results of the committed editions on the chapters' pages, beside those of the edition that the book is built of.

A cell is known by its id. Where its table can be joined with another edition's (:mod:`xaicore.book.second_column`), the
page has a second column; else the other edition's tables and figures stand below in a block that opens without any
script. The pictures lie beside the page and are loaded when the block is opened.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from xaicore.book.conditions import conditions, differences
from xaicore.book.keeping import KEPT, kept_runs
from xaicore.book.run_folder import NOTEBOOK, STATUS
from xaicore.book.second_column import joined
from xaicore.book.statistics import run_label
from xaicore.run.records import FILE, load_record

PICTURES = {"image/png": "png", "image/jpeg": "jpg"}
NOT_OURS = {"parameters", "injected-parameters", "bootstrap"}
"""Cells that differ between editions because their parameters do."""


@dataclass(frozen=True)
class ChapterRun:
    """A run of a chapter that its page shows: edition, executed notebook, record, and the day (empty where unknown)."""

    edition: str
    notebook: nbformat.NotebookNode
    record: Mapping[str, Any]
    day: str = ""

    def cell(self, id: str) -> nbformat.NotebookNode | None:
        """Return the code cell of an id, None where the run had none."""
        found = (cell for cell in self.notebook.cells if cell.get("id") == id and cell.cell_type == "code")
        return next(found, None)


def load_run(edition: str, folder: Path) -> ChapterRun:
    """Read a run's folder, see :mod:`xaicore.book.run_folder`."""
    status = json.loads((folder / STATUS).read_text(encoding="utf-8"))
    notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
    return ChapterRun(edition, notebook, load_record(folder / FILE), str(status.get("when", ""))[:10])


def other_runs(root: Path, edition: str) -> dict[str, list[ChapterRun]]:
    """Return notebook → its committed runs in other editions, the one that verdicts prefer first."""
    found: dict[str, list[ChapterRun]] = {}
    for other in KEPT:
        for name, folder in kept_runs(root, other).items() if other != edition else ():
            found.setdefault(name, []).append(load_run(other, folder))
    return found


def show_editions(
    page: nbformat.NotebookNode, here: ChapterRun, others: Sequence[ChapterRun], name: str, pictures: Path
) -> None:
    """Put the results of other editions on a chapter's page, and at its head which editions it shows.

    Args:
        page: the notebook that becomes the page; it is changed.
        here: the run that the page is made of.
        others: runs of other editions.
        name: the chapter's name.
        pictures: folder for the pictures of other editions, which the page finds as ``<name>/<edition>/``.
    """
    _head(page, here, others, name)
    cells = []
    for cell in page.cells:
        cells.append(cell)
        if cell.cell_type != "code" or NOT_OURS & set(cell.metadata.get("tags", [])):
            continue
        shown = {run.edition: found for run in others if (found := run.cell(cell.id)) is not None}
        left = _join(cell, here, [run for run in others if run.edition in shown])
        for run in left:
            content = _content(shown[run.edition], run.edition, name, pictures)
            if content and _outputs(shown[run.edition]) != _outputs(here.cell(cell.id) or cell):
                block = _block(run, here, content, changed=shown[run.edition].source != cell.source)
                cells.append(nbformat.v4.new_markdown_cell(block, id=f"{cell.id}-{run.edition}"))
    page.cells = cells


def _head(page: nbformat.NotebookNode, here: ChapterRun, others: Sequence[ChapterRun], name: str) -> None:
    shown = []
    for run in (here, *others):
        day = f", run on {run.day}" if run.day else ""
        link = f"{{ref}}`{run.edition} <{run_label(run.edition, name)}>`"
        changed = _changed(page, run) if run is not here else 0
        cells = f"; the code of {changed} cell{'s' * (changed != 1)} has changed since" if changed else ""
        shown.append(f"**{link}** ({conditions(run.record)}{day}{cells})")
    what = "Editions" if others else "Edition"
    line = f"{what} on this page: {' and '.join(shown)}. {{doc}}`What an edition is </book/reading>`."
    title, _, rest = page.cells[0].source.partition("\n")
    page.cells[0].source = f"{title}\n\n{{.editions}}\n{line}\n{rest}"


def _changed(page: nbformat.NotebookNode, run: ChapterRun) -> int:
    """How many code cells of a page are not as they were when another run was made."""
    return sum(
        (found := run.cell(cell.id)) is None or found.source != cell.source
        for cell in page.cells
        if cell.cell_type == "code" and not NOT_OURS & set(cell.metadata.get("tags", []))
    )


def _join(cell: nbformat.NotebookNode, here: ChapterRun, runs: Sequence[ChapterRun]) -> list[ChapterRun]:
    """Join a cell's only table with those of other runs, as many as fit; return the runs that are left."""
    tables = [output for output in cell.outputs if "text/html" in output.get("data", {})]
    same = [run for run in runs if (found := run.cell(cell.id)) is not None and found.source == cell.source]
    if len(tables) != 1 or any(_kind(output) for output in cell.outputs):
        return list(runs)
    for count in range(len(same), 0, -1):
        texts = [_tables(run.cell(cell.id)) for run in same[:count]]
        if any(len(found) != 1 for found in texts):
            continue
        wide = joined(
            [
                (here.edition, _text(tables[0].data["text/html"])),
                *((run.edition, found[0]) for run, found in zip(same, texts, strict=False)),
            ]
        )
        if wide is not None:
            notes = "; ".join(
                f"{html.escape(run.edition)}: {html.escape(differences(run.record, here.record))}"
                for run in same[:count]
            )
            tables[0].data["text/html"] = f'{wide}\n<p class="edition-note">{notes}</p>'
            return [run for run in runs if run not in same[:count]]
    return list(runs)


def _block(run: ChapterRun, here: ChapterRun, content: str, *, changed: bool) -> str:
    what = html.escape(differences(run.record, here.record))
    note = (
        '\n<p class="edition-note">The code of this cell has changed since that run.</p>' if changed else ""
    )
    return (
        f'<details class="other-edition"><summary><strong>{run.edition.capitalize()} edition:</strong> {what}</summary>'
        f"{note}\n{content}\n</details>"
    )


def _content(cell: nbformat.NotebookNode, edition: str, name: str, pictures: Path) -> str:
    """Return the tables and figures of a cell as HTML without an empty line, which would end the block in Markdown."""
    look = cell.metadata.get("mystnb", {}).get("image", {})
    parts: list[str] = []
    for output in cell.outputs:
        kind = _kind(output)
        if kind is not None:
            content = base64.b64decode(output.data[kind])
            file = f"{cell.id}{f'-{len(parts)}' if parts else ''}.{PICTURES[kind]}"
            folder = pictures / name / edition
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
            with Image.open(io.BytesIO(content)) as image:
                size = f'width="{image.width}" height="{image.height}"'
            alt = html.escape(look.get("alt") or "Figure", quote=True)
            width = html.escape(str(look.get("width", "100%")), quote=True)
            parts.append(
                f'<figure><img src="{name}/{edition}/{file}" alt="{alt} ({edition} edition)" {size} '
                f'style="width: {width}" loading="lazy"></figure>'
            )
    parts += _tables(cell)
    return "\n".join(line for part in parts for line in part.splitlines() if line.strip())


def _kind(output: nbformat.NotebookNode) -> str | None:
    return next((kind for kind in PICTURES if kind in output.get("data", {})), None)


def _tables(cell: nbformat.NotebookNode | None) -> list[str]:
    texts = [_text(output.get("data", {}).get("text/html", "")) for output in (cell.outputs if cell else ())]
    return [text for text in texts if text.lstrip().startswith("<table")]


def _outputs(cell: nbformat.NotebookNode) -> list[Any]:
    pictures = [output.data[kind] for output in cell.outputs if (kind := _kind(output))]
    return [*pictures, *_tables(cell)]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(content)
