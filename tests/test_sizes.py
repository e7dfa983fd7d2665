"""What a browser has to load of the built book, and what is taken from its pages and from its folder."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pygments.styles import get_style_by_name
from pygments.token import Name, Punctuation, Text, Whitespace

from xaicore.book import gate as measured
from xaicore.book.gate import sizes
from xaicore.book.pages.page_scripts import lighten, needed_once

HEAD = """<html><head>
<link rel="stylesheet" href="../_static/a.css?v=1">
<link rel="next" href="other.html">
<script src="../_static/now.js"></script><script defer src="../_static/scripts/later.js"></script>
<script defer src="../_static/scripts/fontawesome.js?digest=1"></script>
<script src="../searchindex.js"></script><script src="../_static/searchtools.js"></script>
</head><body>%s</body></html>"""
IMAGES = '<img alt="" src="one.png"><img src="two.png" loading="lazy"><img src="one.png" loading="lazy">'


def site(folder: Path) -> Path:
    for name, size in {
        "_static/a.css": 100,
        "_static/now.js": 20,
        "_static/searchtools.js": 7,
        "_static/language_data.js": 3,
        "_static/scripts/later.js": 300,
        "_static/scripts/fontawesome.js": 9000,
        "_static/scripts/later.js.map": 500,
        "_static/vendor/fontawesome/webfonts/icons.ttf": 60,
        "_static/vendor/fontawesome/webfonts/icons.woff2": 40,
        "searchindex.js": 1000,
        "notebooks/one.png": 4000,
        "notebooks/two.png": 50_000,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    (folder / "notebooks" / "page.html").write_text(HEAD % IMAGES)
    (folder / "search.html").write_text((HEAD % "").replace("../", ""))
    return folder


def test_a_page_weighs_what_it_loads_and_its_first_screen_what_cannot_wait(tmp_path: Path) -> None:
    page = len(HEAD % IMAGES)
    found = sizes(site(tmp_path))
    first = page + 100 + 20 + 1000 + 7 + 4000
    assert found.first_screens["notebooks/page.html"] == first
    assert found.pages["notebooks/page.html"] == first + 300 + 9000 + 50_000
    assert found.book == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


def test_sizes_above_the_aims_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sizes(site(tmp_path))
    assert found.lines() == [
        "sizes, the largest: the book 0.1 MB, the page notebooks/page.html 0.1 MB, "
        "the first screen of notebooks/page.html 0.0 MB"
    ]
    monkeypatch.setattr(measured, "PAGE", 60_000)
    (line,) = found.lines()[1:]
    assert line.startswith("warning: the page notebooks/page.html takes 0.1 MB")


def test_pages_are_freed_of_scripts_and_the_book_of_files_that_none_loads(tmp_path: Path) -> None:
    lighten(SimpleNamespace(outdir=site(tmp_path)), None)
    page = (tmp_path / "notebooks" / "page.html").read_text()
    assert "fontawesome" not in page
    assert "search" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert IMAGES in page
    search = (tmp_path / "search.html").read_text()
    assert "fontawesome" not in search
    assert search.count("search") == 2
    gone = {"scripts/fontawesome.js", "scripts/later.js.map", "vendor/fontawesome/webfonts/icons.ttf"}
    assert not any((tmp_path / "_static" / name).exists() for name in gone)
    assert (tmp_path / "_static" / "vendor/fontawesome/webfonts/icons.woff2").exists()
    assert (tmp_path / "searchindex.js").exists()


def test_code_has_no_marks_without_a_colour_and_styles_no_icons_that_no_page_shows(tmp_path: Path) -> None:
    code = '<span class="k">if</span><span class="w"> </span><span class="n">x</span><span class="p">:</span>'
    icons = '.fa-moon:before{content:"a"}.fa-b:before,.fa-sun:before{content:"b"}.fa-c:before{content:"c"}p{margin:0}'
    built = site(tmp_path)
    (built / "notebooks" / "page.html").write_text(HEAD % f'{code}<i class="fa-solid fa-sun"></i>')
    (built / "_static" / "now.js").write_text("show('fa-moon')")
    (built / "_static" / "a.css").write_text(icons)
    lighten(SimpleNamespace(outdir=built), None)
    assert '<body><span class="k">if</span> x:<i' in (built / "notebooks" / "page.html").read_text()
    assert (built / "_static" / "a.css").read_text() == icons.replace('.fa-c:before{content:"c"}', "")


def test_the_marks_that_are_taken_from_code_have_the_colour_of_all_text() -> None:
    for name in ("a11y-high-contrast-light", "a11y-high-contrast-dark"):
        tokens = dict(get_style_by_name(name))
        for token in (Name, Name.Namespace, Punctuation, Whitespace):
            assert tokens[token] == tokens[Text], (name, token)


def test_a_failed_build_is_left_alone(tmp_path: Path) -> None:
    lighten(SimpleNamespace(outdir=site(tmp_path)), ValueError("x"))
    assert (tmp_path / "_static" / "scripts" / "fontawesome.js").exists()


def test_scripts_are_kept_once_and_thebe_never() -> None:
    one, thebe = (SimpleNamespace(filename=name, attributes={}) for name in ("a.js", "sphinx-thebe.js"))
    assert needed_once({"script_files": [one, thebe, one]}, "script_files") == [one]
