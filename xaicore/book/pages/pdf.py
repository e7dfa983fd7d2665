"""One PDF of the built book: its pages one after the other in one document, which a headless Chromium prints."""

import html
import shutil
import subprocess
import tempfile
from pathlib import Path

from xaicore.book.pages.citation import Book
from xaicore.book.pages.printed import FRONT, NOTE, Printed, address
from xaicore.core.errors import UserError

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
