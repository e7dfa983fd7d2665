"""The explorer as a page: sheets of tiles and one file of numbers beside the record, and the panel that shows them.

The files lie in the run's folder ``assets``, which the book carries along beside the run's page. The numbers come as a
script, not as JSON to fetch, so that the page also works where it lies in a folder, without a server.
"""

import hashlib
import html
import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML
from torch import Tensor

from xaicore.attacks import ATTACKS
from xaicore.attribution import PRESETS
from xaicore.attribution.titles import TITLES as METHOD_TITLES
from xaicore.core.files import write_atomically
from xaicore.figures import tiles
from xaicore.run.params.checks import SIZED_ATTACKS
from xaicore.run.records import ASSETS
from xaicore.studies.explorer import ANSWER, SHIFTS, TRUE, Explored
from xaicore.studies.subjects import Subject

DATA = "explorer-data.js"
TITLES = {
    **{name: ATTACKS[name].title for name in SIZED_ATTACKS},
    **METHOD_TITLES,
    **{name: f"LRP {name}" for name in PRESETS},
}
CLASSES = 3
"""How many of the likeliest classes are shown, of the clean and of the changed image."""


class Sheets:
    """Writes tiles to sheets in ``folder``, which is emptied, and knows where each lies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[dict[str, Any]] = []
        shutil.rmtree(folder, ignore_errors=True)

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file and note its size and digest."""
        write_atomically(self.folder / name, content, what=f"the file {name}")
        plain = content if isinstance(content, bytes) else content.encode()
        digest = hashlib.sha256(plain).hexdigest()
        self.files.append({"file": name, "bytes": len(plain), "sha256": digest})

    def sheet(self, name: str, placed: Mapping[str, tiles.Tile], *, maps: bool) -> dict[str, Any]:
        """Write tiles as one sheet; return its file, its number of columns and the place of each tile."""
        content = list(placed.values())
        encoded = tiles.map_sheet(content) if maps else tiles.picture_sheet(content)
        suffix = "webp" if encoded[:4] == b"RIFF" else "png"
        self.write(f"{name}.{suffix}", encoded)
        places = {key: position for position, key in enumerate(placed)}
        return {"file": f"{name}.{suffix}", "columns": tiles.columns(len(content)), "places": places}

    def table(self) -> pd.DataFrame:
        """Return the files written so far: name, size, sha256."""
        return pd.DataFrame(self.files)


def write_data(sheets: Sheets, subjects: Mapping[str, dict[str, Any]]) -> None:
    """Write the numbers of all subjects, made by :func:`describe`, as the script that the page loads."""
    content = {"titles": TITLES, "subjects": subjects}
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    sheets.write(DATA, f"window.xaicoreExplorer = {text};\n")


def describe(
    sheets: Sheets,
    name: str,
    subject: Subject,
    explored: Explored,
    table: pd.DataFrame,
    *,
    about: str,
) -> dict[str, Any]:
    """Write the sheets of a subject and return what the page has to know of it.

    Args:
        sheets: where the tiles go.
        name: of the subject.
        subject: the network and its images.
        explored: what :func:`xaicore.studies.explorer.explore` returned.
        table: what :func:`xaicore.studies.explorer.comparisons` made of it.
        about: data, network and parameters in a sentence, for the foot of the panel.
    """
    cases: dict[str, dict[str, None]] = {}
    for version in explored.versions:
        cases.setdefault(version.attack, {})[version.size] = None
    keys = slugs([subject.names[label] for label in subject.labels.tolist()])
    height, width = subject.images.shape[-2:]
    return {
        "about": about,
        "tile": [width, height],
        "attacks": {attack: list(sizes) for attack, sizes in cases.items()},
        "explanations": list(explored.maps),
        "images": [
            _image(sheets, f"{name}.{key}", key, image, subject, explored, table)
            for image, key in enumerate(keys)
        ],
    }


def slugs(names: list[str]) -> list[str]:
    """Return names in lower case with hyphens, the second of a name with ``-2``, and so on: what links are made of."""
    plain = [re.sub(r"[^\w]+", "-", name.lower()).strip("-") or "image" for name in names]
    return [
        slug if slug not in plain[:position] else f"{slug}-{plain[:position].count(slug) + 1}"
        for position, slug in enumerate(plain)
    ]


def panel(notebook: str = "explorer") -> HTML:
    """Return the panel as the output of a cell; it comes to life in the built book, where its files are."""
    folder = html.escape(f"{notebook}/{ASSETS}/", quote=True)
    return HTML(
        f'<link rel="stylesheet" href="../_static/explorer.css">'
        f'<section class="explorer" data-explorer="{folder}" aria-label="Explorer of attacks and explanations">'
        '<p class="explorer-wait">The panel opens here in the built book.</p>'
        "<noscript><p>The panel needs JavaScript; the tables below have its numbers without it.</p></noscript>"
        f'</section><script src="{folder}{DATA}"></script><script src="../_static/explorer.js"></script>'
    )


def _image(
    sheets: Sheets,
    name: str,
    key: str,
    image: int,
    subject: Subject,
    explored: Explored,
    table: pd.DataFrame,
) -> dict[str, Any]:
    label = int(subject.labels[image])
    clean = explored.probabilities[0, image]
    shares = {
        explanation: tiles.share_of_scale(maps[0, image, ANSWER])
        for explanation, maps in explored.maps.items()
    }
    pictures: dict[str, dict[str, tiles.Tile]] = {}
    maps: dict[str, dict[str, tiles.Tile]] = {}
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    grouped = {key: rows for key, rows in table[table["image"] == image].groupby(["attack", "size", "kind"])}
    for number, version in enumerate(explored.versions, start=1):
        attack, case = version.attack, f"{version.size}|{version.kind}"
        change, factor = tiles.perturbation_tile(version.images[image] - subject.images[image])
        picture = tiles.picture_tile(version.images[image])
        pictures.setdefault(attack, {}).update({case: picture, f"{case}|change": change})
        placed = maps.setdefault(attack, {})
        for explanation, before in shares.items():
            for explained in (ANSWER, TRUE):
                heatmap = explored.maps[explanation].get((number, image, explained))
                if heatmap is not None:
                    after = tiles.share_of_scale(heatmap)
                    place = f"{case}|{explanation}|{explained}"
                    placed[place] = tiles.map_tile(after)
                    placed[f"{place}|difference"] = tiles.difference_tile(before, after)
        classes = _classes(subject.names, clean, explored.probabilities[number, image])
        numbers = grouped[attack, version.size, version.kind]
        cases.setdefault(attack, {})[case] = _case(numbers, factor) | {"classes": classes}
    attacks = {
        attack: {
            "pictures": sheets.sheet(f"{name}.{attack}.pictures", pictures[attack], maps=False),
            "maps": sheets.sheet(f"{name}.{attack}.maps", maps[attack], maps=True),
            "cases": found,
        }
        for attack, found in cases.items()
    }
    shown = {"clean": tiles.picture_tile(subject.images[image])}
    explained_shares = {key: tiles.map_tile(share) for key, share in shares.items()}
    return {
        "key": key,
        "class": subject.names[label],
        "confidence": rounded(float(clean[label])),
        "picture": sheets.sheet(f"{name}.picture", shown, maps=False),
        "maps": sheets.sheet(f"{name}.maps", explained_shares, maps=True),
        "attacks": attacks,
    }


def _case(numbers: pd.DataFrame, factor: float) -> dict[str, Any]:
    first = numbers.iloc[0]
    shifts: dict[str, dict[str, Any]] = {}
    for row in numbers.to_dict("records"):
        measured = {name: rounded(row[name]) for name in SHIFTS}
        shifts.setdefault(str(row["explanation"]), {})[str(row["explained"])] = measured
    sizes = {"l2": rounded(first["l2"]), "linf": rounded(first["linf"]), "factor": rounded(factor)}
    return {"answer": first["answer"], "fooled": bool(first["fooled"]), **sizes, "shifts": shifts}


def _classes(names: tuple[str, ...], clean: Tensor, changed: Tensor) -> list[list[Any]]:
    """Return the likeliest classes of both images: name, probability before, probability after; the likeliest first."""
    count = min(CLASSES, len(clean))
    likely = {int(index) for answers in (changed, clean) for index in answers.topk(count).indices}
    order = sorted(likely, key=lambda index: (-max(float(changed[index]), float(clean[index])), index))
    return [[names[index], rounded(float(clean[index])), rounded(float(changed[index]))] for index in order]


def rounded(number: float) -> float | None:
    """Return a number with four digits that count, as the page shows at most three; None where it is undefined."""
    return float(f"{number:.4g}") if math.isfinite(number) else None
