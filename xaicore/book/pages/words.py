"""Numbers in prose, bound to what they come from.

In the Markdown of pages and notebooks, and in captions, the target of a link says where a number comes from, and the link
reads as plain text where nothing fills it in::

    [96 %](value:p4.aware.pgd)              a committed value, of the strongest edition that has it
    [96 %](value:embedded/p4.aware.pgd)     of this edition
    [[91, 100]](value:p4.aware.pgd:ci)      its 95 % interval; :n images, :runs runs, and the
                                            :least and :most of the runs
    [1 %](paper:p4.adaptive.success)        a number that a paper reports, from claims/
    [224](parameter:p4.size)                a parameter of the strongest edition, or parameter:embedded/p4.size;
                                            one of a list: parameter:p4.eps.0
    [hardly moves](verdict:p4.claim=reproduced|partly)   words that hold as long as the claim has one of these verdicts
    [8/255](setting:)                       a number that is no result of a run

The page has the committed number, written as the author wrote it: as many decimals, the same unit, in figures or as a
word. It links to the claim that reads it, or to the run in the statistics. A target that leads nowhere, a verdict that is
another, and a number that looks like a result and is bound to nothing stop the build. So does a number that is written
otherwise in a page's source than it is committed; a notebook that was executed before its source was corrected is no
obstacle::

    python -m xaicore.book.pages.words            what does not fit in the pages' sources
    python -m xaicore.book.pages.words --write    write the committed numbers into them, and their prose into the
                                                  committed executed notebooks
"""

from __future__ import annotations

import argparse
import html
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from xaicore.book.pages.committed import Bound, Committed, Unknown
from xaicore.book.pages.unbound import WORDS, unbound, without_code
from xaicore.core.units import number
from xaicore.run.repository import find_root

LOOSE = (
    "is bound to nothing; link it as [96 %](value:id), (paper:id) or (parameter:p4.name), mark it as (setting:) if it is "
    "no result, or say it without a number"
)

LINK = re.compile(
    r"\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])+)\]"
    r"\((?P<kind>value|paper|parameter|verdict|setting):(?P<target>[^()\s]*)\)"
)
_WRITTEN = re.compile(r"(?<![\w.,/])[+−-]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?")
_SPELLED = re.compile(rf"\b(?:{'|'.join(WORDS.values())})\b", re.IGNORECASE)
_UNIT = re.compile(
    r"[\]\s\u00a0]*(?P<unit>%|per cent\b|percent\b|points?\b|bits?\b|dB\b|logits?\b|[x×](?!\w)|times\b)"
)
_SHOWN = {
    "per cent": "%",
    "percent": "%",
    "point": "points",
    "bit": "bits",
    "logit": "logits",
    "x": "",
    "×": "",
    "times": "",
}


@dataclass(frozen=True)
class Finding:
    """What does not fit in a page.

    Attributes:
        page: its path in the repository.
        where: the line of a page, the cell of a notebook (both from 1), as in ``cell 7``.
        what: what it is, and what to do.
        shown: whether the page would be wrong; else only its source is, as the page has the committed number.
    """

    page: str
    where: str
    what: str
    shown: bool = True

    def __str__(self) -> str:
        return f"{self.page}, {self.where}: {self.what}"


class _Unfit(ValueError):
    """A text that does not fit its target; the message says what to do."""


def bind(
    text: str, committed: Committed, up: str = "../", *, source: bool = False
) -> tuple[str, list[tuple[int, str, bool]]]:
    """Fill in the bound numbers of Markdown.

    Args:
        text: Markdown.
        committed: what is committed.
        up: the way from the page to the root of the book.
        source: keep the links, and correct only the numbers in them.

    Returns:
        The text as the page has it, and what does not fit: the place in ``text``, what, and whether the page would be
        wrong, or only its source is.
    """
    faults: list[tuple[int, str, bool]] = []
    prose = without_code(text)

    def fill(link: re.Match[str]) -> str:
        if prose[link.start()] == "\0":
            return link[0]
        kind, target, words = link["kind"], link["target"], link["text"]
        if kind == "setting":
            return link[0] if source else words
        try:
            bound = committed.bound(kind, target, up)
            written = _written(
                words, bound, text[link.end() : link.end() + 12], check_unit=kind != "parameter"
            )
        except (Unknown, _Unfit) as error:
            faults.append((link.start(), str(error), True))
            return link[0] if source else words
        if written != words:
            what = (
                f"[{words}]({kind}:{target}) is committed as {written}; write it, and read the sentence again: "
                "python -m xaicore.book.pages.words --write"
            )
            faults.append((link.start(), " ".join(what.split()), False))
        if source:
            return f"[{written}]({kind}:{target})"
        title = html.escape(bound.title.replace("`", ""), quote=True)
        kinds = "bound number" if bound.numbers else "bound"
        return f'<a class="{kinds}" href="{bound.href}" title="{title}">{written}</a>'

    return LINK.sub(fill, text), faults


def page_findings(page: str, path: Path, committed: Committed) -> list[Finding]:
    """Check the prose of a page.

    Args:
        page: its path in the repository, such as ``notebooks/p4_heat_and_blur.ipynb``.
        path: the file to read, for a notebook the source or as it was executed.
        committed: what is committed.
    """
    findings = []
    for place, text in _parts(path):
        for position, what, shown in bind(text, committed)[1]:
            findings.append(Finding(page, place or _line(text, position), what, shown))
        for position, words in unbound(text):
            findings.append(Finding(page, place or _line(text, position), f"{words} {LOOSE}"))
    return findings


def findings(root: Path, notebooks: Mapping[str, Path], committed: Committed) -> list[Finding]:
    """Check the prose of all pages: how they would look, and whether their sources have the committed numbers.

    Args:
        root: the project's folder.
        notebooks: name → notebook, the source or as it was executed.
        committed: what is committed.
    """
    pages = {f"book/{path.name}": path for path in sorted((root / "book").glob("*.md"))}
    pages |= {f"notebooks/{name}.ipynb": path for name, path in notebooks.items()}
    found = []
    for page, path in pages.items():
        found += [each for each in page_findings(page, path, committed) if each.shown]
        if (root / page).is_file():
            found += [each for each in page_findings(page, root / page, committed) if not each.shown]
    return found


def fill_in(path: Path, committed: Committed, *, source: bool = False) -> None:
    """Put the committed numbers into a page or notebook, as :func:`bind` does."""
    _rewrite(path, lambda text: bind(text, committed, source=source)[0])


def retell(executed: Path, source: Path) -> None:
    """Give an executed notebook the Markdown of its source, where both have the same cells of it."""
    old, new = (nbformat.read(path, as_version=4) for path in (executed, source))
    cells, told = ([cell for cell in each.cells if cell.cell_type == "markdown"] for each in (old, new))
    if [cell.id for cell in cells] != [cell.id for cell in told]:
        return
    for cell, current in zip(cells, told, strict=True):
        cell.source = current.source
    nbformat.write(old, executed)


def pages_of(tree: Path) -> list[Path]:
    """Return the pages and notebooks of a project, or of the tree that Sphinx builds."""
    return sorted([*(tree / "book").glob("*.md"), *(tree / "notebooks").glob("*.ipynb")])


def _parts(path: Path) -> list[tuple[str, str]]:
    """Return each text of a page behind where it stands: ``cell 7``, ``cell 8, caption``, nothing for Markdown."""
    if path.suffix == ".md":
        return [("", path.read_text(encoding="utf-8"))]
    return [(where, holder[key]) for where, holder, key in _texts(nbformat.read(path, as_version=4))]


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
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


def _line(text: str, position: int) -> str:
    return f"line {text.count(chr(10), 0, position) + 1}"


def _written(words: str, bound: Bound, after: str, *, check_unit: bool) -> str:
    """Return the words of a link with its numbers as they are committed.

    Raises:
        _Unfit: they have not as many numbers as the target, or another unit.
    """
    if not bound.numbers:
        loose = next(unbound(words), None)
        if loose:
            raise _Unfit(f"{loose[1]} stands in the words of a verdict; bind the number on its own")
        return words
    places = list(_WRITTEN.finditer(words)) or list(_SPELLED.finditer(words))
    if len(places) != len(bound.numbers):
        wanted = "one number" if len(bound.numbers) == 1 else f"{len(bound.numbers)} numbers"
        raise _Unfit(f"'{words}' must have {wanted} to be filled in; put the link around it alone")
    unit = _UNIT.match(words[places[-1].end() :] + after) if check_unit else None
    if unit and _SHOWN.get(unit["unit"], unit["unit"]) != bound.unit:
        raise _Unfit(
            f"'{words}' is in {unit['unit']}, the number in {bound.unit or 'no unit'}; write its unit"
        )
    for place, value in reversed(list(zip(places, bound.numbers, strict=True))):
        words = words[: place.start()] + _as_written(value, place[0]) + words[place.end() :]
    return words


def _as_written(value: float, written: str) -> str:
    """Return a number in the form in which another was written: as many decimals, a fraction, or a word."""
    if written.lower() in WORDS.values():
        word = WORDS.get(round(value), f"{round(value):,}")
        return word.capitalize() if written[0].isupper() else word
    if "/" in written:
        below = int(written.split("/")[1])
        above = value * below
        whole = math.isclose(above, round(above), rel_tol=1e-6)
        return f"{round(above)}/{below}" if whole else number(value)
    text = f"{value:z,.{len(written.partition('.')[2])}f}"
    if "," not in written and abs(value) < 10_000:
        text = text.replace(",", "")
    return ("+" if written.startswith("+") and value > 0 else "") + text.replace("-", "−")


def main() -> int:
    """Check the sources of the pages, or correct their numbers; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m xaicore.book.pages.words", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the committed numbers into the sources")
    root = find_root()
    committed = Committed.load(root)
    if parser.parse_args().write:
        for path in pages_of(root):
            fill_in(path, committed, source=True)
        for path in sorted((root / "results").glob("*/*/notebook.ipynb")):
            retell(path, root / "notebooks" / f"{path.parent.name}.ipynb")
    sources = {path.stem: path for path in pages_of(root) if path.suffix == ".ipynb"}
    found = findings(root, sources, committed)
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
