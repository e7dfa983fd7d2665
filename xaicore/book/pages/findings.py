"""Figures of the chapters on the front page: of the strongest evidence that has them, else of the book's run.

The prose names figures of executed notebooks in a comment on a line of its own::

    <!-- figures: p2_gradcam_shift/p2-fig-controls p3_layer_by_layer/p3-fig-controls -->

Each is copied next to the page and shown with the caption and the alternative text that it has in its chapter, and with a
link to it there. What no edition has drawn is left out.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from xaicore.book.pages.tabs import PICTURES, ChapterRun

MARK = re.compile(r"^<!-- figures: (?P<names>\S+/\S+(?: \S+/\S+)*) -->$", re.MULTILINE)
"""A comment that asks for figures: ``notebook/label`` of each."""

FOLDER = "figures"
"""Where the pictures go, beside the page."""


def wanted(text: str) -> list[tuple[str, str]]:
    """Return notebook and label of each figure that a page asks for, in order."""
    named = [name.split("/") for mark in MARK.finditer(text) for name in mark["names"].split()]
    return [(notebook, label) for notebook, label in named]


def place_figures(
    page: Path, runs: Mapping[str, Path], others: Mapping[str, Sequence[ChapterRun]] | None = None
) -> list[str]:
    """Replace the comments of a page by the figures that they name, as far as a run has drawn them.

    Args:
        page: the staged page; pictures go to the folder :data:`FOLDER` beside it.
        runs: notebook name to the executed notebook.
        others: notebook name to its committed runs, the strongest evidence first; they come before those of ``runs``.

    Returns:
        The labels of the figures that are now on the page.
    """
    text = page.read_text(encoding="utf-8")
    names = dict.fromkeys(name for name, _ in wanted(text) if name in runs)
    sources = {
        name: [
            *((f" ({run.edition} edition)", run.notebook.cells) for run in (others or {}).get(name, ())),
            ("", nbformat.read(runs[name], as_version=4).cells),
        ]
        for name in names
    }
    shown: list[str] = []

    def figures(mark: re.Match[str]) -> str:
        blocks = []
        for name, label in wanted(mark[0]):
            found = (
                (edition, drawn)
                for edition, cells in sources.get(name, ())
                if (drawn := _drawn(cells, label)) is not None
            )
            for edition, (look, kind, picture) in list(found)[:1]:
                file = page.parent / FOLDER / f"{label}.{PICTURES[kind]}"
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(picture)
                caption = f"{look['figure'].get('caption', '')} {{numref}}`{label}`{edition}"
                blocks.append(_block(file.name, caption, look["image"]["alt"]))
                shown.append(label)
        return "\n".join(["::::{container} findings", *blocks, "::::"]) if blocks else ""

    page.write_text(MARK.sub(figures, text), encoding="utf-8")
    return shown


def _drawn(cells: Sequence[nbformat.NotebookNode], label: str) -> tuple[Mapping[str, Any], str, bytes] | None:
    """Return how a figure is to look, its media type and its bytes; None where it was not drawn."""
    for cell in cells:
        look = cell.metadata.get("mystnb", {})
        if look.get("figure", {}).get("name") == label:
            for output in cell.get("outputs", []):
                for kind in PICTURES:
                    if kind in output.get("data", {}):
                        return look, kind, base64.b64decode(output["data"][kind])
    return None


def _block(file: str, caption: str, alt: str) -> str:
    return f""":::{{container}} finding
```{{image}} {FOLDER}/{file}
:alt: {alt}
```

{caption}
:::"""
