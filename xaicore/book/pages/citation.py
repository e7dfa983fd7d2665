"""How to cite the book or a page of it: a sentence and BibTeX, of what ``CITATION.cff`` says and nothing else."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = "CITATION.cff"
SPECIAL = re.compile(r"[&%$#_{}]")
"""What BibTeX would read as a command."""


@dataclass(frozen=True)
class Book:
    """What ``CITATION.cff`` says of the book; empty where it says nothing."""

    title: str
    authors: tuple[dict[str, str], ...]
    version: str = ""
    year: str = ""
    doi: str = ""
    url: str = ""

    @property
    def names(self) -> list[str]:
        """The authors, as a reader writes them."""
        return [author.get("name") or _person(author, "{given} {family}") for author in self.authors]


def load_book(root: Path) -> Book:
    """Read what a project says of itself.

    Args:
        root: the project's folder.
    """
    found: dict[str, Any] = yaml.safe_load((root / FILE).read_text(encoding="utf-8"))
    names = ("version", "doi", "url")
    return Book(
        found["title"],
        tuple(found["authors"]),
        year=str(found.get("date-released", ""))[:4],
        **{name: str(found.get(name, "")) for name in names},
    )


def sentence(book: Book, title: str) -> str:
    """Return the citation of a page as one sentence."""
    year = f" ({book.year})" if book.year else ""
    parts = [
        f"{', '.join(book.names)}{year}. “{title}”. In: {book.title}",
        f"version {book.version}" if book.version else "",
        f"doi:{book.doi}" if book.doi else book.url,
    ]
    return ", ".join(part for part in parts if part) + "."


def bibtex(book: Book, title: str, key: str) -> str:
    """Return the citation of a page as a BibTeX entry under ``attacks-explained-<key>``."""
    names = [
        f"{{{author['name']}}}" if "name" in author else _person(author, "{family}, {given}")
        for author in book.authors
    ]
    fields = {
        "author": " and ".join(names),
        "title": f"{{{_plain(title)}}}",
        "howpublished": f"In: {_plain(book.title)}" + (f", version {book.version}" if book.version else ""),
        "year": book.year,
        "doi": book.doi,
        "url": book.url,
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{attacks-explained-{key},", *lines, "}"])


def _person(author: dict[str, str], form: str) -> str:
    return form.format(given=author.get("given-names", ""), family=author.get("family-names", "")).strip(", ")


def _plain(text: str) -> str:
    return SPECIAL.sub(lambda found: "\\" + found[0], text)
