"""``xaibook epub`` and ``xaibook pdf``: the book that was built last as one file, offered on its front page.

The PDF has the pages one after the other in one document, which a headless Chromium prints. The files lie in the built
book and go with it: the next build begins without them, and so does its front page.
"""

import html
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from xaicore.book.compact import machine_paths
from xaicore.book.pages.citation import Book, load_book
from xaicore.book.pages.epub import SUFFIX, write_epub
from xaicore.book.pages.printed import FRONT, NOTE, Printed, address, contents, printed
from xaicore.core.errors import UserError
from xaicore.core.files import one_line

FILES = {"PDF": "attacks-explained.pdf", "EPUB": "attacks-explained.epub"}
OFFER = re.compile(r'<p class="downloads">.*?</p>')
"""Where the front page offers them; empty where there is none."""
ABSENT = "no Chromium is here; install one, as chromium or google-chrome on the PATH"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",  # the pages are ours, and as root or in a container there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--no-pdf-header-footer",
    "--generate-pdf-document-outline",
    "--virtual-time-budget=600000",
)
PATIENCE = 900
"""Seconds for printing, many times what it takes."""


@one_line("the EPUB")
def epub(root: Path, built: Path | None = None) -> Path:
    """Make one EPUB of the built book and return its path.

    Args:
        root: the project's folder.
        built: folder of the built HTML; None: ``_build/html``.

    Raises:
        UserError: no book has been built.
    """
    built = _built(root, built)
    pages = printed(built, contents(root / "book" / "_toc.yml"), suffix=SUFFIX)
    new = built / f".{FILES['EPUB']}"
    write_epub(pages, load_book(root), built, root / "book" / "ebook.css", new)
    return _offer(new, built)


@one_line("the PDF")
def pdf(root: Path, built: Path | None = None) -> Path:
    """Make one PDF of the built book and return its path.

    Args:
        root: the project's folder.
        built: folder of the built HTML; None: ``_build/html``.

    Raises:
        UserError: no book has been built, no Chromium is here, it did not print, or a path of this machine is shown.
    """
    built = _built(root, built)
    command = chromium()
    if command is None:
        raise UserError(ABSENT)
    document, new = built / ".one-document.html", built / f".{FILES['PDF']}"
    text = one_document(printed(built, contents(root / "book" / "_toc.yml")), load_book(root))
    try:
        document.write_text(text, encoding="utf-8")
        print_pdf(command, document, new)
        links = new.read_bytes().decode("latin-1")
        if shown := [path for path in machine_paths(root) if len(path) > 5 and path in text + links]:
            raise UserError(f"the PDF would show a path of this machine ({shown[0]})")
    except UserError:
        new.unlink(missing_ok=True)
        raise
    finally:
        document.unlink(missing_ok=True)
    return _offer(new, built)


def _built(root: Path, built: Path | None) -> Path:
    built = built or root / "_build" / "html"
    if not (built / f"{FRONT}.html").is_file():
        raise UserError("there is no book to make it of; run: xaibook build")
    return built


def _offer(new: Path, built: Path) -> Path:
    """Give a file its name in the built book, have the front page offer what is there, and return its path."""
    made = new.replace(built / new.name.removeprefix("."))
    there = {kind: built / name for kind, name in FILES.items() if (built / name).is_file()}
    links = ", ".join(
        f'<a href="../{path.name}">{kind} ({path.stat().st_size / 1e6:.0f} MB)</a>'
        for kind, path in there.items()
    )
    front = built / f"{FRONT}.html"
    said = f'<p class="downloads">The whole book as one file: {links}.</p>'
    text, found = OFFER.subn(said, front.read_text(encoding="utf-8"))
    if found != 1:
        raise ValueError(f"{FRONT} has {found} places for downloads")
    front.write_text(text, encoding="utf-8")
    return made


def chromium() -> str | None:
    """Return the command of an installed Chromium, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def one_document(printed: Printed, book: Book) -> str:
    """Return the pages as one HTML document, to be laid beside the built book's ``index.html``.

    Args:
        printed: the pages, see :func:`xaicore.book.pages.printed.printed`.
        book: what ``CITATION.cff`` says.
    """
    styles = printed.head.select('link[rel="stylesheet"]')
    for style in styles:
        style["href"] = address(str(style["href"]).split("?")[0], FRONT)
    named = "\n".join(
        f"@page {page.key} {{ @top-left {{ content: {_css(page.title)} }} }} #{page.key} {{ page: {page.key} }}"
        for page in printed.pages
    )
    authors = html.escape(", ".join(book.names))
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">',
        f"<title>{html.escape(book.title)}</title>",
        *map(str, styles),
        f'<style>{named}</style></head><body class="paper">',
        f'<header class="paper-title"><h1>{html.escape(book.title)}</h1><p>{authors}</p>',
        f"<p>{printed.made_from}</p><p>{html.escape(NOTE)}</p></header>",
        f'<nav class="paper-contents"><h2>Contents</h2>{_contents(printed)}</nav>',
        *(str(page.article) for page in printed.pages),
        "</body></html>",
    ]
    return "\n".join(lines)


def print_pdf(command: str, document: Path, target: Path) -> None:
    """Print an HTML document.

    Args:
        command: Chromium's, see :func:`chromium`.
        document: the HTML file, made by :func:`one_document`.
        target: the PDF to write.

    Raises:
        UserError: Chromium did not print.
    """
    with tempfile.TemporaryDirectory() as profile:
        places = (f"--user-data-dir={profile}", f"--print-to-pdf={target}", document.resolve().as_uri())
        try:
            answer = subprocess.run(
                [command, *FLAGS, *places],
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"Chromium did not print the book within {PATIENCE // 60} minutes") from error
    if answer.returncode or not target.is_file():
        said = answer.stderr.strip().splitlines() or ["it did not say why"]
        raise UserError(f"Chromium did not print the book: {said[-1]}")


def _css(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _contents(printed: Printed) -> str:
    lines = []
    for caption, pages in printed.parts:
        entries = "".join(f'<li><a href="#{page.key}">{html.escape(page.title)}</a></li>' for page in pages)
        lines.append(f"<p>{html.escape(caption)}</p><ul>{entries}</ul>")
    return "\n".join(lines)
