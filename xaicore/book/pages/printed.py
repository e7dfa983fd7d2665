"""The pages of the built book for one file of all of them: the PDF and the EPUB.

They have no tabs and open no fold: of an edition's tabs the one in front is kept, and what a page folds, its set-up and
its downloads are left out; :data:`NOTE` says so to the reader. Links within the book lead to their place in the file;
others stay only where they lead to the web, so that no path of this machine is left.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import join, normpath
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

FRONT = "book/index"
ON_SCREEN_ONLY = ("book/api", "notebooks/explorer")
"""Pages that are no use on paper: what a function takes is looked up, and the explorer is turned by its reader."""
LEFT_OUT = (
    "script",
    "svg",
    "a.headerlink",
    "p.downloads",
    "details:not([open])",
    "#set-up-of-this-page",
    "#take-it-home",
)
"""What is left out of a page, as selectors of CSS."""
ARTICLE = re.compile(r'<article class="bd-article".*</article>', re.DOTALL)
"""What a page says; to read the lists of contents around it would take as long again."""
SCREEN_ATTRIBUTES = (
    "loading",
    "fetchpriority",
    "for",
    "aria-controls",
    "aria-labelledby",
    "aria-describedby",
)
NOTE = (
    "Made from the web pages of the book. Of results that the pages show for several editions, those in front are here; "
    "code and tables that the pages fold away, the downloads, the explorer and the reference of the package are on the "
    "web pages only."
)


@dataclass(frozen=True)
class Page:
    """A page of the book: its key, which names it in the file, its title, and what it says."""

    key: str
    title: str
    article: Tag


@dataclass(frozen=True)
class Printed:
    """The book for one file.

    Attributes:
        parts: caption and pages, the front page first under no caption.
        head: the front page as it is built, with what its head loads.
        made_from: version and commit, as at the foot of each page, in HTML.
    """

    parts: list[tuple[str, list[Page]]]
    head: BeautifulSoup
    made_from: str

    @property
    def pages(self) -> list[Page]:
        """All pages in the order of the contents."""
        return [page for _, inside in self.parts for page in inside]


def contents(toc: Path) -> list[tuple[str, list[str]]]:
    """Return the caption of each part and its pages, the front page first under no caption.

    Args:
        toc: ``_toc.yml``.
    """
    listed = yaml.safe_load(toc.read_text(encoding="utf-8"))
    parts = [(part["caption"], [page["file"] for page in part["chapters"]]) for part in listed["parts"]]
    kept = [(caption, [page for page in pages if page not in ON_SCREEN_ONLY]) for caption, pages in parts]
    return [("", [listed["root"]]), *kept]


def printed(built: Path, parts: Sequence[tuple[str, Sequence[str]]], *, suffix: str = "") -> Printed:
    """Read the pages of a built book.

    Args:
        built: folder of the built HTML. Pictures are named from there.
        parts: caption and pages, see :func:`contents`.
        suffix: of the files that the pages become, such as ``.xhtml``; empty where they become one document.
    """
    names = [name for _, inside in parts for name in inside]
    texts = {name: (built / f"{name}.html").read_text(encoding="utf-8") for name in names}
    pages = {name: _page(text, name, set(names), suffix) for name, text in texts.items()}
    _mend_links(list(pages.values()), suffix)
    head = BeautifulSoup(texts[names[0]], "html.parser")
    made_from = next((p.decode_contents() for p in head.select("footer p") if "Version" in p.text), "")
    return Printed(
        [(caption, [pages[name] for name in inside]) for caption, inside in parts], head, made_from
    )


def address(reference: str, page: str) -> str:
    """Return what a page refers to, seen from the root of the built book."""
    return normpath(join(page, "..", unquote(reference)))


def _key(name: str) -> str:
    return re.sub(r"\W", "-", name)


def _page(text: str, name: str, names: set[str], suffix: str) -> Page:
    said = ARTICLE.search(text)
    article = BeautifulSoup(said[0], "html.parser").article if said else None
    if article is None:
        raise ValueError(f"{name} has no article")
    for found in article.select(", ".join(LEFT_OUT)):
        found.decompose()
    for tabs in article.select(".sd-tab-set"):
        _front_tab(tabs)
    for fold in article.select("details"):
        fold.name = "div"
        del fold["open"]
        for summary in fold.find_all("summary", recursive=False):
            summary.name, summary["class"] = "p", "fold-title"
    for found in article.find_all(True):
        _rename(found, name, names, suffix)
    article["id"] = _key(name)
    heading = article.find("h1")
    return Page(_key(name), "" if heading is None else heading.get_text().strip(), article)


def _front_tab(tabs: Tag) -> None:
    """Leave of the tabs of editions the one in front, of others all, one below the other."""
    tabs["class"] = "tabs-printed"
    for choice in tabs.find_all("input", recursive=False):
        label, content = choice.find_next_sibling("label"), choice.find_next_sibling("div")
        hidden = bool(label and label.get("data-sync-group") == "edition") and not choice.has_attr("checked")
        for part in (label, content):
            if part is not None and hidden:
                part.decompose()
            elif part is not None:
                part.attrs.clear()
                part["class"] = "tab-title" if part is label else "tab-content"
                part.name = "div"
        choice.decompose()


def _rename(tag: Tag, page: str, names: set[str], suffix: str) -> None:
    for attribute in SCREEN_ATTRIBUTES:
        del tag[attribute]
    if tag.get("id"):
        tag["id"] = f"{_key(page)}--{tag['id']}"
    if tag.get("src") and not urlsplit(str(tag["src"])).scheme:
        tag["src"] = address(str(tag["src"]), page)
    if tag.name != "a" or not tag.get("href"):
        return
    parts = urlsplit(str(tag["href"]))
    if parts.scheme in ("http", "https", "mailto"):
        return
    target = address(parts.path, page).removesuffix(".html") if parts.path else page
    if target in names:
        place = f"{_key(target)}--{parts.fragment}" if parts.fragment else _key(target)
        tag["href"] = f"{_key(target)}{suffix}#{place}" if suffix else f"#{place}"
    else:
        del tag["href"]


def _mend_links(pages: Sequence[Page], suffix: str) -> None:
    """Give each name to one element, and lead links to what was left out to the page instead."""
    names: set[str] = set()
    for page in pages:
        for found in [page.article, *page.article.select("[id]")]:
            if found["id"] in names:
                del found["id"]
            else:
                names.add(str(found["id"]))
    for page in pages:
        for link in page.article.select("a[href]"):
            file, _, place = str(link["href"]).partition("#")
            if file in ("", *(f"{each.key}{suffix}" for each in pages)) and place not in names:
                link["href"] = f"{file}#{place.partition('--')[0]}"
