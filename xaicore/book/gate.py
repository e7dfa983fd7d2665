"""The gate between a built book and its readers: nothing passes that a reader could not trust or open.

Sphinx reports its own warnings as errors; these checks see what Sphinx cannot: an executed notebook that shows an
error, a page that needs the network, a link that leads nowhere, a path of the machine that built it.
Each check returns a list of one-line findings, empty when all is well. What a reader's browser has to load is measured.
"""

import html.parser
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

from xaicore.book.running.run_folder import NOTEBOOK

REMOTE = re.compile(r"^(?:https?:)?//", re.IGNORECASE)
CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")
CHOICE = r"(?:image|attack|size|kind|explanation|explained)=[^&=]+"
CHOICES = re.compile(f"{CHOICE}(?:&{CHOICE})*")
"""The part of an address that opens the explorer at a case."""

LOADING = ("img", "script", "iframe", "source", "video", "audio", "embed", "object")
ADDRESSES = ("src", "poster", "data")
"""Elements that load something, and their attributes that name it, beside ``srcset``."""
LOADED_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "manifest"}
"""Relations of a link whose target is loaded with the page."""

BOOK, PAGE, FIRST_SCREEN = 40_000_000, 4_000_000, 1_000_000
"""Bytes that are meant to be enough, uncompressed."""
LOADS = re.compile(r"<(?P<element>img|script|link)\b[^>]*?\s(?:src|href)=\"(?P<address>[^\"]+)\"[^>]*>")

DOWNLOADS = (".csv", ".json", ".ipynb")
"""Text that readers take away."""


def notebook_findings(path: Path, optional_figures: Collection[str] = ()) -> list[str]:
    """Check an executed notebook: every code cell ran, none shows an error or wrote to stderr, figures are there.

    Args:
        path: the notebook; one called ``notebook.ipynb`` is named after its folder.
        optional_figures: names of figures that may be missing.
    """
    page = path.parent.name if path.name == NOTEBOOK else path.name
    return [
        f"{page}, cell {position}: {finding}"
        for position, cell in enumerate(nbformat.read(path, as_version=4).cells, start=1)
        if cell.cell_type == "code"
        for finding in _cell_findings(cell, optional_figures)
    ]


def _cell_findings(cell: nbformat.NotebookNode, optional_figures: Collection[str]) -> Iterator[str]:
    look = cell.metadata.get("mystnb", {})
    if cell.execution_count is None and cell.source.strip():
        yield "was not executed"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"shows {output.ename}: {output.evalue.splitlines()[0] if output.evalue else ''}"
        elif output.output_type == "stream" and output.name == "stderr":
            yield f"wrote to stderr: {output.text.strip().splitlines()[0][:120]}"
        elif "image/png" in output.get("data", {}) and not look.get("image", {}).get("alt"):
            yield "shows a figure without an alternative text"
    if "figure" in look:
        name = look["figure"].get("name", "without a name")
        kinds = [" ".join(output.get("data", {})) for output in cell.outputs]
        pictures = sum("image/" in each for each in kinds)
        if pictures > 1 or (not pictures and name not in optional_figures):
            yield f"the figure {name} has {pictures or 'no'} picture{'s' * (pictures > 1)}"


class _Page(html.parser.HTMLParser):
    """Collects what a page loads, where it links to and the anchors it offers."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.assets: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.unlabelled_images: list[str] = []
        self.takes_choices = False
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.takes_choices |= "data-explorer" in values
        self.anchors.update(values[key] for key in ("id", "name") if key in values)
        if tag in LOADING:
            self.assets += [values[name] for name in ADDRESSES if name in values]
            several = values.get("srcset", "").split(",")
            self.assets += [each.split()[0] for each in several if each.strip()]
        if tag == "link" and LOADED_RELATIONS & set(values.get("rel", "").lower().split()):
            self.assets.append(values.get("href", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "img" and "alt" not in values:
            self.unlabelled_images.append(values.get("src", "")[:80])
        self.assets += _css_urls(values.get("style", ""))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.assets += _css_urls(data)


def _css_urls(text: str) -> list[str]:
    return [first or second for first, second in CSS_URL.findall(text)]


def html_findings(folder: Path, forbidden: Iterable[str] = ()) -> list[str]:
    """Check built pages: no remote asset, every internal link and anchor resolves, no path of this machine.

    Args:
        folder: the built HTML.
        forbidden: strings that no page and no file for download may contain, such as the folder of the project or the
            home folder.
    """
    folder = folder.resolve()
    pages: dict[Path, _Page] = {}
    findings: list[str] = []
    for path in sorted(folder.rglob("*")):
        is_page = path.suffix == ".html" and path.parent.name != "_static"  # where templates of the theme are
        if not is_page and path.suffix not in DOWNLOADS:
            continue
        text = path.read_text(encoding="utf-8")
        if is_page:
            pages[path] = _Page(text)
        findings += [
            f"{path.relative_to(folder)}: shows a path of this machine ({word})"
            for word in forbidden
            if len(word) > 5 and word in text
        ]
    for path, page in pages.items():
        found = [f"image without an alternative text: {image}" for image in page.unlabelled_images]
        found += [f"loads {asset} from the network" for asset in page.assets if REMOTE.match(asset)]
        for reference in {*page.links, *page.assets}:
            if problem := _unresolved(reference, path, pages):
                found.append(f"{problem}: {reference}")
        findings += [f"{path.relative_to(folder)}: {finding}" for finding in found]
    for path in sorted(folder.rglob("*.css")):
        findings += [
            f"{path.relative_to(folder)}: loads {url} from the network"
            for url in _css_urls(path.read_text(encoding="utf-8", errors="replace"))
            if REMOTE.match(url)
        ]
    return findings


def _unresolved(reference: str, page: Path, pages: dict[Path, _Page]) -> str | None:
    parts = urlsplit(reference)
    if parts.scheme or parts.netloc:
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.exists():
        return "dead link"
    if not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors:
        return None
    if pages[target].takes_choices and CHOICES.fullmatch(parts.fragment):
        return None  # whether there is such a case is for the page itself to say
    return "dead anchor"


@dataclass(frozen=True)
class Sizes:
    """Bytes of a built book.

    Attributes:
        book: of all its files.
        pages: page → with all that it loads, also what comes later, such as pictures further down. What a script asks
            for (the explorer's pictures) is not counted.
        first_screens: page → with what has to be there before it is shown: style sheets, scripts that are not deferred,
            pictures that are not lazy.
    """

    book: int
    pages: dict[str, int]
    first_screens: dict[str, int]

    def lines(self) -> list[str]:
        """Return one line that sums up, and one for each size that is above what is meant to be enough."""
        page, first = (max(each, key=each.__getitem__) for each in (self.pages, self.first_screens))
        largest = (
            ("the book", self.book, BOOK),
            (f"the page {page}", self.pages[page], PAGE),
            (f"the first screen of {first}", self.first_screens[first], FIRST_SCREEN),
        )
        said = ", ".join(f"{what} {size / 1e6:.1f} MB" for what, size, _ in largest)
        above = [
            f"warning: {what} takes {size / 1e6:.1f} MB; the aim is at most {aim / 1e6:.0f} MB"
            for what, size, aim in largest
            if size > aim
        ]
        return [f"sizes, the largest: {said}", *above]


def sizes(folder: Path) -> Sizes:
    """Measure a built book."""
    folder = folder.resolve()
    files = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    pages, first_screens = {}, {}
    for path, size in files.items():
        if path.suffix != ".html" or path.parent.name == "_static":  # templates of the theme, not pages
            continue
        loaded: dict[Path, bool] = {}
        for found in LOADS.finditer(path.read_text(encoding="utf-8")):
            tag, target = found[0], (path.parent / unquote(urlsplit(found["address"]).path)).resolve()
            if found["element"] == "link" and 'rel="stylesheet"' not in tag:
                continue
            later = 'loading="lazy"' in tag or (found["element"] == "script" and " defer" in tag)
            loaded[target] = loaded.get(target, True) and later
        name = path.relative_to(folder).as_posix()
        pages[name] = size + sum(files.get(target, 0) for target in loaded)
        first_screens[name] = size + sum(files.get(t, 0) for t, later in loaded.items() if not later)
    return Sizes(sum(files.values()), pages, first_screens)
