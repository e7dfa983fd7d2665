"""Figures of the chapters on the front page, straight from the run that the book shows.

The prose names figures of executed notebooks in a comment on a line of its own::

    <!-- figures: p2_gradcam_shift/p2-fig-controls p3_layer_by_layer/p3-fig-controls -->

Each is copied next to the page and shown with the caption and the alternative text that it has in its chapter, and with a
link to it there. What an edition has not drawn is left out.
"""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import nbformat

MARK = re.compile(r"^<!-- figures: (?P<names>\S+/\S+(?: \S+/\S+)*) -->$", re.MULTILINE)
"""A comment that asks for figures: ``notebook/label`` of each."""

FOLDER = "figures"
"""Where the pictures go, beside the page."""


class DrawnFigure(NamedTuple):
    """A figure of an executed notebook: its label, its picture, and what the page says of it."""

    label: str
    png: bytes
    caption: str
    alt: str


def wanted(text: str) -> list[tuple[str, str]]:
    """Return notebook and label of each figure that a page asks for, in order."""
    named = [name.split("/") for mark in MARK.finditer(text) for name in mark["names"].split()]
    return [(notebook, label) for notebook, label in named]


def drawn_figure(notebook: nbformat.NotebookNode, label: str) -> DrawnFigure | None:
    """Return the figure of a notebook that has a label; None where the run drew none."""
    for cell in notebook.cells:
        look = cell.metadata.get("mystnb", {})
        if cell.cell_type != "code" or look.get("figure", {}).get("name") != label:
            continue
        for output in cell.outputs:
            encoded = output.get("data", {}).get("image/png")
            if encoded:
                alt = look.get("image", {}).get("alt", "")
                return DrawnFigure(label, base64.b64decode(encoded), look["figure"].get("caption", ""), alt)
    return None


def place_figures(page: Path, runs: Mapping[str, Path]) -> list[str]:
    """Replace the comments of a page by the figures that they name, as far as the runs have drawn them.

    Args:
        page: the staged page; pictures go to the folder :data:`FOLDER` beside it.
        runs: notebook name to the executed notebook.

    Returns:
        The labels of the figures that are now on the page.
    """
    text = page.read_text(encoding="utf-8")
    notebooks = {
        name: nbformat.read(runs[name], as_version=4)
        for name in dict.fromkeys(notebook for notebook, _ in wanted(text))
        if name in runs
    }
    shown: list[str] = []

    def figures(mark: re.Match[str]) -> str:
        blocks = []
        for notebook, label in wanted(mark[0]):
            found = drawn_figure(notebooks[notebook], label) if notebook in notebooks else None
            if found is not None:
                picture = page.parent / FOLDER / f"{label}.png"
                picture.parent.mkdir(exist_ok=True)
                picture.write_bytes(found.png)
                blocks.append(_block(found))
                shown.append(label)
        return "\n".join(["::::{container} findings", *blocks, "::::"]) if blocks else ""

    page.write_text(MARK.sub(figures, text), encoding="utf-8")
    return shown


def _block(figure: DrawnFigure) -> str:
    return "\n".join(
        [
            ":::{container} finding",
            f"```{{image}} {FOLDER}/{figure.label}.png",
            f":alt: {figure.alt}",
            "```",
            "",
            f"{figure.caption} {{numref}}`{figure.label}`",
            ":::",
        ]
    )
