"""What a page's head says to machines, and its mathematics."""

import io
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
import yaml
from docutils import nodes
from docutils.core import publish_doctree
from docutils.utils.math import MathError
from PIL import Image
from sphinx.application import Sphinx

from xaicore.book.claims.ledger import VERDICTS
from xaicore.book.pages.citation import Book
from xaicore.book.pages.committed import Committed
from xaicore.book.pages.mathml import mathml
from xaicore.book.pages.page_head import MOST, description, tags
from xaicore.book.pages.preview import FILE, alternative, preview

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
    assert not {"og:url", "og:image", "og:image:alt", "citation_fulltext_html_url"} & set(found)


def test_a_link_is_shown_with_the_picture_of_the_verdicts() -> None:
    found = _Metas(tags(BOOK, "Front", "About.", picture=("https://x.org/preview.png", 'Bars & "all"'))).found
    assert found["og:image"] == ["https://x.org/preview.png"]
    assert found["og:image:alt"] == ['Bars & "all"']
    committed = Committed.load(ROOT)
    drawn = preview(BOOK, committed.papers, committed.judgements)
    assert drawn == preview(BOOK, committed.papers, committed.judgements)
    assert drawn != preview(BOOK, committed.papers, committed.judgements[:-1])
    assert len(drawn) < 200_000
    with Image.open(io.BytesIO(drawn)) as picture:
        size = found["og:image:width"] + found["og:image:height"]
        assert list(map(str, picture.size)) == size
    verdicts = yaml.safe_load((ROOT / VERDICTS).read_text(encoding="utf-8"))
    count = Counter(verdicts.values())["reproduced"]
    assert f" {count} reproduced" in alternative(committed.papers, committed.judgements)


@pytest.mark.parametrize("base", ["", "https://x.org/book/"])
def test_the_picture_has_an_address_where_the_book_has_one(tmp_path: Path, base: str) -> None:
    settings = {"html_baseurl": base, "book_citation": asdict(BOOK), "book_picture": "Bars"}
    settings |= {"extensions": ["xaicore.book.pages.page_head"], "html_theme": "basic"}
    (tmp_path / "index.rst").write_text("Title\n=====\n\nText.\n")
    app = Sphinx(
        tmp_path, None, tmp_path / "out", tmp_path / "trees", "html", settings, status=None, warning=None
    )
    app.build()
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert ('property="og:image"' in page) is bool(base)
    assert (f'content="{base}{FILE}"' in page) is bool(base)


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


def _sources() -> Iterator[str]:
    for path in (ROOT / "book").glob("*.md"):
        yield path.read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        yield from (cell.source for cell in cells if cell.cell_type == "markdown")


def test_every_formula_of_the_book_becomes_mathml() -> None:
    texts = list(_sources())
    inline = {found for text in texts for found in re.findall(r"(?<![\\$\w`])\$([^$\n`]+?)\$(?![\w$])", text)}
    blocks = {found for text in texts for found in re.findall(r"\$\$([^$`]+?)\$\$", text)}
    inline |= {r"^\pm", r"k \dots", r"\max \{k : \textstyle\sum_{j \le k} p_j\}"}
    blocks |= {"\\begin{split}\\begin{aligned}a &= b \\\\ &= \\Big(c\\Big)\\end{aligned}\\end{split}"}
    assert len(inline) > 20
    assert len(blocks) > 10
    for formula, block in [
        *((each, False) for each in sorted(inline)),
        *((each, True) for each in sorted(blocks)),
    ]:
        root = ElementTree.fromstring(mathml(formula, block=block))
        assert root.tag.endswith("math"), formula
        assert (root.get("display") == "block") is block
        assert "".join(root.itertext()).strip(), formula


def test_scripts_are_set_on_all_that_their_bracket_closes() -> None:
    def bases(formula: str) -> list[str]:
        """What each element with scripts sets them on."""
        root = ElementTree.fromstring(mathml(formula, block=True))
        tags = ("msub", "msup", "msubsup")
        return [
            re.sub(r"\s", "", "".join(e[0].itertext())) for e in root.iter() if e.tag.rsplit("}")[-1] in tags
        ]

    assert bases(r"a + \Big(b - \big(c + d_1\big)^2\Big)^2 + (e)") == [
        "(b−(c+d1)2)",
        "(c+d1)",
        "d",
    ]
    assert bases(r"(a) + \lVert x - y\rVert_2^2 + |z|") == ["‖x−y‖"]
    assert bases(r"|a|^2 - |b|^2 + (c)_3") == ["|a|", "|b|", "(c)"]
    assert bases(r"a)^2") == [")"]  # closes nothing


def test_a_barred_letter_keeps_its_index_and_a_sum_its_limits() -> None:
    barred = mathml(r"\overline{\mathrm{AB}}_i + \bar x_j", block=True)
    assert "munder" not in barred
    assert barred.count("<msub>") == barred.count("<mover>") == 2
    assert barred.count('class="overlined">AB<') == barred.count("overlined") == 1, (
        "over one letter any bar is wide enough"
    )
    assert mathml(r"\sum_{i=1}^n a_i", block=True).count("<munderover>") == 1


def test_functions_stand_apart_bars_close_up_and_a_prime_is_one() -> None:
    def spaces(formula: str) -> int:
        return mathml(formula, block=False).count("<mspace")

    assert spaces(r"p_k \log_2 p_k") == spaces(r"p \operatorname{sign} x") == 2
    assert spaces(r"\operatorname{clip}_{[0,1]}(x)") == spaces(r"\mathrm{MOD} x") == spaces("ab") == 0
    assert spaces(r"-\log p") == 1
    drawn = mathml(r"|x'|", block=False)
    assert re.findall(r'<mo lspace="0" rspace="0"[^>]*>(.)</mo>', drawn) == ["|", "′", "|"]


def test_a_formula_that_is_none_is_refused() -> None:
    with pytest.raises(MathError):
        mathml(r"\nosuchcommand{a}", block=True)


def test_sphinx_writes_mathml_and_no_script(tmp_path: Path) -> None:
    source, built = tmp_path / "source", tmp_path / "built"
    source.mkdir()
    (source / "conf.py").write_text(
        "extensions = ['xaicore.book.pages.mathml']\nhtml_math_renderer = 'mathml'\n"
    )
    page = "Title\n=====\n\nWhere :math:`x < y_1`, see :eq:`here`.\n\n"
    page += ".. math::\n   :label: here\n\n   a &= b \\\\ c &= %s\n"
    build = [sys.executable, "-m", "sphinx", "-q", "-W", str(source), str(built)]
    (source / "index.rst").write_text(page % r"\sqrt{d}")
    subprocess.run(build, check=True, capture_output=True)
    article = (built / "index.html").read_text(encoding="utf-8")
    inline, block = re.findall(r'class="math [^>]*>.*?(<math.*?</math>)', article, re.DOTALL)
    for formula in (inline, block):
        assert "\\" not in "".join(ElementTree.fromstring(formula).itertext())
    assert "<msqrt>" in block
    assert 'display="block"' in block
    assert '<span class="eqno">(1)' in article
    assert "mathjax" not in article.lower()
    (source / "index.rst").write_text(page % r"\nosuchcommand")
    answer = subprocess.run(build, check=False, capture_output=True, text=True)
    assert answer.returncode
    assert "nosuchcommand" in answer.stderr
