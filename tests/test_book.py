"""The quick edition, run and built behind the gate; and three of its pages with a public address.

What is laid out for the two is each other's control: what the address does not add must be the same to the byte.
"""

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
import yaml
from PIL import Image

import xaicore
from tests.browser import Browser, address
from xaicore.book.claims import ledger
from xaicore.book.claims.evidence import Verdict
from xaicore.book.claims.schema import load_claims
from xaicore.book.compact import machine_paths
from xaicore.book.gate import FIRST_SCREEN, PAGE, html_findings, sizes
from xaicore.book.pages import build as building
from xaicore.book.pages import one_file
from xaicore.book.pages.citation import load_book
from xaicore.book.pages.one_file import one_document
from xaicore.book.pages.printed import contents, printed
from xaicore.book.running.editions import load_edition
from xaicore.core.errors import UserError
from xaicore.core.files import disk_full
from xaicore.run.repository import PublicRepository

ROOT = Path(__file__).resolve().parent.parent
BINDER_BYTES = 2 * 2**30
SERVER_BYTES = 256 * 2**20
"""Allowed for the Jupyter server beside the kernel, with room to spare."""
ADDRESS = "https://github.com/someone/attacks-explained"

pytestmark = pytest.mark.book


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book of the quick edition, no address set."""
    command = [sys.executable, "-m", "xaicore.book.cli", "run", "--edition", "quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return _build(tmp_path_factory.mktemp("plain") / "html", None)


def _build(target: Path, repository: PublicRepository | None) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "public_repository", lambda root: repository)
        return building.build(ROOT, "quick", target=target).parent.parent


@cache
def _pages(folder: Path) -> dict[str, str]:
    paths = folder.rglob("*.html")
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


CONTENTS = "{format: jb-book, root: book/index, chapters: [file: book/running, file: notebooks/metrics]}"
FEW = f"""
import sys
from pathlib import Path

Path(sys.argv[2], "_toc.yml").write_text({CONTENTS!r})
sys.argv = [word for word in sys.argv if word not in ("-W", "-n")]
{building.JUPYTER_BOOK}"""
"""Sphinx for three pages, whose links to all others lead nowhere."""


@pytest.fixture(scope="module")
def addressed(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of the same book with a public address; ``stage`` beside them has what was laid out for all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "JUPYTER_BOOK", FEW)
        patch.setattr(building, "html_findings", lambda built, forbidden: [])
        target = tmp_path_factory.mktemp("addressed") / "html"
        shutil.copytree(plain, target)  # the address must be noticed
        return _build(target, PublicRepository(ADDRESS, "trunk", "0123abc"))


def test_what_has_not_changed_is_not_built_again(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = (plain / "searchindex.js").stat().st_mtime_ns
    monkeypatch.setattr(building, "JUPYTER_BOOK", "raise SystemExit('ERROR: built again')")
    assert _build(plain, None) == plain
    assert (plain / "searchindex.js").stat().st_mtime_ns == built


def test_the_record_of_the_run_is_complete(plain: Path) -> None:
    record = json.loads(
        (ROOT / "runs" / "quick" / "p1_inspecting_attacks" / "record.json").read_text("utf-8")
    )
    assert record["status"] == "completed"
    assert {item["label"] for item in record["provenance"]["models"]} == {
        "clear",
        "FGSM-immune",
        "one-pixel-immune",
        "clean copies instead of FGSM",
        "clean copies instead of one-pixel",
        "another seed, never attacked",
    }
    assert 0 < record["values"]["p1.accuracy.clear.clear"]["value"] <= 100


def test_every_notebook_fits_into_a_binder_session(plain: Path) -> None:
    """Which has about 2 GB for one kernel and the server beside it."""
    edition = load_edition(ROOT, "quick")
    for name, notebook in edition.notebooks.items():
        record = json.loads((ROOT / "runs" / "quick" / name / "record.json").read_text("utf-8"))
        peak = record["provenance"]["peak_memory_bytes"]
        assert 100 * 2**20 < peak < BINDER_BYTES - SERVER_BYTES, name
        assert notebook.expected_memory_mb is not None, name
        assert peak < notebook.expected_memory_mb * 2**20, name


FILLING = "import sys; open(sys.argv[2] + '/filling', 'wb').write(bytes(2**30))"
"""In the place of Sphinx, which is called with ``build`` and the folder of the pages."""


def test_a_full_disk_leaves_the_old_book(
    plain: Path, tmp_path: Path, small_disk: Callable[[Path, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "_build"
    monkeypatch.setattr(building, "JUPYTER_BOOK", FILLING)
    for size, reached in (
        (4 * 2**20, False),
        (128 * 2**20, True),
    ):  # while the pages are laid out, and by Sphinx
        small_disk(work, size)
        page = work / "html" / "book" / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("the old book")
        with pytest.raises(UserError) as caught:
            building.build(ROOT, "quick", target=work / "html")
        assert str(caught.value) == disk_full("the book")
        assert page.read_text() == "the old book"
        assert {path.name for path in work.iterdir()} <= {"html", "stage"}
        assert (work / "stage" / "filling").exists() is reached
        shutil.rmtree(work / "stage")


def test_every_page_of_the_contents_is_there(plain: Path) -> None:
    pages = _pages(plain)
    contents = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    for page in re.findall(r"(?:root|file): (\S+)", contents):
        assert f"{page}.html" in pages


def test_chapter_has_its_figures_tables_and_download(plain: Path) -> None:
    chapter = _pages(plain)["notebooks/p1_inspecting_attacks.html"]
    for label in ("fig-1", "fig-2", "fig-3", "fig-4", "fig-5", "fig-6", "fig-training"):
        assert f'id="p1-{label}"' in chapter, label
    numbers = re.findall(r'class="caption-number">Fig\. ([\d.]+) ', chapter)
    assert len(numbers) == len(set(numbers)) >= 11
    assert "clear + FGSM" in chapter
    assert re.search(r'href="[^"]*p1_inspecting_attacks\.ipynb"', chapter)
    download = (plain / "_sources" / "notebooks" / "p1_inspecting_attacks.ipynb").read_text(encoding="utf-8")
    assert "tab-set" not in download
    assert "image/png" not in download
    assert "text/html" in download
    assert "{.editions}" not in download


def test_no_page_is_heavy(plain: Path) -> None:
    """In the quick edition; of the others the build says what is above the aims."""
    found = sizes(plain)
    assert len(found.pages) > 40
    assert {page: size for page, size in found.pages.items() if size > PAGE} == {}
    assert found.first_screens["book/index.html"] <= FIRST_SCREEN


def test_the_editions_of_a_chapter_stand_in_tabs_around_one_caption(plain: Path) -> None:
    chapter = _pages(plain)["notebooks/p1_inspecting_attacks.html"]
    assert (
        '<p class="editions">Editions on this page: <strong><a class="reference internal" href="' in chapter
    )
    tabs = [
        chapter.count(f'data-sync-group="edition" data-sync-id="{name}"') for name in ("reference", "quick")
    ]
    assert tabs == [chapter.count("data-sync-id=") / 2] * 2
    assert chapter.count('checked="checked"') == tabs[0] > 10
    figure = re.search(r'<figure[^>]* id="p1-fig-1">(.*?)</figure>', chapter, re.DOTALL)
    assert figure is not None
    assert figure[1].count("<img ") == 2
    assert figure[1].index("reference/") < figure[1].index("quick/")
    assert figure[1].count("<figcaption>") == 1
    assert "&lt;td" not in chapter


def test_the_ledgers_have_every_claim_and_their_links_resolve(plain: Path) -> None:
    pages = _pages(plain)
    front = pages["book/index.html"]
    papers = load_claims(ROOT / "claims")
    for paper in papers:
        page = pages[f"book/claims/{paper.id}.html"]
        for claim in paper.claims:
            assert f'href="claims/{paper.id}.html#{claim.anchor}"' in front
            assert f'id="{claim.anchor}"' in page
        assert page.count("<dl") >= len(paper.claims)
        if len(list(ROOT.glob(f"results/*/{paper.notebook}"))) > 1:
            assert re.search(r"<dd>\s*<(div[^>]*>\s*<)?table", page), "two editions stand side by side"
        assert "{ref}" not in page
        assert "$" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    words = re.findall(r'<span class="verdict verdict-([a-z-]+)">([a-z ]+)</span>', front)
    assert all(name == word.replace(" ", "-") for name, word in words)
    assert len(words) == len(Verdict) + sum(len(paper.claims) for paper in papers)


def test_without_an_address_no_page_offers_a_launch(plain: Path) -> None:
    for name, text in _pages(plain).items():
        assert "colab.research.google.com/github" not in text, name
        assert "mybinder.org/v2" not in text, name
    assert "Repository" in _pages(plain)["book/running.html"]


def test_with_an_address_every_launch_leads_to_a_tracked_file(addressed: Path) -> None:
    links = re.findall(r'href="(https://(?:colab|mybinder)[^"]+)"', " ".join(_pages(addressed).values()))
    assert any("colab" in link for link in links)
    assert any("mybinder" in link for link in links)
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = set(listing.stdout.splitlines())
    for link in links:
        assert "/trunk" in link, "a launch leads to the branch that holds this copy"
        path = re.search(r"(?:blob/[^/]+/|(?:urlpath|labpath|filepath)=(?:lab/)?(?:tree/)?)([^&?]+)", link)
        assert path, link
        assert re.sub("%2F", "/", path.group(1), flags=re.IGNORECASE) in tracked, f"{link}: git add it first"


ABOUT_THE_ADDRESS = {Path("_config.yml"), Path("book", "running.md")}


def _laid_out(html: Path) -> dict[Path, bytes]:
    """What Sphinx was given, by its place."""
    stage = html.with_name("stage")
    made_by_sphinx = (stage / "_build", stage / "_toc.yml")
    files = (
        path for path in stage.rglob("*") if path.is_file() and not {path, *path.parents} & {*made_by_sphinx}
    )
    return {path.relative_to(stage): path.read_bytes() for path in files}


def test_an_address_changes_the_launch_buttons_alone(plain: Path, addressed: Path) -> None:
    ones, others = _laid_out(plain), _laid_out(addressed)
    assert set(ones) == set(others)
    changed = {path for path in ones if ones[path] != others[path]}
    notebooks = {path for path in changed if path.suffix == ".ipynb"}
    assert changed == ABOUT_THE_ADDRESS | notebooks
    assert len(notebooks) == len(load_edition(ROOT, "quick").notebooks)
    for path in notebooks:
        cell = others[path].decode().replace(ADDRESS, "").replace("0123abc", f"v{xaicore.__version__}")
        assert cell == ones[path].decode(), path
    one, other = (yaml.safe_load(laid[Path("_config.yml")]) for laid in (ones, others))
    assert other.pop("launch_buttons")["colab_url"]
    assert other["repository"].pop("url") == ADDRESS
    assert other["repository"].pop("branch") == "trunk"
    assert other["html"].pop("use_repository_button") is not one["html"].pop("use_repository_button")
    assert other == one


def test_a_changed_verdict_stops_the_build(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = ledger.read_verdicts(ROOT)
    changed = next(name for name, verdict in sorted(committed.items()) if verdict != "inconclusive")
    monkeypatch.setattr(ledger, "read_verdicts", lambda root: {**committed, changed: "inconclusive"})
    with pytest.raises(UserError, match=rf"{re.escape(changed)}: inconclusive → "):
        building.build(ROOT, "quick", target=tmp_path / "html")
    assert not (tmp_path / "html").exists()


TOO_WIDE = """(() => {
  const limit = document.documentElement.clientWidth + 1;
  const scrolls = (e) => e && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
  const wide = [...document.querySelectorAll(".bd-article *")].filter((e) =>
    e.getBoundingClientRect().right > limit && e.getBoundingClientRect().width && !scrolls(e.parentElement));
  const page = document.documentElement.scrollWidth > limit ? [`page: ${document.documentElement.scrollWidth} px`] : [];
  return page.concat(wide.slice(0, 3).map((e) => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 40)}`));
})()"""


SMALL_TYPE = """[...document.querySelectorAll(".bd-article .cell_output figure img")].filter((e) =>
  e.naturalWidth && e.getBoundingClientRect().width / e.naturalWidth < 0.5).map((e) => e.alt)"""
"""Figures shown at less than half of their pixels; type of 10 points has 20 of them."""


def test_in_a_browser_no_page_has_errors_or_is_wider_than_a_phone(plain: Path, browser: Browser) -> None:
    browser.window(390, 844)
    seen = 0
    for name in sorted(_pages(plain)):
        if name == "index.html" or name.startswith(("_static/", "_modules/")):
            continue  # the first only leads on, the others are parts and sources
        browser.visit(address(plain / name))
        assert not browser.problems, (name, browser.problems[:3])
        assert not (found := browser.run(TOO_WIDE)), (name, found)
        images = (
            "[...document.images].filter((e) => e.loading !== 'lazy' && !e.naturalWidth).map((e) => e.src)"
        )
        assert browser.run(images) == [], name
        assert browser.run(SMALL_TYPE) == [], name
        seen += 1
    assert seen > 20


def test_the_epub_has_every_chapter(plain: Path, tmp_path: Path) -> None:
    built = tmp_path / "html"
    shutil.copytree(plain, built)
    made = one_file.epub(ROOT, built)
    pages = [name for _, inside in contents(ROOT / "book" / "_toc.yml") for name in inside]
    with zipfile.ZipFile(made) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".xhtml")}
    trees = {name: ElementTree.fromstring(text) for name, text in texts.items()}
    assert len(texts) == len(pages) + 2
    for name in load_edition(ROOT, "quick").notebooks.keys() - {"explorer"}:
        words = " ".join("".join(trees[f"book/notebooks-{name}.xhtml"].itertext()).split())
        cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
        told = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        headings = re.findall(r"^## ([^$`'\[{*\n]+)$", told, re.MULTILINE)
        assert [each for each in headings if each != "Parameters" and each not in words] == [], name
        assert len(words) > max(len(told) / 2, min(len(told), 5000)), name
    for name, text in texts.items():
        assert "\\(" not in text, name
        assert not [path for path in machine_paths(ROOT) if len(path) > 5 and path in text], name
    assert sum(text.count("<math") for text in texts.values()) > 100
    assert f'href="../{made.name}"' in (built / "book" / "index.html").read_text(encoding="utf-8")
    assert html_findings(built) == []


PAPER_PX = 658
"""Of the text, in CSS pixels: A4 without its margins (``book/_static/print.css``)."""


def test_in_a_browser_the_whole_book_fits_on_paper(plain: Path, browser: Browser) -> None:
    document = plain / "one-document.html"
    try:
        printed_book = printed(plain, contents(ROOT / "book" / "_toc.yml"))
        document.write_text(one_document(printed_book, load_book(ROOT)), encoding="utf-8")
        browser.window(PAPER_PX, 1000, media="print")
        browser.visit(address(document))
        assert not browser.problems, browser.problems[:3]
        assert browser.run(TOO_WIDE) == []
        drawn = "(e) => e.querySelector('math')?.getBoundingClientRect().width > 0"
        assert browser.run(f"[...document.querySelectorAll('.math')].filter({drawn}).length") > 100
        assert browser.run(f"[...document.querySelectorAll('.math')].every({drawn})")
        assert browser.run("[...document.images].filter((e) => !e.naturalWidth).map((e) => e.src)") == []
    finally:
        document.unlink()
        browser.window(1280, 900)


def test_in_a_browser_claims_are_cards_on_a_phone(plain: Path, browser: Browser) -> None:
    table = "document.querySelector('.chapter-claims table')"
    for width, display in ((390, "block"), (1280, "table-cell")):
        browser.window(width, 844)
        browser.visit(address(plain / "notebooks" / "p1_inspecting_attacks.html"))
        assert browser.run(f"{table}.scrollWidth <= {table}.clientWidth")
        assert browser.run(f"getComputedStyle({table}.querySelector('td')).display") == display


def test_in_a_browser_one_switch_turns_the_page(plain: Path, browser: Browser) -> None:
    """Also from the keyboard, and the browser remembers it; pictures of a hidden tab are not loaded before."""
    page = address(plain / "notebooks" / "p1_inspecting_attacks.html")
    names = "[...document.querySelectorAll('.sd-tab-set > input:checked + label')].map(l => l.dataset.syncId)"
    drawn = "[...document.querySelectorAll('.sd-tab-set .edition-figure img')].filter(i => i.naturalWidth)"
    loaded = f"{drawn}.map(i => i.src.split('/').at(-2))"
    browser.visit(page)
    assert set(browser.run(names)) == {"reference"}
    browser.run("document.querySelector('.sd-tab-set .edition-figure').scrollIntoView()")
    assert set(browser.wait(f"{loaded}.length && {loaded}")) == {"reference"}
    browser.run("document.querySelector('.sd-tab-set > input').focus()")
    browser.press("ArrowRight")
    assert set(browser.run(names)) == {"quick"}
    assert set(browser.run(loaded)) <= {"reference", "quick"}
    browser.run("document.querySelector('input:checked + label + div .edition-figure').scrollIntoView()")
    assert set(browser.wait(f"{loaded}.includes('quick') && {loaded}")) == {"reference", "quick"}
    browser.visit(page)
    assert set(browser.run(names)) == {"quick"}
    assert not browser.problems, browser.problems


def test_in_a_browser_the_search_finds_mod(plain: Path, browser: Browser) -> None:
    browser.visit(address(plain / "search.html") + "?q=MOD")
    browser.wait("document.querySelector('.search-summary')?.textContent.includes('finished')")
    found = browser.run("[...document.querySelectorAll('#search-results li a')].map((e) => e.textContent)")
    assert "The metrics" in found
    assert any("Grad-CAM" in title for title in found)
    assert not browser.problems, browser.problems[:3]


SETTLED = """(() => { const all = [...document.querySelectorAll(".explorer canvas")];
  return all.length === 6 && all.every((e) => e.dataset.shown && e.dataset.shown === e.dataset.wanted); })()"""
IN_SIGHT = """(() => { const explorer = document.querySelector(".explorer");
  return document.readyState === "complete" && explorer.children.length
    && Math.abs(explorer.getBoundingClientRect().top) < 300; })()"""
SIDE_BY_SIDE = """(() => {
  const all = [...document.querySelectorAll(".explorer figure canvas")];
  let strip = document.querySelector("#strip");
  if (!strip) {
    strip = document.createElement("canvas");
    strip.id = "strip";
    strip.style.cssText = "position: fixed; top: 0; left: 0; z-index: 99999";
    document.body.append(strip);
  }
  strip.width = 100 * all.length;
  strip.height = 100;
  all.forEach((e, k) => strip.getContext("2d").drawImage(e, 100 * k, 0, 100, 100));
})()"""
CHOSEN = """Object.fromEntries([...document.querySelectorAll(".explorer input:checked")].map((e) => [e.name, e.value]))"""
PANELS = ("clean", "changed", "perturbation", "before", "after", "difference")


def _drawn(browser: Browser) -> dict[str, bytes]:
    """The six pictures of the explorer, as the screen has them."""
    browser.wait(SETTLED)
    browser.run(SIDE_BY_SIDE)
    picture, before = browser.picture("#strip"), b""
    while picture != before:  # on a busy machine the screen may lag behind by a frame
        picture, before = browser.picture("#strip"), picture
    with Image.open(io.BytesIO(picture)) as strip:
        cut = {name: strip.crop((100 * k, 0, 100 * k + 100, 100)) for k, name in enumerate(PANELS)}
    return {name: picture.convert("RGB").tobytes() for name, picture in cut.items()}


def test_in_a_browser_the_explorer_shows_what_is_chosen(plain: Path, browser: Browser) -> None:
    browser.window(1280, 1000)
    page = plain / "notebooks" / "explorer.html"
    browser.visit(address(page))
    first = _drawn(browser)
    assert len(set(first.values())) == 6
    browser.run("document.querySelector('.explorer input[name=kind]:checked').focus()")
    browser.press("ArrowRight")  # from the attack to noise of its size
    noise = _drawn(browser)
    changed = {name for name in PANELS if noise[name] != first[name]}
    assert changed == {"changed", "perturbation", "after", "difference"}
    assert browser.run(CHOSEN)["kind"] == "noise"
    assert "kind=noise" in browser.run("location.hash")
    assert page.name in browser.run("location.pathname"), "an arrow key turned the page"
    browser.run("document.querySelector('.explorer input[name=explanation]:not(:checked)').click()")
    explained = _drawn(browser)
    assert {name for name in PANELS if explained[name] != noise[name]} == {"before", "after", "difference"}
    labels = browser.run(
        "[...document.querySelectorAll('.explorer canvas')].map((e) => e.getAttribute('aria-label'))"
    )
    assert len(labels) == len(set(labels)) == 6
    assert not browser.problems, browser.problems


def test_in_a_browser_a_link_opens_the_explorer_at_its_case(plain: Path, browser: Browser) -> None:
    page = plain / "notebooks" / "explorer.html"
    browser.visit(address(page))
    plainly = _drawn(browser)
    image = browser.run("[...document.querySelectorAll('.explorer input[name=image]')].at(-1).value")
    wanted = {"image": image, "attack": "fgsm", "size": "8/255", "kind": "noise", "explanation": "grad_cam"}
    browser.visit(address(page, "&".join(f"{name}={value}" for name, value in wanted.items())))
    browser.wait(IN_SIGHT)  # before pictures are taken, for which Chromium lays the window out anew
    linked = _drawn(browser)
    assert all(linked[name] != plainly[name] for name in PANELS)
    assert browser.run(CHOSEN) == {**wanted, "explained": "answer"}
    assert "has no" not in browser.run("document.querySelector('.explorer [role=status]').textContent")
    browser.visit(address(page, f"image={image}&attack=sorcery"))
    _drawn(browser)
    said = browser.run("document.querySelector('.explorer [role=status]').textContent")
    assert "has no attack “sorcery”" in said, (said, browser.run("location.hash"))
    assert browser.run(CHOSEN)["image"] == image
    assert not browser.problems, browser.problems
