"""The book as one PDF and one EPUB, of a small built book made here."""

import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from xaicore.book.gate import html_findings
from xaicore.book.pages import one_file
from xaicore.book.pages.printed import contents, printed
from xaicore.core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
HEAD = """<html><head><link rel="stylesheet" href="../_static/book.css?v=1"/>
<link rel="stylesheet" media="print" href="../_static/print.css"/>
<script>unwanted()</script></head><body>"""
FOOT = "<footer><p>By us.</p><p>Version 1.0, commit 0123456789.</p></footer></body></html>"
FRONT = """<article class="bd-article"><section id="book"><h1>A book<a class="headerlink" href="#book">#</a></h1>
<p class="downloads"></p><p role="doc-biblioentry">A book, 2020.</p>
<p>See <a href="../notebooks/one.html#deep">the depth</a>, <a href="../notebooks/one.html#folded">a fold</a>,
<a href="../data/record.json">a record</a>, <a href="api.html">the package</a>,
<a href="https://example.org/x">elsewhere</a> and <a href="#book">above</a>.</p></section></article>"""
CHAPTER = r"""<article class="bd-article"><section id="one"><h1><span>1. </span>Heat &amp; "Blur"</h1>
<p id="deep">Where <span class="math notranslate"><math xmlns="http://www.w3.org/1998/Math/MathML"><mi>x</mi></math></span>:</p>
<details class="chapter-claims" open><summary>Two claims</summary><p id="claims">Claimed &lt;so&gt;.</p></details>
<details><summary>Code</summary><p id="folded">hidden()</p></details>
<div class="sd-tab-set"><input id="t0" name="t" type="radio">
<label for="t0" data-sync-group="edition" class="sd-tab-label">Quick</label>
<div class="sd-tab-content"><p>behind</p></div>
<input checked="checked" id="t1" name="t" type="radio">
<label for="t1" data-sync-group="edition" class="sd-tab-label">Evidence</label>
<div class="sd-tab-content"><p>in front</p>
<img src="one/figure.webp" alt="A figure" loading="lazy" width="40" height="20" style="width: 80%"></div></div>
<div class="sd-tab-set"><input checked="checked" id="u0" name="u" type="radio"><label for="u0">Linux</label>
<div class="sd-tab-content"><p>first way</p></div><input id="u1" name="u" type="radio"><label for="u1">Windows</label>
<div class="sd-tab-content"><p>second way</p></div></div>
<section id="agrees"><h2>What agrees<a class="headerlink" href="#agrees">#</a></h2><p>All.</p></section>
<section id="take-it-home"><h2>Take it home</h2></section></section></article>"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A project with a book of two pages; the path of its built HTML."""
    (tmp_path / "book").mkdir()
    toc = "root: book/index\nparts:\n- caption: Papers & more\n  chapters:\n  - file: notebooks/one\n  - file: book/api\n"
    (tmp_path / "book" / "_toc.yml").write_text(toc)
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    shutil.copy(ROOT / "book" / "ebook.css", tmp_path / "book")
    html = tmp_path / "_build" / "html"
    for name, article in {
        "book/index": FRONT,
        "notebooks/one": CHAPTER,
        "book/api": "<article></article>",
    }.items():
        (html / name).parent.mkdir(parents=True, exist_ok=True)
        (html / f"{name}.html").write_text(HEAD + article + FOOT)
    (html / "notebooks" / "one").mkdir()
    Image.new("RGB", (40, 20), "red").save(html / "notebooks" / "one" / "figure.webp", lossless=True)
    (html / "_static").mkdir()
    shutil.copy(ROOT / "book" / "_static" / "print.css", html / "_static")
    for name in ("book.css", "pygments.css"):
        (html / "_static" / name).write_text("p { margin: 0 }")
    (html / "data").mkdir()
    (html / "data" / "record.json").write_text("{}")
    return html


def project(built: Path) -> Path:
    return built.parent.parent


def test_of_a_page_stays_what_paper_can_show(built: Path) -> None:
    pages = printed(built, contents(project(built) / "book" / "_toc.yml")).pages
    assert [(page.key, page.title) for page in pages] == [
        ("book-index", "A book"),
        ("notebooks-one", '1. Heat & "Blur"'),
    ]
    text = pages[1].article.get_text(" ", strip=True)
    for kept in ("in front", "Evidence", "Claimed <so>", "Two claims", "first way", "Windows", "second way"):
        assert kept in text
    for gone in ("behind", "Quick", "hidden", "Take it home", "#"):
        assert gone not in text
    assert not pages[1].article.select("input, label, details, summary, svg, script, [loading], [for]")


def test_links_lead_to_their_place_in_the_file_or_to_the_web(built: Path) -> None:
    pages = printed(built, contents(project(built) / "book" / "_toc.yml"), suffix=".xhtml").pages
    links = {a.get_text(): a.get("href") for a in pages[0].article.select("a")}
    assert links == {
        "the depth": "notebooks-one.xhtml#notebooks-one--deep",
        "a fold": "notebooks-one.xhtml#notebooks-one",
        "a record": None,
        "the package": None,
        "elsewhere": "https://example.org/x",
        "above": "book-index.xhtml#book-index--book",
    }


def test_the_epub_is_whole(built: Path) -> None:
    made = one_file.epub(project(built))
    assert made == built / "attacks-explained.epub"
    with zipfile.ZipFile(made) as archive:
        assert archive.testzip() is None
        first = archive.infolist()[0]
        assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
        assert archive.read("mimetype") == b"application/epub+zip"
        names = set(archive.namelist())
        package = ElementTree.fromstring(archive.read("book/content.opf"))
        spaces = {"o": "http://www.idpf.org/2007/opf", "dc": "http://purl.org/dc/elements/1.1/"}
        items = {item.attrib["id"]: item.attrib for item in package.findall("o:manifest/o:item", spaces)}
        listed = {f"book/{item['href']}" for item in items.values()}
        assert names == listed | {"mimetype", "META-INF/container.xml", "book/content.opf"}
        title = package.findtext("o:metadata/dc:title", None, spaces)
        assert title is not None
        assert title.startswith("Attacks, Explained")
        spine = [items[ref.attrib["idref"]]["href"] for ref in package.findall("o:spine/o:itemref", spaces)]
        assert spine == ["title.xhtml", "nav.xhtml", "book-index.xhtml", "notebooks-one.xhtml"]
        pages = {name: archive.read(name).decode() for name in names if name.endswith(".xhtml")}
        ids = {
            name: {e.get("id") for e in ElementTree.fromstring(text).iter()} for name, text in pages.items()
        }
        for text in pages.values():
            assert str(project(built)) not in text
            assert "doc-biblioentry" not in text
            for file, place in re.findall(r'href="([\w-]+\.xhtml)(?:#([^"]+))?"', text):
                assert not place or place in ids[f"book/{file}"]
        chapter = pages["book/notebooks-one.xhtml"]
        assert chapter.count("<math") == 1
        assert archive.read("book/pictures/notebooks-one-figure.png").startswith(b"\x89PNG")
        assert 'src="pictures/notebooks-one-figure.png"' in chapter
        assert 'height="20"' not in chapter, "its width is another here, and it would be stretched"
        assert re.findall(r'href="([^"]+)">([^<]+)', pages["book/nav.xhtml"]) == [
            ("book-index.xhtml", "A book"),
            ("notebooks-one.xhtml", "1. Heat &amp; &quot;Blur&quot;"),
            ("notebooks-one.xhtml#notebooks-one--agrees", "What agrees"),
        ]
        scripted = {item["href"]: item.get("properties") for item in items.values()}
        assert scripted["notebooks-one.xhtml"] == "mathml"


def pretend(folder: Path, script: str) -> str:
    """Return a command in the place of Chromium."""
    command = folder / "pretended"
    finding = 'for a in "$@"; do case $a in --print-to-pdf=*) out=${a#*=};; esac; done'
    command.write_text(f"#!/bin/sh\n{finding}\n{script}\n")
    command.chmod(0o755)
    return str(command)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo it fell over >&2; exit 1", "it fell over"),
        ("exit 0", "did not say why"),
        ('echo "/URI (file://$PWD/x)" > "$out"', "a path of this machine"),
    ],
)
def test_a_pdf_that_is_none_is_refused(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(
        one_file, "chromium", lambda: pretend(tmp_path, script.replace("$PWD", str(project(built))))
    )
    with pytest.raises(UserError, match=said):
        one_file.pdf(project(built))
    assert {path.name for path in built.iterdir()} == {"_static", "book", "data", "notebooks"}


def test_without_chromium_one_line_says_so(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError) as caught:
        one_file.pdf(project(built))
    assert str(caught.value) == one_file.ABSENT


@pytest.mark.parametrize("make", [one_file.epub, one_file.pdf])
def test_without_a_book_there_is_nothing_to_make_it_of(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(UserError, match="xaibook build"):
        make(tmp_path)


def test_the_front_page_offers_what_is_there(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offered() -> list[str]:
        front = (built / "book" / "index.html").read_text()
        return re.findall(r'<a href="\.\./([^"]+)">(?:PDF|EPUB) \(\d+ MB\)</a>', front)

    assert offered() == []
    monkeypatch.setattr(one_file, "chromium", lambda: pretend(tmp_path, 'echo "%PDF" > "$out"'))
    one_file.epub(project(built))
    assert offered() == ["attacks-explained.epub"]
    one_file.pdf(project(built))
    assert offered() == ["attacks-explained.pdf", "attacks-explained.epub"]
    one_file.epub(project(built))
    assert offered() == ["attacks-explained.pdf", "attacks-explained.epub"]
    assert not [finding for finding in html_findings(built) if "attacks-explained" in finding]


def test_chromium_prints_the_pages(built: Path) -> None:
    if one_file.chromium() is None:
        pytest.skip(one_file.ABSENT)
    made = one_file.pdf(project(built)).read_bytes()
    assert made.startswith(b"%PDF")
    assert b"/Title (Attacks, Explained" in made
    assert made.count(b"/Type /Page\n") == 4  # title, contents, two pages of the book
    assert b"/Outlines" in made
    assert b"https://example.org/x" in made
    assert b"file:" not in made
    assert b"notebooks-one--deep" in made
    if shutil.which("pdftotext"):
        told = subprocess.run(
            ["pdftotext", "-", "-"], input=made, capture_output=True, check=True
        ).stdout.decode()
        assert "in front" in told
        assert "behind" not in told
