"""Numbers in prose: bound to what is committed, and none that is bound to nothing."""

import shutil
from pathlib import Path

import nbformat
import pytest

from tests.kept import P1, ROOT, project, run
from xaicore.book.claims.assessment import Judgement
from xaicore.book.claims.evidence import Outcome, Verdict
from xaicore.book.claims.schema import load_claims
from xaicore.book.keeping import keep
from xaicore.book.pages import build as building
from xaicore.book.pages.committed import Committed
from xaicore.book.pages.unbound import unbound
from xaicore.book.pages.words import bind, fill_in, findings, page_findings, pages_of, retell
from xaicore.core.errors import UserError

PAPERS = load_claims(ROOT / "claims")


def entry(value: float, interval: list[float] | None, n: int | None, unit: str | None, runs: int = 1) -> dict:
    each = [value + 1.5 * run for run in range(runs)] + [None]
    return {"value": value, "ci": interval, "n": n, "unit": unit, "runs": runs, "each": each}


@pytest.fixture(scope="module")
def committed() -> Committed:
    """Evidence of two editions, and verdicts, made up."""
    values = {
        "p4.aware.pgd": entry(96.1039, [90.909, 100.0], 77, "%"),
        "p4.adaptive.pgd.linf.eps_031.late": entry(31.7647, [21.1765, 42.3529], 85, "%", runs=5),
        "p4.gain": entry(-0.0349, [-0.06, 0.012], 1234, None),
        "p4.change": entry(-27.06, [-36.5, -17.6], 85, "points"),
        "p4.error": entry(1234.5, [1000.0, 2000.0], 12, "‱"),
        "p4.plain": entry(9.0, None, None, None),
        "p4.ratio": entry(1.074, [1.02, 1.13], 20, None),
        "p4.many": entry(12345.6, [10000.0, 15000.0], 20, None),
        "p4.undefined": entry(float("nan"), None, 0, None),
    }
    embedded = {
        "p4.aware.pgd": entry(100.0, [70.0, 100.0], 9, "%"),
        "p4.only_small": entry(0.5, [0.4, 0.6], 9, None),
    }
    parameters = {"size": 224, "eps": [2 / 255, 8 / 255], "model": "vgg19", "all": None, "distance": 0.02}
    name = "p4_heat_and_blur"
    evidence = {
        "reference": {name: {"values": values, "parameters": parameters}},
        "embedded": {name: {"values": embedded, "parameters": {**parameters, "size": 128}}},
    }
    claim = next(
        claim for paper in PAPERS for claim in paper.claims if claim.id == "p4.adaptive-below-one-percent"
    )
    judgement = Judgement(claim, Outcome(Verdict.NOT_REPRODUCED, "no"), "reference")
    return Committed(evidence, PAPERS, [judgement])


def shown(text: str, committed: Committed) -> str:
    """The words of the only link of a text as the page has them."""
    page, faults = bind(text, committed)
    assert not any(on_page for _, _, on_page in faults), faults
    return page.partition(">")[2].partition("</a>")[0]


@pytest.mark.parametrize(
    ("written", "target", "page"),
    [
        ("96 %", "value:p4.aware.pgd", "96 %"),
        ("95.0 %", "value:p4.aware.pgd", "96.1 %"),
        ("about 90", "value:p4.aware.pgd", "about 96"),
        ("100 %", "value:embedded/p4.aware.pgd", "100 %"),
        ("0.5", "value:p4.only_small", "0.5"),
        ("[90.9, 99.0]", "value:p4.aware.pgd:ci", "[90.9, 100.0]"),
        ("[91, 100] %", "value:p4.aware.pgd:ci", "[91, 100] %"),
        ("91–100 %", "value:p4.aware.pgd:ci", "91–100 %"),
        ("-0.1 to 0.1", "value:p4.gain:ci", "−0.1 to 0.0"),
        ("−0.03", "value:p4.gain", "−0.03"),
        ("+0.03", "value:p4.gain", "−0.03"),
        ("+1.07x", "value:p4.ratio", "+1.07x"),
        ("0", "value:p4.gain", "0"),
        ("−27 points", "value:p4.change", "−27 points"),
        ("12.3 %", "value:p4.error", "12.3 %"),
        ("nine", "value:p4.plain", "nine"),
        ("All eight", "value:p4.plain", "All nine"),
        ("Eight", "value:p4.plain", "Nine"),
        ("seven", "value:p4.aware.pgd:n", "77"),
        ("80", "value:p4.aware.pgd:n", "77"),
        ("1234", "value:p4.gain:n", "1234"),
        ("1,200", "value:p4.gain:n", "1,234"),
        ("12346", "value:p4.many", "12,346"),
        ("five", "value:p4.adaptive.pgd.linf.eps_031.late:runs", "five"),
        ("30.0 %", "value:p4.adaptive.pgd.linf.eps_031.late:least", "31.8 %"),
        ("30.0 %", "value:p4.adaptive.pgd.linf.eps_031.late:most", "37.8 %"),
        ("1 %", "paper:p4.adaptive.success", "1 %"),
        ("0.5", "paper:p4.ndcg.untargeted", "0.5"),
        ("500", "paper:p4.pairs.fewest", "500"),
        ("224", "parameter:p4.size", "224"),
        ("200 pixels", "parameter:p4_heat_and_blur.size", "224 pixels"),
        ("128", "parameter:embedded/p4.size", "128"),
        ("4/255", "parameter:p4.eps.1", "8/255"),
        ("0.008", "parameter:p4.eps.0", "0.008"),
        ("1/3", "parameter:p4.distance", "0.02"),
        ("2 %", "parameter:p4.size", "224 %"),
    ],
)
def test_a_number_is_the_committed_one_in_the_form_in_which_it_is_written(
    written: str, target: str, page: str, committed: Committed
) -> None:
    text = f"It is [{written}]({target}) here."
    assert shown(text, committed) == page
    reported = [what for _, what, _ in bind(text, committed)[1]]
    assert bool(reported) == (written.replace("-", "−") != page or "-" in written)
    assert all(f"[{written}]({target}) is committed as {page};" in what for what in reported)
    corrected, _ = bind(text, committed, source=True)
    assert corrected == f"It is [{page}]({target}) here."
    assert bind(corrected, committed)[1] == []


def test_a_number_links_to_what_it_comes_from_and_says_how_sure_it_is(committed: Committed) -> None:
    page, _ = bind(
        "[32 %](value:p4.adaptive.pgd.linf.eps_031.late), [96 %](value:p4.aware.pgd), [9](value:p4.plain)",
        committed,
    )
    assert page == (
        '<a class="bound number" href="../book/claims/p4.html#claim-p4-adaptive-below-one-percent" title="31.76 % (95 % '
        'interval 21.18 to 42.35, n = 85, 5 runs), reference edition">32 %</a>, '
        '<a class="bound number" href="../book/statistics.html#run-reference-p4-heat-and-blur" title="96.1 % (95 % '
        'interval 90.91 to 100, n = 77), reference edition">96 %</a>, '
        '<a class="bound number" href="../book/statistics.html#run-reference-p4-heat-and-blur" title="9, reference '
        'edition">9</a>'
    )
    page, _ = bind("[1](paper:p4.adaptive.success) [0](paper:p4.top1.targeted) [8/255](setting:)", committed)
    assert 'href="../book/claims/p4.html#claim-p4-adaptive-below-one-percent"' in page
    assert "less than 1 %" in page
    assert 'href="../book/claims/p4.html#every-reported-number"' in page
    assert page.endswith("</a> 8/255")


def test_words_of_a_verdict_stay_as_long_as_it_holds(committed: Committed) -> None:
    link = "[much *more* often](verdict:p4.adaptive-below-one-percent={})"
    for named in ("not-reproduced", "partly|not-reproduced"):
        page, faults = bind(link.format(named), committed)
        assert faults == []
        assert page == (
            '<a class="bound" href="../book/claims/p4.html#claim-p4-adaptive-below-one-percent" '
            'title="p4.adaptive-below-one-percent: not reproduced, reference edition">much *more* often</a>'
        )
    for named in ("reproduced", "reproduced|partly", ""):
        page, ((_, what, on_page),) = bind(link.format(named), committed)
        assert (page, on_page) == ("much *more* often", True)
        assert "the verdict on p4.adaptive-below-one-percent is not-reproduced" in what


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1](value:p4.no_such)", "no value p4.no_such in any committed edition"),
        ("[1](value:paper/p4.aware.pgd)", "no value p4.aware.pgd in the paper edition"),
        ("[1](value:embedded/p4.gain)", "no value p4.gain in the embedded edition"),
        ("[1](value:large/p4.gain)", "no edition large; there are paper, reference, embedded"),
        ("[1](value:p4.undefined)", "no value p4.undefined"),
        ("[1](value:p4.gain:median)", "p4.gain has no part median"),
        ("[1, 2](value:p4.plain:ci)", "p4.plain has no interval"),
        ("[1](value:p4.plain:n)", "p4.plain has no part n"),
        ("[many](value:p4.gain)", "'many' must have one number"),
        ("[1 of 2](value:p4.gain)", "'1 of 2' must have one number"),
        ("[0.1](value:p4.gain:ci)", "'0.1' must have 2 numbers"),
        ("[27 %](value:p4.change)", "'27 %' is in %, the number in points"),
        ("[27](value:p4.change) %", "'27' is in %, the number in points"),
        ("[96 points](value:p4.aware.pgd)", "'96 points' is in points, the number in %"),
        ("[3 %](value:p4.gain)", "the number in no unit"),
        ("[96x](value:p4.aware.pgd)", "'96x' is in x, the number in %"),
        ("[1](paper:p4.no_such)", "claims/ has no reported number p4.no_such"),
        ("[1](parameter:p4.no_such)", "p4_heat_and_blur has no number no_such among its parameters"),
        ("[1](parameter:p4.model)", "has no number model"),
        ("[1](parameter:p4.eps)", "has no number eps"),
        ("[1](parameter:p4.eps.7)", "has no number eps.7"),
        ("[1](parameter:p9.size)", "no committed run of p9"),
        ("[so](verdict:p4.no-such=reproduced)", "claims/ has no claim p4.no-such"),
        ("[in 9 cases](verdict:p4.adaptive-below-one-percent=not-reproduced)", "bind the number on its own"),
    ],
)
def test_what_does_not_fit_stops_the_build_and_leaves_the_words(
    text: str, words: str, committed: Committed
) -> None:
    page, ((_, what, on_page),) = bind(text, committed)
    assert on_page
    assert words in what
    assert page == text[1 : text.index("](")] + text[text.index(")") + 1 :]


HIDDEN = [
    "`[1](value:p9.x) and 96 %`",
    "```python\nx = 0.5  # [1](value:p9.x)\n```",
    "```\n96 % of 20 images\n```",
    "````{raw} html\n<b>96 %</b>\n```\n96 %\n````",
    "~~~\n```{note}\n96 %\n~~~",
    ":::{image} a.png\n:alt: 96 % of 20 images\n:::",
    "$\\alpha = 0.5$ and $$x > 0.99 \\%$$",
    "$$\nx = 0.5\n$$ (eq)",
    "<!-- 96 % -->",
    '<a href="explorer.html#size=0.3">a four</a>',
    "{cite:p}`a2020` and {doc}`96 % of 20 images <x>`",
    "(section-0.5)=",
    "## 2.1 Title",
    "[see 96 %](p1.ipynb) and https://example.org/0.5/96%25",
    "Fig. 5.2, Figs. 3.1 to 7.2, Sec. 5.2, chapter 2 networks, papers 2, 3 and 4 people, Python 3.11",
    "version 2.1.2 and iNNvestigate 2.1.2",
    "values in [0, 1], five papers, thirteen attacks, one image of each, 0 or 1, NDCG@1 and L2, EfficientNet-Lite0",
    "[96 %](value:p4.aware.pgd) of [20](value:p4.aware.pgd:n) images, [0.5](setting:)",
    "3 of Brama's own figures and two images",
    "means with 95 % intervals, a 95 % band; Bands: 95 % over images",
    "one of five verdicts, all of them, none of these, two of the papers, a third class, half-widths, above one half",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_what_is_no_prose_has_no_results(text: str, committed: Committed) -> None:
    assert list(unbound(text)) == []
    if "value:p9" in text:
        assert bind(text, committed) == (text, [])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It fell to 96 %, and 7.5% more.", ["96 %", "7.5%"]),
        ("about 3 per cent", ["3 per cent"]),
        ("from 10 to 22 % of them", ["10 to 22 %"]),
        ("an AUROC of 0.98.", ["0.98"]),
        ("(−0.03 [−0.1, 0.2])", ["−0.03", "[−0.1, 0.2]"]),
        ("[91, 100] of [0, 1] %", ["[91, 100]", "[0, 1] %"]),
        ("1.07x as fast, 63 times as many, 7 × 7", ["1.07x", "63 times", "7 ×"]),
        ("at ε = 8/255", ["8/255"]),
        ("n = 77, p < 0.01", ["n = 77", "p < 0.01"]),
        ("1,680 faces and 12 test digits", ["1,680 faces", "12 test digits"]),
        ("all nine photographs, Fifteen images", ["nine photographs", "Fifteen images"]),
        ("7 of 15, three of the nine", ["7 of 15", "three of the nine"]),
        ("two of five networks, none of the ten", ["two of five", "none of the ten"]),
        ("All of the nine fell, nine out of ten", ["All of the nine", "nine out of ten"]),
        ("Half of them, two thirds of it, a tenth of all", ["Half of", "two thirds of", "a tenth of"]),
        ("more than half, almost three-quarters", ["more than half", "almost three-quarters"]),
        ("95 % of 20 images, [0, 95 %", ["95 %", "20 images", "95 %"]),
        ("a gain of 11 points in 128 pixels", ["11 points", "128 pixels"]),
        ("```{note}\n96 %\n```\n96 % after it", ["96 %", "96 %"]),
        (
            "```{admonition} Title\n:class: tip\n- 0.5\n```python\nx = 0.7\n```\n0.6\n```\n0.8",
            ["0.5", "0.6", "0.8"],
        ),
        ("| a | 0.5 |", ["0.5"]),
        ("# Title with 96 %", ["96 %"]),
        ("a code ``x` 0.1`` and 0.2", ["0.2"]),
    ],
)
def test_a_number_that_looks_like_a_result_is_found(text: str, found: list[str]) -> None:
    assert [words for _, words in unbound(text)] == found


def notebook(path: Path, *texts: str, caption: str = "") -> Path:
    cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    cells.insert(1, nbformat.v4.new_code_cell("x = 0.5  # 96 %, [1](value:p9.x)"))
    if caption:
        cells[1].metadata["mystnb"] = {"figure": {"caption": caption, "name": "a"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_a_finding_says_where_what_and_what_to_do(tmp_path: Path, committed: Committed) -> None:
    path = notebook(
        tmp_path / "a.ipynb", "# Title", "It is 96 % and [95 %](value:p4.aware.pgd), [1](value:p4.no)."
    )
    told = [str(found) for found in page_findings("notebooks/a.ipynb", path, committed)]
    assert told[0].startswith(
        "notebooks/a.ipynb, cell 3: [95 %](value:p4.aware.pgd) is committed as 96 %; write it"
    )
    assert told[0].endswith("python -m xaicore.book.pages.words --write")
    assert told[1].startswith(
        "notebooks/a.ipynb, cell 3: no value p4.no in any committed edition; correct the id"
    )
    assert told[2].startswith("notebooks/a.ipynb, cell 3: 96 % is bound to nothing; link it as ")
    assert [found.shown for found in page_findings("a", path, committed)] == [False, True, True]
    page = tmp_path / "a.md"
    page.write_text("# Title\n\n```{note}\nIt is 96 %.\n```\n\n[1](value:p4.no)\n", encoding="utf-8")
    assert [found.where for found in page_findings("book/a.md", page, committed)] == ["line 7", "line 4"]


def test_sources_are_corrected_in_their_markdown_only(tmp_path: Path, committed: Committed) -> None:
    path = notebook(
        tmp_path / "a.ipynb", "# Title", "It is [95 %](value:p4.aware.pgd), [5](setting:), [1](value:p4.no)."
    )
    before = nbformat.read(path, as_version=4)
    fill_in(path, committed, source=True)
    before.cells[2].source = "It is [96 %](value:p4.aware.pgd), [5](setting:), [1](value:p4.no)."
    assert nbformat.read(path, as_version=4) == before
    page = tmp_path / "a.md"
    page.write_text("[−0.5](value:p4.gain)\n", encoding="utf-8")
    fill_in(page, committed, source=True)
    assert page.read_text(encoding="utf-8") == "[−0.0](value:p4.gain)\n".replace("−0.0", "0.0")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A project with a page, a chapter and a kept run of the reference edition."""
    root = project(tmp_path)
    (root / "book").mkdir()
    (root / "book" / "page.md").write_text(
        "# Title\n\nIt fell by [12 points](value:p1.drop.fgsm).\n", encoding="utf-8"
    )
    run(root, "embedded", {"p1.drop.fgsm": (30.0, 500, (28.0, 32.0))})
    run(root, "reference", {"p1.drop.fgsm": (12.0, 2000, (10.0, 13.0))})
    keep(root, "reference")
    return root


def test_pages_are_filled_in_from_what_is_committed(book: Path, tmp_path: Path) -> None:
    staged = tmp_path / "stage"
    (staged / "notebooks").mkdir(parents=True)
    (staged / "book").mkdir()
    page = staged / "book" / "page.md"
    page.write_text((book / "book" / "page.md").read_text(encoding="utf-8"), encoding="utf-8")
    path = notebook(staged / "notebooks" / "a.ipynb", "# Title", "By [12](value:p1.drop.fgsm) points.")
    for each in pages_of(staged):
        fill_in(each, Committed.load(book))
    link = '<a class="bound number" href="../book/claims/p1.html#claim-p1-fgsm-drop" title="12 points (95 % interval 10 '
    assert f'{link}to 13, n = 2,000), reference edition">12 points</a>.' in page.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    assert f'By {link}to 13, n = 2,000), reference edition">12</a> points.' == cells[2].source
    assert cells[1].source == "x = 0.5  # 96 %, [1](value:p9.x)"


def test_a_page_that_does_not_fit_is_not_built(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {P1: book / "runs" / "embedded" / P1 / "notebook.ipynb"}
    page = book / "book" / "page.md"
    building._check_words(book, "embedded", runs, Committed.load(book))
    assert capsys.readouterr().out == ""
    page.write_text("It fell by [11 points](value:p1.drop.fgsm).\n", encoding="utf-8")
    with pytest.raises(UserError, match="the prose does not fit in 1 places"):
        building._check_words(book, "embedded", runs, Committed.load(book))
    assert capsys.readouterr().out.startswith(
        "book/page.md, line 1: [11 points](value:p1.drop.fgsm) is committed as 12 points;"
    )
    page.write_text("It fell by 12 points, [much](verdict:p1.no-such=partly).\n", encoding="utf-8")
    with pytest.raises(UserError, match="the prose does not fit in 2 places"):
        building._check_words(book, "embedded", runs, Committed.load(book))
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_of_a_run_whose_text_is_an_old_one_only_that_is_said(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, source = (book / "runs" / "embedded" / P1 / "notebook.ipynb"), book / "notebooks" / f"{P1}.ipynb"
    source.parent.mkdir(exist_ok=True)
    for path in (run, source):
        notebook(path, "# Title", "By 99 % it fell.")
    with pytest.raises(UserError, match="the prose does not fit"):
        building._check_words(book, "quick", {P1: run}, Committed.load(book))
    assert "99 % is bound to nothing" in capsys.readouterr().out
    notebook(source, "# Title", "It fell.")
    with pytest.raises(UserError, match=f"text of {P1} has changed .* run --edition quick --only {P1}$"):
        building._check_words(book, "quick", {P1: run}, Committed.load(book))
    assert capsys.readouterr().out == ""


def test_a_number_written_otherwise_is_a_fault_of_the_source_not_of_a_run(book: Path) -> None:
    """Who ran a notebook before its text was corrected builds the book; who leaves the text as it is does not."""
    sources = book / "notebooks"
    sources.mkdir(exist_ok=True)
    text = "By [{}](value:p1.drop.fgsm) points, [{}](value:embedded/p1.drop.fgsm) on few."
    texts = {"now": text.format(12, 30), "old": text.format(11, 29)}
    pages = {which: notebook(book / f"{which}.ipynb", "# Title", text) for which, text in texts.items()}
    shutil.copy(pages["now"], sources / "a.ipynb")
    run(book, "embedded", {"p1.drop.fgsm": (77.0, 500, (70.0, 80.0))})
    keep(book, "embedded")
    assert [found.what for found in findings(book, {"a": pages["old"]}, Committed.load(book))] == [
        "[30](value:embedded/p1.drop.fgsm) is committed as 77; write it, and read the sentence again: "
        "python -m xaicore.book.pages.words --write"
    ]
    fill_in(sources / "a.ipynb", Committed.load(book), source=True)
    assert findings(book, {"a": pages["old"]}, Committed.load(book)) == []
    shutil.copy(pages["old"], sources / "a.ipynb")
    assert len(findings(book, {"a": pages["now"]}, Committed.load(book))) == 2


def test_an_executed_notebook_is_told_as_its_source_where_the_cells_are_the_same(tmp_path: Path) -> None:
    code = nbformat.v4.new_code_cell("1 + 1", id="b", outputs=[nbformat.v4.new_output("stream", text="2")])
    cells = [("old", "a"), ("new", "a"), ("more", "c")]
    old, new, more = (nbformat.v4.new_markdown_cell(text, id=id) for text, id in cells)
    executed, source, other = (tmp_path / f"{name}.ipynb" for name in ("executed", "source", "other"))
    nbformat.write(nbformat.v4.new_notebook(cells=[old, code]), executed)
    nbformat.write(nbformat.v4.new_notebook(cells=[new]), source)
    nbformat.write(nbformat.v4.new_notebook(cells=[new, more]), other)
    retell(executed, source)
    found = nbformat.read(executed, as_version=4).cells
    assert found[0].source == "new"
    assert found[1] == code
    before = executed.read_bytes()
    retell(executed, other)
    assert executed.read_bytes() == before


def test_captions_are_prose(tmp_path: Path, committed: Committed) -> None:
    caption = "Shares with 95 % intervals; [95 %](value:p4.aware.pgd) and 7 % of them."
    path = notebook(tmp_path / "a.ipynb", "# Title", caption=caption)
    told = [str(found) for found in page_findings("notebooks/a.ipynb", path, committed)]
    assert [words.partition(" is ")[0] for words in told] == [
        "notebooks/a.ipynb, cell 2, caption: [95 %](value:p4.aware.pgd)",
        "notebooks/a.ipynb, cell 2, caption: 7 %",
    ]
    fill_in(path, committed, source=True)
    figure = nbformat.read(path, as_version=4).cells[1].metadata["mystnb"]["figure"]
    assert figure == {"caption": caption.replace("[95 %]", "[96 %]"), "name": "a"}


def test_the_prose_of_this_book_is_bound() -> None:
    sources = {path.stem: path for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert [str(found) for found in findings(ROOT, sources, Committed.load(ROOT))] == []
