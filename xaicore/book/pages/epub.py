"""One EPUB of the built book, https://www.w3.org/TR/epub-33/: a file of XHTML for each page, mathematics as MathML.

Pictures are PNG and JPEG, which every reader of books shows.
"""

import html
import io
import re
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from PIL import Image

from xaicore.book.pages.citation import Book
from xaicore.book.pages.printed import NOTE, Page, Printed

SUFFIX = ".xhtml"
MIMETYPE = "application/epub+zip"
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
STYLES = ("pygments.css", "ebook.css")
CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="book/content.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>
"""


def write_epub(printed: Printed, book: Book, built: Path, style: Path, target: Path) -> None:
    """Write the EPUB.

    Args:
        printed: the pages, read with the suffix :data:`SUFFIX`.
        book: what ``CITATION.cff`` says.
        built: folder of the built HTML, where the pictures are.
        style: the style sheet for readers of books.
        target: the file to write.
    """
    pictures: dict[str, str] = {}
    files: dict[str, str | bytes] = {}
    for page in printed.pages:
        for image in page.article.select("img[src]"):
            image["src"] = pictures.setdefault(str(image["src"]), _picture_name(str(image["src"])))
            # Of its pixels; with a width in the style it would be stretched.
            del image["width"], image["height"]
        for entry in page.article.select('[role="doc-biblioentry"]'):
            del entry["role"]  # which EPUB 3.3 has no more
        files[f"{page.key}{SUFFIX}"] = _xhtml(page.title, str(page.article))
    files |= {name: _picture(built / source) for source, name in pictures.items()}
    files |= {
        "title.xhtml": _title_page(printed, book),
        "nav.xhtml": _xhtml("Contents", f'<nav epub:type="toc"><h1>Contents</h1>{_contents(printed)}</nav>'),
        STYLES[0]: (built / "_static" / STYLES[0]).read_text(encoding="utf-8"),
        STYLES[1]: style.read_text(encoding="utf-8"),
    }
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", MIMETYPE, zipfile.ZIP_STORED)
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("book/content.opf", _package(files, printed.pages, book))
        for name, content in files.items():
            archive.writestr(f"book/{name}", content)


def _picture_name(source: str) -> str:
    return "pictures/" + re.sub(r"[^\w.-]", "-", source).replace(".webp", ".png")


def _picture(path: Path) -> bytes:
    if path.suffix != ".webp":
        return path.read_bytes()
    content = io.BytesIO()
    with Image.open(path) as image:
        image.save(content, "PNG")
    return content.getvalue()


def _xhtml(title: str, body: str) -> str:
    styles = "".join(f'<link rel="stylesheet" type="text/css" href="{name}"/>' for name in STYLES)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html>\n'
        '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en">\n'
        f"<head><title>{html.escape(title)}</title>{styles}</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _title_page(printed: Printed, book: Book) -> str:
    authors = html.escape(", ".join(book.names))
    lines = (
        f"<h1>{html.escape(book.title)}</h1>",
        f"<p>{authors}</p><p>{printed.made_from}</p><p>{NOTE}</p>",
    )
    return _xhtml(book.title, "\n".join(lines))


def _contents(printed: Printed) -> str:
    parts = []
    for caption, pages in printed.parts:
        entries = "".join(
            f'<li><a href="{page.key}{SUFFIX}">{html.escape(page.title)}</a>{_sections(page)}</li>'
            for page in pages
        )
        parts.append(
            f"<li><span>{html.escape(caption)}</span><ol>{entries}</ol></li>" if caption else entries
        )
    return f"<ol>{''.join(parts)}</ol>"


def _sections(page: Page) -> str:
    """Return the list of a page's sections, empty where it has none."""
    headings = page.article.select("section[id] > h2")
    entries = "".join(
        f'<li><a href="{page.key}{SUFFIX}#{heading.parent["id"]}">{html.escape(heading.get_text().strip())}</a></li>'
        for heading in headings
        if heading.parent is not None
    )
    return f"<ol>{entries}</ol>" if entries else ""


def _package(files: dict[str, str | bytes], pages: Sequence[Page], book: Book) -> str:
    items = []
    for number, (name, content) in enumerate(files.items()):
        suffix = Path(name).suffix
        kind = TYPES.get(suffix, "text/css" if suffix == ".css" else "application/xhtml+xml")
        properties = "nav" if name == "nav.xhtml" else ""
        if isinstance(content, str) and "<math" in content:
            properties = "mathml"
        given = f' properties="{properties}"' if properties else ""
        items.append(f'<item id="f{number}" href="{name}" media-type="{kind}"{given}/>')
    numbers = {name: number for number, name in enumerate(files)}
    order = ["title.xhtml", "nav.xhtml", *(f"{page.key}{SUFFIX}" for page in pages)]
    spine = "".join(f'<itemref idref="f{numbers[name]}"/>' for name in order)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    identifier = (
        f"doi:{book.doi}" if book.doi else f"urn:uuid:{uuid5(NAMESPACE_URL, book.title + book.version)}"
    )
    creators = "".join(f"<dc:creator>{html.escape(name)}</dc:creator>" for name in book.names)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en">\n'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f'<dc:identifier id="id">{html.escape(identifier)}</dc:identifier>'
        f"<dc:title>{html.escape(book.title)}</dc:title><dc:language>en</dc:language>{creators}"
        f'<meta property="dcterms:modified">{now}</meta></metadata>\n'
        f"<manifest>{''.join(items)}</manifest>\n"
        f"<spine>{spine}</spine>\n</package>\n"
    )
