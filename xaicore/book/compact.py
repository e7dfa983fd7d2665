"""An executed notebook as it is committed: figures no larger than the page needs, nothing of the machine that ran it."""

import base64
import copy
import io
import math
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image

from xaicore.figures.tiles import encoded

WIDTH = 1100
"""Pixels across of the widest figure: one and a half times the text of a page."""
JPEG_QUALITY = 90
COLOURS = 256
FAITHFUL = 1.0
"""A palette will do where it is off by at most so many of 255 levels, root mean square: for lines, not for pictures."""
PNG, JPEG, SVG = "image/png", "image/jpeg", "image/svg+xml"


def compact_notebook(notebook: nbformat.NotebookNode, paths: Mapping[str, str]) -> nbformat.NotebookNode:
    """Return a copy of an executed notebook for the repository.

    Figures are re-encoded by :func:`compact_figure`. Outputs that need files beside the notebook (the explorer's panel)
    are left out.

    Args:
        notebook: the executed notebook.
        paths: path of this machine → what to write instead, see :func:`machine_paths`.
    """
    compact = nbformat.from_dict(without_paths(notebook, paths))
    for cell in compact.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if "<script" not in text_of(output.get("data", {}).get("text/html", ""))
            ]
            for output in cell.outputs:
                if "data" in output:
                    output.data = nbformat.from_dict(_smaller(output.data))
    return compact


def without_figures(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy of an executed notebook with its tables and texts but not its figures, nine tenths of its bytes."""
    light = copy.deepcopy(notebook)
    for cell in light.cells:
        for output in cell.get("outputs", []):
            for kind in (PNG, JPEG, SVG):
                output.get("data", {}).pop(kind, None)
    return light


def compact_figure(png: bytes) -> tuple[str, bytes]:
    """Return media type and bytes of a figure: at most :data:`WIDTH` pixels wide, on white, without transparency.

    Lines become a PNG with a palette; where that would change the colours (:data:`FAITHFUL`), as in photographs and maps,
    it is the smaller of a PNG in full colour and a JPEG.
    """
    with Image.open(io.BytesIO(png)) as opened:
        drawn = opened.convert("RGBA")
    figure = Image.new("RGB", drawn.size, "white")
    figure.paste(drawn, mask=drawn.getchannel("A"))
    if figure.width > WIDTH:
        height = max(1, round(figure.height * WIDTH / figure.width))
        figure = figure.resize((WIDTH, height), Image.Resampling.LANCZOS)
    palette = figure.quantize(COLOURS)
    difference = np.asarray(palette.convert("RGB"), dtype=float) - np.asarray(figure, dtype=float)
    if math.sqrt(float(np.mean(difference**2))) <= FAITHFUL:
        return PNG, encoded(palette, "PNG", optimize=True)
    full = encoded(figure, "PNG", optimize=True)
    jpeg = encoded(figure, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return (PNG, full) if len(full) <= len(jpeg) else (JPEG, jpeg)


def machine_paths(root: Path) -> dict[str, str]:
    """Return the paths of this machine that a notebook may show → what to write instead, the longest first."""
    found = {str(Path.home()): "~", tempfile.gettempdir(): "tmp", sys.prefix: ".venv", str(root): "."}
    if data := os.environ.get("XAICORE_DATA"):
        found[str(Path(data).expanduser()).rstrip("/")] = Path(data).name
    return {path: found[path] for path in sorted(found, key=len, reverse=True) if len(path) > 1}


def _smaller(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(data)
    if SVG in kept and PNG in kept and len(text_of(kept[SVG])) > len(base64.b64decode(kept[PNG])):
        del kept[SVG]
    if PNG in kept:
        kind, content = compact_figure(base64.b64decode(kept.pop(PNG)))
        kept[kind] = base64.b64encode(content).decode("ascii")
    return kept


def without_paths(content: Any, paths: Mapping[str, str]) -> Any:
    """Return JSON content with each path of this machine replaced in every string but the figures' bytes."""
    if isinstance(content, Mapping):
        return {
            key: value if key.startswith("image/") and key != SVG else without_paths(value, paths)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [without_paths(value, paths) for value in content]
    if isinstance(content, str):
        for path, instead in paths.items():
            content = instead.join(re.split(rf"(?<![\w/.~-]){re.escape(path)}(?![\w-])", content))
    return content


def text_of(content: Any) -> str:
    """Return what a notebook holds of a text output, which may be a list of lines, as one string."""
    return content if isinstance(content, str) else "".join(content)
