"""What the head of each page tells search engines, previews of links and reference managers; a Sphinx extension.

Open Graph, https://ogp.me; the ``citation_`` names are those of Google Scholar and Zotero. The canonical address is
Sphinx's own (``html_baseurl``), and no address is written where none is known.
"""

import html
import re
from typing import Any

from docutils import nodes

from xaicore.book.pages.citation import Book
from xaicore.book.pages.preview import FILE, PIXELS

MOST = 200
"""Characters of a description, about as many as a preview shows."""


def description(doctree: nodes.document | None) -> str:
    """Return the beginning of a page's first paragraph, cut between words; empty where it has none."""
    for paragraph in [] if doctree is None else doctree.findall(nodes.paragraph):
        aside = isinstance(paragraph.parent, nodes.Admonition | nodes.list_item | nodes.entry)
        text = re.sub(r"\s+", " ", paragraph.astext()).strip()
        if text and not aside:
            return text if len(text) <= MOST else text[:MOST].rsplit(" ", 1)[0].rstrip(",;:") + " …"
    return ""


def tags(
    book: Book,
    title: str,
    about: str,
    *,
    address: str = "",
    front: bool = False,
    picture: tuple[str, str] = ("", ""),
) -> str:
    """Return the elements for the head of a page.

    Args:
        book: what ``CITATION.cff`` says.
        title: of the page, as text.
        about: its description.
        address: of the published page, where one is known.
        front: whether it is the first page, which is cited as the book itself.
        picture: address of the picture that a link is shown with, where one is known, and what it shows.
    """
    short = book.title.split(":")[0]
    named = {"description": about, "citation_title": book.title if front else title}
    named |= {} if front else {"citation_inbook_title": book.title}
    named |= {"citation_publication_date": book.year, "citation_doi": book.doi, "citation_language": "en"}
    named |= {"citation_fulltext_html_url": address}
    shown = {"og:type": "website" if front else "article", "og:site_name": short, "og:title": title}
    shown |= {"og:description": about, "og:url": address}
    if picture[0]:
        width, height = map(str, PIXELS)
        shown |= {"og:image": picture[0], "og:image:alt": picture[1]}
        shown |= {"og:image:type": "image/png", "og:image:width": width, "og:image:height": height}
    lines = [_meta("name", name, content) for name, content in named.items() if content]
    lines += [_meta("name", "citation_author", name) for name in book.names]
    lines += [_meta("property", name, content) for name, content in shown.items() if content]
    return "\n".join(lines)


def _meta(kind: str, name: str, content: str) -> str:
    return f'<meta {kind}="{name}" content="{html.escape(content)}" />'


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx; ``book_citation`` is what :func:`xaicore.book.pages.citation.load_book` reads,
    ``book_picture`` what :data:`xaicore.book.pages.preview.FILE` shows.
    """

    def describe(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
        if doctree is None or app.config.book_citation is None:
            return
        title = html.unescape(re.sub("<[^>]+>", "", context.get("title", "")))
        address, base = context.get("pageurl") or "", app.config.html_baseurl
        own = tags(
            Book(**app.config.book_citation),
            title,
            description(doctree),
            address=address,
            front=page == app.config.root_doc,
            picture=(f"{base}{FILE}" if base else "", app.config.book_picture),
        )
        context["metatags"] = f"{context.get('metatags', '')}\n{own}\n"

    app.add_config_value("book_citation", None, "html")
    app.add_config_value("book_picture", "", "html")
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
