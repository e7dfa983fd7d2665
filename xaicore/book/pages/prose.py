"""The prose of a page: a file of Markdown, or a notebook's Markdown cells and the captions of its figures."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat


def parts(path: Path) -> list[tuple[str, str]]:
    """Return each text of a page behind where it stands: ``cell 7``, ``cell 8, caption``, nothing for Markdown."""
    if path.suffix == ".md":
        return [("", path.read_text(encoding="utf-8"))]
    return [(where, holder[key]) for where, holder, key in _texts(nbformat.read(path, as_version=4))]


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    """Put each text of a page through ``change``."""
    if path.suffix == ".md":
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        return
    notebook = nbformat.read(path, as_version=4)
    for _, holder, key in _texts(notebook):
        holder[key] = change(holder[key])
    nbformat.write(notebook, path)


def _texts(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, Any, str]]:
    for position, cell in enumerate(notebook.cells, start=1):
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if cell.cell_type == "markdown":
            yield f"cell {position}", cell, "source"
        elif "caption" in figure:
            yield f"cell {position}, caption", figure, "caption"
