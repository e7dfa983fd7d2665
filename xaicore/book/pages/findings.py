"""Figures of the chapters on the front page, straight from executed notebooks.

The prose names figures of executed notebooks in a comment on a line of its own::

    <!-- figures: p2_gradcam_shift/p2-fig-controls p3_layer_by_layer/p3-fig-controls -->

Each is copied next to the page and shown with the caption and the alternative text that it has in its chapter, the
edition, and a link to it there: of the strongest edition, or of the one that is named as in ``p2-fig-controls@embedded``.
What an edition has not drawn is left out.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from xaicore.book.pages.tabs import PICTURES, ChapterRun

MARK = re.compile(r"^<!-- figures: (?P<names>\S+/\S+(?: \S+/\S+)*) -->$", re.MULTILINE)
"""A comment that asks for figures: ``notebook/label`` of each, or ``notebook/label@edition``."""

FOLDER = "figures"
"""Where the pictures go, beside the page."""


def wanted(text: str) -> list[tuple[str, str, str]]:
    """Return notebook, label and edition (or nothing) of each figure that a page asks for, in order."""
    named = [name.partition("/") for mark in MARK.finditer(text) for name in mark["names"].split()]
    return [(notebook, *label.partition("@")[::2]) for notebook, _, label in named]


def place_figures(page: Path, runs: Mapping[str, Sequence[ChapterRun]]) -> list[str]:
    """Replace the comments of a page by the figures that they name, as far as the runs have drawn them.

    Args:
        page: the staged page; pictures go to the folder :data:`FOLDER` beside it.
        runs: notebook name to its runs, the strongest first; the last stands in for an edition that is not there.

    Returns:
        The labels of the figures that are now on the page.
    """
    text = page.read_text(encoding="utf-8")
    shown: list[str] = []

    def figures(mark: re.Match[str]) -> str:
        blocks = []
        for name, label, edition in wanted(mark[0]):
            if name not in runs:
                continue
            of = {run.edition: run for run in runs[name]}
            run = of.get(edition, runs[name][-1 if edition else 0])
            for cell in run.notebook.cells:
                look = cell.metadata.get("mystnb", {})
                if look.get("figure", {}).get("name") == label:
                    data = [output.get("data", {}) for output in cell.get("outputs", [])]
                    drawn = [(kind, each[kind]) for each in data for kind in PICTURES if kind in each]
                    for kind, encoded in drawn:
                        picture = page.parent / FOLDER / f"{label}.{PICTURES[kind]}"
                        picture.parent.mkdir(exist_ok=True)
                        picture.write_bytes(base64.b64decode(encoded))
                        caption = f"{look['figure'].get('caption', '')} {run.edition.capitalize()} edition."
                        blocks.append(_block(picture.name, label, caption, look["image"]["alt"]))
                        shown.append(label)
        return "\n".join(["::::{container} findings", *blocks, "::::"]) if blocks else ""

    page.write_text(MARK.sub(figures, text), encoding="utf-8")
    return shown


def _block(picture: str, label: str, caption: str, alt: str) -> str:
    return f""":::{{container}} finding
```{{image}} {FOLDER}/{picture}
:alt: {alt}
```

{caption} {{numref}}`{label}`
:::"""
