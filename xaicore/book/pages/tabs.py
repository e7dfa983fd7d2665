"""Results of the committed editions on the chapters' pages, in tabs beside those of the edition that the book has.

A cell is known by its id. Where its figures or tables differ between editions, they stand in a tab for each, the
strongest evidence in front: sphinx-design's tabs, of which one switch turns all of a page and which the reader's browser
remembers. Pictures lie beside the page and are loaded when they come into sight, since a chapter opens with its claims.
What was drawn as PNG lies there as lossless WebP: the same pixels in half the bytes.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from xaicore.book.compact import text_of
from xaicore.book.keeping import KEPT, kept_runs
from xaicore.book.pages.statistics import conditions, run_label
from xaicore.book.running.run_folder import NOTEBOOK, STATUS
from xaicore.run.records import FILE, load_record

PNG = "image/png"
PICTURES = {PNG: "png", "image/jpeg": "jpg"}
TABLE = "text/html"
GROUP = "edition"
"""What the tabs of all pages turn together by."""
EDITIONS_LINE = "{.editions}"
"""Stands before the line that says which editions a page shows."""
CHANGED = "The code of this cell has changed since that run."
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
    """Read a run's folder, see :mod:`xaicore.book.running.run_folder`."""
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
        others: runs of other editions, the strongest evidence first; their tabs come before that of ``here``.
        name: the chapter's name.
        pictures: folder for the pictures, which the page finds as ``<name>/<edition>/``.
    """
    _head(page, here, others, name)
    files: dict[Path, tuple[str, bytes]] = {}
    for cell in page.cells:
        if cell.cell_type != "code" or NOT_OURS & set(cell.metadata.get("tags", [])):
            continue
        runs = {run.edition: found for run in others if (found := run.cell(cell.id)) and _results(found)}
        own = _results(cell)
        differ = any(_results(found) != own for found in runs.values())
        alone = bool(others and own and not runs)
        if not (differ or alone) and all(kind == TABLE for kind, _ in own):
            continue
        shown = [run for run in others if run.edition in runs and differ] + [here]
        blocks = {}
        for run in shown:
            parts, drawn = _parts(run, runs.get(run.edition, cell), name)
            blocks[run.edition] = parts
            files |= {pictures / file: content for file, content in drawn.items()}
        if differ:
            items = [_tab(run, cell, blocks[run.edition], here=here, front=run is shown[0]) for run in shown]
            text = "\n".join(["::::::{tab-set}", f":sync-group: {GROUP}", "", *items, "::::::"])
        else:
            whose = [_note(f"{_tab_title(here, here)}: {conditions(here.record)}")] if alone else []
            text = _raw([*whose, *blocks[here.edition]])
        _replace_results(cell, text)
    with ThreadPoolExecutor() as threads:
        list(threads.map(_write_picture, files, files.values()))


def _tab_title(run: ChapterRun, here: ChapterRun, *, front: bool = False) -> str:
    if run is here:
        return f"This run: {run.edition} edition"
    return f"Evidence: {run.edition} edition" if front else f"{run.edition.capitalize()} edition"


def _tab(
    run: ChapterRun, cell: nbformat.NotebookNode, parts: Sequence[str], *, here: ChapterRun, front: bool
) -> str:
    """Return a tab in MyST: what the run looked at, then the cell's figures and tables as they are in the notebook."""
    note = _note(conditions(run.record) + (f". {CHANGED}" if _has_changed(cell, run) else ""))
    text = _raw([note, *(parts or ["<p>This edition shows nothing here.</p>"])])
    return f":::::{{tab-item}} {_tab_title(run, here, front=front)}\n:sync: {run.edition}\n\n{text}\n:::::"


def _note(text: str) -> str:
    return f'<p class="edition-note">{html.escape(text)}</p>'


def _parts(
    run: ChapterRun, cell: nbformat.NotebookNode, name: str
) -> tuple[list[str], dict[str, tuple[str, bytes]]]:
    """Return a cell's figures and tables in HTML, and of the pictures file → media type and content."""
    parts: list[str] = []
    files: dict[str, tuple[str, bytes]] = {}
    look = cell.metadata.get("mystnb", {}).get("image", {})
    for position, (kind, content) in enumerate(_results(cell)):
        if kind == TABLE:
            parts.append(content)
            continue
        suffix = "webp" if kind == PNG else PICTURES[kind]
        file = f"{name}/{run.edition}/{cell.id}{f'-{position}' if position else ''}.{suffix}"
        picture = base64.b64decode(content)
        with Image.open(io.BytesIO(picture)) as image:
            size = f'width="{image.width}" height="{image.height}"'
        alt = html.escape(f"{look.get('alt') or 'Figure'} ({run.edition} edition)", quote=True)
        width = html.escape(str(look.get("width", "100%")), quote=True)
        files[file] = kind, picture
        parts.append(
            f'<div class="edition-figure"><img src="{file}" alt="{alt}" {size} style="width: {width}" '
            'loading="lazy"></div>'
        )
    return parts, files


def _raw(parts: Sequence[str]) -> str:
    return "\n".join(["````{raw} html", *parts, "````"])


def _write_picture(path: Path, picture: tuple[str, bytes]) -> None:
    """Write a picture of a media type, a PNG as lossless WebP."""
    kind, content = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == PNG:
        with Image.open(io.BytesIO(content)) as image:
            # Method 4 takes 1.4 times as long for 0.04 % fewer bytes.
            image.save(path, "WEBP", lossless=True, exact=True, quality=60, method=1)
    else:
        path.write_bytes(content)


def _replace_results(cell: nbformat.NotebookNode, text: str) -> None:
    """Put MyST in the place of a cell's figures and tables; a figure's number and caption stay around it."""
    shown = [output for output in cell.outputs if _result(output)]
    place = cell.outputs.index(shown[0]) if shown else len(cell.outputs)
    rest = [output for output in cell.outputs if not _result(output)]
    rest.insert(place, nbformat.v4.new_output("display_data", data={"text/markdown": text}))
    cell.outputs = rest
    cell.metadata.setdefault("mystnb", {})["markdown_format"] = "myst"


def _has_changed(cell: nbformat.NotebookNode, run: ChapterRun) -> bool:
    """Whether the code of a page's cell is not as it was in a run."""
    found = run.cell(cell.id)
    return found is None or found.source != cell.source


def _results(cell: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Return media type and content of the figures and tables that a cell shows."""
    return [found for output in cell.outputs if (found := _result(output)) is not None]


def _result(output: nbformat.NotebookNode) -> tuple[str, str] | None:
    data = output.get("data", {})
    for kind in PICTURES:
        if kind in data:
            return kind, text_of(data[kind])
    table = text_of(data.get(TABLE, ""))
    return (TABLE, table) if table.lstrip().startswith("<table") else None


def _head(page: nbformat.NotebookNode, here: ChapterRun, others: Sequence[ChapterRun], name: str) -> None:
    shown = []
    for run in (here, *others):
        day = f", run on {run.day}" if run.day else ""
        link = f"{{ref}}`{run.edition} <{run_label(run.edition, name)}>`"
        ours = (
            c for c in page.cells if c.cell_type == "code" and not NOT_OURS & set(c.metadata.get("tags", []))
        )
        changed = sum(_has_changed(cell, run) for cell in ours) if run is not here else 0
        cells = f"; the code of {changed} cell{'s' * (changed != 1)} has changed since" if changed else ""
        shown.append(f"**{link}** ({conditions(run.record)}{day}{cells})")
    what = "Editions" if others else "Edition"
    line = f"{what} on this page: {' and '.join(shown)}. {{doc}}`What an edition is </book/reading>`."
    title, _, rest = page.cells[0].source.partition("\n")
    page.cells[0].source = f"{title}\n\n{EDITIONS_LINE}\n{line}\n{rest}"
