"""The gate between a built book and its readers: nothing passes that a reader could not trust or open.

Sphinx reports its own warnings as errors; these checks see what Sphinx cannot: an executed notebook that shows an
error, a page that needs the network, a link that leads nowhere, a path of the machine that built it.
Each check returns a list of one-line findings, empty when all is well.
"""

import html.parser
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

from xaicore.book.running.run_folder import NOTEBOOK

REMOTE = re.compile(r"^(?:https?:)?//", re.IGNORECASE)
CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")
CHOICE = r"(?:image|attack|size|kind|explanation|explained)=[^&=]+"
CHOICES = re.compile(f"{CHOICE}(?:&{CHOICE})*")
"""The part of an address that opens the explorer at a case."""

ASSET_ATTRIBUTES = {
    "img": ("src", "srcset"),
    "script": ("src",),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
}
LINK_RELATIONS_LOADED = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "manifest",
}

DOWNLOADS = (".csv", ".json", ".ipynb")
"""Text that readers take away."""


def notebook_findings(path: Path, optional_figures: Collection[str] = ()) -> list[str]:
    """Check an executed notebook: every code cell ran, none shows an error or wrote to stderr, figures are there.

    Args:
        path: the notebook; one called ``notebook.ipynb`` is named after its folder.
        optional_figures: names of figures that may be missing.
    """
    findings = []
    page = path.parent.name if path.name == NOTEBOOK else path.name
    for position, cell in enumerate(nbformat.read(path, as_version=4).cells, start=1):
        if cell.cell_type != "code":
            continue
        where = f"{page}, cell {position}"
        if cell.execution_count is None and cell.source.strip():
            findings.append(f"{where}: was not executed")
        for output in cell.outputs:
            if output.output_type == "error":
                findings.append(
                    f"{where}: shows {output.ename}: {output.evalue.splitlines()[0] if output.evalue else ''}"
                )
            elif output.output_type == "stream" and output.name == "stderr":
                findings.append(f"{where}: wrote to stderr: {output.text.strip().splitlines()[0][:120]}")
            elif "image/png" in output.get("data", {}) and not cell.metadata.get("mystnb", {}).get(
                "image", {}
            ).get("alt"):
                findings.append(f"{where}: shows a figure without an alternative text")
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure is not None:
            name = figure.get("name", "without a name")
            pictures = sum(
                any(kind.startswith("image/") for kind in output.get("data", {})) for output in cell.outputs
            )
            if pictures > 1 or (not pictures and name not in optional_figures):
                findings.append(
                    f"{where}: the figure {name} has {pictures or 'no'} picture{'s' * (pictures > 1)}"
                )
    return findings


class _Page(html.parser.HTMLParser):
    """Collects what a page loads, where it links to and the anchors it offers."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.assets: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.unlabelled_images: list[str] = []
        self.takes_choices = False
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.takes_choices = self.takes_choices or "data-explorer" in values
        self.anchors.update(values[key] for key in ("id", "name") if values.get(key))
        for attribute in ASSET_ATTRIBUTES.get(tag, ()):
            if values.get(attribute):
                parts = [part.split()[0] for part in values[attribute].split(",") if part.strip()]
                self.assets.extend(parts if attribute == "srcset" else [values[attribute]])
        if tag == "link" and LINK_RELATIONS_LOADED & set(values.get("rel", "").lower().split()):
            self.assets.append(values.get("href", ""))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "img" and not values.get("alt"):
            self.unlabelled_images.append(values.get("src", "")[:80])
        if "style" in values:
            self.assets.extend(_css_urls(values["style"]))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.assets.extend(_css_urls(data))


def _css_urls(text: str) -> Iterable[str]:
    return [first or second for first, second in CSS_URL.findall(text)]


def html_findings(folder: Path, forbidden: Iterable[str] = ()) -> list[str]:
    """Check built pages: no remote asset, every internal link and anchor resolves, no path of this machine.

    Args:
        folder: the built HTML.
        forbidden: strings that no page and no file for download may contain, such as the folder of the project or the
            home folder.
    """
    forbidden = [text for text in forbidden if len(text) > 5]
    pages: dict[Path, _Page] = {}
    findings: list[str] = []
    for path in sorted(folder.rglob("*.html")):
        if path.parent.name == "_static":  # templates of the theme, not pages
            continue
        text = path.read_text(encoding="utf-8")
        page = _Page()
        page.feed(text)
        pages[path.resolve()] = page
        findings.extend(
            f"{path.relative_to(folder)}: shows a path of this machine ({word})"
            for word in forbidden
            if word in text
        )
    findings.extend(
        f"{path.relative_to(folder)}: has a path of this machine ({word})"
        for path in sorted(folder.rglob("*"))
        if path.suffix in DOWNLOADS
        for text in [path.read_text(encoding="utf-8")]
        for word in forbidden
        if word in text
    )
    for path, page in pages.items():
        name = path.relative_to(folder.resolve())
        findings.extend(
            f"{name}: image without an alternative text: {image}" for image in page.unlabelled_images
        )
        findings.extend(
            f"{name}: loads {asset} from the network" for asset in page.assets if REMOTE.match(asset)
        )
        local = [asset for asset in page.assets if not REMOTE.match(asset) and not asset.startswith("data:")]
        for reference in {*page.links, *local}:
            problem = _unresolved(reference, path, pages)
            if problem:
                findings.append(f"{name}: {problem}: {reference}")
    for path in sorted(folder.rglob("*.css")):
        findings.extend(
            f"{path.relative_to(folder)}: loads {url} from the network"
            for url in _css_urls(path.read_text(encoding="utf-8", errors="replace"))
            if REMOTE.match(url)
        )
    return findings


def _unresolved(reference: str, page: Path, pages: dict[Path, _Page]) -> str | None:
    parts = urlsplit(reference)
    if parts.scheme or parts.netloc:
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.exists():
        return "dead link"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        if pages[target].takes_choices and CHOICES.fullmatch(parts.fragment):
            return None  # whether there is such a case is for the page itself to say
        return "dead anchor"
    return None
