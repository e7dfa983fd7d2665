"""What a page's head says to machines, and the mathematics of the EPUB."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from docutils.utils.math import MathError

from xaicore.book.pages.citation import Book
from xaicore.book.pages.mathml import mathml
from xaicore.book.pages.page_head import MOST, description, tags

ROOT = Path(__file__).resolve().parent.parent
BOOK = Book("Attacks & more: a book", ({"name": 'The "authors"'}, {"name": "B"}), year="2026")


class _Metas(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.found.setdefault(given.get("name") or given["property"] or "", []).append(given["content"] or "")


def test_a_chapter_is_cited_as_a_part_of_the_book() -> None:
    found = _Metas(tags(BOOK, "Heat <& Blur>", "A defence.", address="https://x.org/p4.html")).found
    assert found["citation_title"] == ["Heat <& Blur>"]
    assert found["citation_inbook_title"] == [BOOK.title]
    assert found["citation_author"] == ['The "authors"', "B"]
    assert found["citation_publication_date"] == ["2026"]
    assert "citation_doi" not in found
    assert found["og:type"] == ["article"]
    assert found["og:site_name"] == ["Attacks & more"]
    assert found["og:url"] == found["citation_fulltext_html_url"] == ["https://x.org/p4.html"]


def test_the_front_page_is_the_book_and_no_address_is_made_up() -> None:
    found = _Metas(tags(BOOK, "Front", "About.", front=True)).found
    assert found["citation_title"] == [BOOK.title]
    assert "citation_inbook_title" not in found
    assert found["og:type"] == ["website"]
    assert not {"og:url", "citation_fulltext_html_url"} & set(found)


def test_a_description_is_the_first_paragraph_that_is_no_aside() -> None:
    long = "word " * 100
    page = publish_doctree(
        f"Title\n=====\n\n.. tip:: not this\n\n- nor\n- this\n\n{long}\n\nNot this either.\n"
    )
    found = description(page)
    assert found.startswith("word word")
    assert found.endswith("word …")
    assert len(found) <= MOST + 2
    assert description(publish_doctree("Short,\nand `plain`.")) == "Short, and plain."
    assert description(None) == description(nodes.document(None, None)) == ""  # type: ignore[arg-type]


def test_every_formula_of_the_book_becomes_mathml() -> None:
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    texts = [path.read_text(encoding="utf-8").replace("\\\\", "\\") for path in pages]
    formulas = {
        found for text in texts for found in re.findall(r"(?<![\\$\w`])\$([^$\n`]+?)\$(?![\w$])", text)
    }
    formulas |= {r"^\pm", r"k \dots", r"\max \{k : \textstyle\sum_{j \le k} p_j\}"}
    assert len(formulas) > 20
    for formula in sorted(formulas):
        root = ElementTree.fromstring(mathml(formula, block=False))
        assert root.tag.endswith("math"), formula
        assert "".join(root.itertext()).strip(), formula


def test_a_formula_that_is_none_is_refused() -> None:
    with pytest.raises(MathError):
        mathml(r"\nosuchcommand{a}", block=True)
