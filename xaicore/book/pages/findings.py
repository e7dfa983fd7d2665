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

import nbformat

MARK = re.compile(r"^<!-- figures: (?P<names>\S+/\S+(?: \S+/\S+)*) -->$", re.MULTILINE)
FOLDER = "figures"
"""Where the pictures go, beside the page."""


def wanted(text: str) -> list[tuple[str, str]]:
    """Return notebook and label of each figure that a page asks for, in order."""
    named = [name.split("/") for mark in MARK.finditer(text) for name in mark["names"].split()]
    return [(notebook, label) for notebook, label in named]


def place_figures(page: Path, runs: Mapping[str, Path]) -> list[str]:
    """Replace the comments of a page by the figures that they name, as far as the runs have drawn them.

    Args:
        page: the staged page; pictures go to the folder :data:`FOLDER` beside it.
        runs: notebook name to the executed notebook.

    Returns:
        The labels of the figures that are now on the page.
    """
    text = page.read_text(encoding="utf-8")
    names = dict.fromkeys(name for name, _ in wanted(text) if name in runs)
    cells = {name: nbformat.read(runs[name], as_version=4).cells for name in names}
    shown: list[str] = []

    def figures(mark: re.Match[str]) -> str:
        blocks = []
        for name, label in wanted(mark[0]):
            for cell in cells.get(name, []):
                look = cell.metadata.get("mystnb", {})
                if look.get("figure", {}).get("name") == label:
                    drawn = (output.get("data", {}).get("image/png") for output in cell.get("outputs", []))
                    for encoded in filter(None, drawn):
                        picture = page.parent / FOLDER / f"{label}.png"
                        picture.parent.mkdir(exist_ok=True)
                        picture.write_bytes(base64.b64decode(encoded))
                        blocks.append(_block(label, look["figure"].get("caption", ""), look["image"]["alt"]))
                        shown.append(label)
        return "\n".join(["::::{container} findings", *blocks, "::::"]) if blocks else ""

    page.write_text(MARK.sub(figures, text), encoding="utf-8")
    return shown


def _block(label: str, caption: str, alt: str) -> str:
    return f""":::{{container}} finding
```{{image}} {FOLDER}/{label}.png
:alt: {alt}
```

{caption} {{numref}}`{label}`
:::"""
