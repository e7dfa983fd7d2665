"""``xaibook epub`` and ``xaibook pdf``: the book that was built last as one file, offered on its front page.

The files lie in the built book and go with it: the next build begins without them, and so does its front page.
"""

import re
from pathlib import Path

from xaicore.book.compact import machine_paths
from xaicore.book.pages.citation import load_book
from xaicore.book.pages.epub import SUFFIX, write_epub
from xaicore.book.pages.pdf import ABSENT, chromium, one_document, print_pdf
from xaicore.book.pages.printed import FRONT, contents, printed
from xaicore.core.errors import UserError
from xaicore.core.files import one_line

FILES = {"PDF": "attacks-explained.pdf", "EPUB": "attacks-explained.epub"}
OFFER = re.compile(r'<p class="downloads">.*?</p>')
"""Where the front page offers them; empty where there is none."""


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
