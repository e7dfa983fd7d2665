"""What a reader can take away: files, claims as data, the crate that lists them, and the citation."""

import gzip
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from tests.kept import P1, ROOT, project, run
from xaicore.book.claims.ledger import claims_table, committed_evidence, judge, read_verdicts
from xaicore.book.claims.schema import Paper, load_claims
from xaicore.book.compact import without_figures
from xaicore.book.gate import html_findings
from xaicore.book.keeping import keep
from xaicore.book.pages import takeaway
from xaicore.book.pages.citation import Book, bibtex, load_book, sentence
from xaicore.book.pages.claims_data import CLAIMS, FIELDS, claims_data, linked_data
from xaicore.book.pages.ledgers import ledger_page
from xaicore.book.pages.takeaway import take_away
from xaicore.run.evidence import EVIDENCE, KEPT_OUTCOMES, OUTCOMES, load_evidence, pool
from xaicore.run.records import load_record

BOOK = Book("Attacks & more", ({"name": "The authors"},), version="0.1.0")


def kept_project(folder: Path) -> Path:
    """A project with two kept runs of the reference edition, one of them with outcomes, and a fresh embedded run."""
    root = project(folder)
    (root / "CITATION.cff").write_text((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    run(root, "reference", {"p1.drop.onepixel": (12.0, 2000, (10.0, 13.0))})
    keep(root, "reference")
    kept = root / "results" / "reference" / P1
    one = load_record(kept)
    other = json.loads(json.dumps(one))
    other["parameters"]["seed"] = 1
    other["values"]["p1.drop.onepixel"]["value"] = 14.0
    (kept / EVIDENCE).write_text(json.dumps(pool([one, other])))
    (kept / KEPT_OUTCOMES).write_bytes(
        gzip.compress(b"id,group,image,outcome,seed\np1.drop.onepixel,,1,1,0\n")
    )
    fresh = run(root, "embedded", {"p1.drop.onepixel": (30.0, 500, (28.0, 32.0))})
    (fresh / OUTCOMES).write_text("id,group,image,outcome\np1.drop.onepixel,,1,1\n")
    (fresh / "tables" / "p1.large.csv").write_text("x\n" + "1.25\n" * takeaway.LARGE)
    return root


def laid_out(root: Path, site: Path) -> list[Paper]:
    """The staged tree of a project in ``site``, whose folder ``site`` itself goes to the root of the book."""
    papers = load_claims(root / "claims")
    judgements = judge(papers, committed_evidence(root))
    for name in ("notebooks", "book/claims", "_sources/notebooks"):
        (site / name).mkdir(parents=True)
    executed = root / "runs" / "embedded" / P1 / "notebook.ipynb"
    for name in ("notebooks", "_sources/notebooks"):
        (site / name / f"{P1}.ipynb").write_bytes(executed.read_bytes())
    for paper in papers:
        (site / "book" / "claims" / f"{paper.id}.md").write_text(ledger_page(paper, judgements))
    take_away(root, site, site, edition="embedded", runs={P1: executed}, papers=papers, judgements=judgements)
    return papers


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kept_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    laid_out(root, folder)
    return folder


def block(site: Path) -> str:
    """The last cell of the chapter's page."""
    cell = nbformat.read(site / "notebooks" / f"{P1}.ipynb", as_version=4).cells[-1]
    assert cell.id == "take-it-home"
    return str(cell.source)


def test_a_chapter_offers_the_files_of_each_edition_and_of_this_run(site: Path) -> None:
    text = block(site)
    assert text.startswith("## Take it home\n")
    links = re.findall(r'<a href="\.\./([^"]+)">([^<]+)</a>', text)
    assert dict(links)[f"data/reference/{P1}/{EVIDENCE}"] == "evidence"
    assert {address for address, _ in links} == {
        *(
            f"data/reference/{P1}/{name}"
            for name in ("record.json", EVIDENCE, KEPT_OUTCOMES, "notebook.ipynb")
        ),
        f"data/reference/{P1}/tables/p1.counts.csv",
        *(f"data/this-run/{P1}/{name}" for name in ("record.json", KEPT_OUTCOMES)),
        *(f"data/this-run/{P1}/tables/{name}" for name in ("p1.counts.csv", "p1.large.csv.gz")),
        f"_sources/notebooks/{P1}.ipynb",
        CLAIMS,
        takeaway.CRATE,
    }
    for address, _ in links:
        assert (site / address).is_file(), address
    assert "<dt>Evidence: reference edition (2 runs)</dt>" in text
    assert "<dt>This run: embedded edition</dt>" in text


def test_the_files_are_what_the_runs_have_left(root: Path, site: Path) -> None:
    kept, data = root / "results" / "reference" / P1, site / "data"
    assert json.loads((data / "reference" / P1 / EVIDENCE).read_text()) == load_evidence(kept)
    assert load_record(data / "reference" / P1) == load_record(kept)
    assert load_record(data / "this-run" / P1) == load_record(root / "runs" / "embedded" / P1)
    outcomes = pd.read_csv(data / "this-run" / P1 / KEPT_OUTCOMES)
    assert list(outcomes["id"]) == ["p1.drop.onepixel"]
    large = pd.read_csv(data / "this-run" / P1 / "tables" / "p1.large.csv.gz")
    assert len(large) == takeaway.LARGE


def test_a_notebook_that_is_offered_has_its_tables_and_not_its_figures() -> None:
    data = {"text/plain": "x", "text/html": "<table></table>", "image/png": "AA=="}
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", data=data)])
    whole = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("y"), cell])
    (output,) = without_figures(whole).cells[1].outputs
    assert output.data == {"text/plain": "x", "text/html": "<table></table>"}
    assert whole.cells[1].outputs[0].data == data


def test_every_link_of_a_ledger_resolves(site: Path) -> None:
    for page in (site / "book" / "claims").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        html = "".join(re.findall(r"````\{raw\} html\n(.*?)````", text, re.DOTALL))
        assert html.count("<a ") >= 2
        page.with_suffix(".html").write_text(f"<html><body>{html}</body></html>")
    findings = html_findings(site)
    assert findings == []


def test_without_a_table_or_outcomes_none_is_offered(tmp_path: Path) -> None:
    root = project(tmp_path / "project")
    (root / "CITATION.cff").write_text((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for path in run(root, "embedded", {}).glob("tables/*.csv"):
        path.unlink()
    laid_out(root, tmp_path / "site")
    text = block(tmp_path / "site")
    assert "outcomes" not in text
    assert "table" not in text
    assert "Evidence" not in text


def test_claims_are_those_of_the_command_and_more(root: Path, site: Path) -> None:
    found = json.loads((site / CLAIMS).read_text(encoding="utf-8"))
    assert found["fields"] == FIELDS
    papers = load_claims(root / "claims")
    table = claims_table(judge(papers, committed_evidence(root)))
    printed = json.loads(json.dumps(table.to_dict("records"), default=list))
    assert [{name: claim[name] for name in table.columns} for claim in found["claims"]] == printed
    assert all(set(claim) == set(FIELDS) for claim in found["claims"])
    (drop,) = [claim for claim in found["claims"] if claim["id"] == "p1.onepixel-drop"]
    assert (drop["ours"], drop["networks"], drop["edition"]) == (13.0, 2, "reference")
    assert drop["data"] == f"data/reference/{P1}/{EVIDENCE}"
    assert drop["page"] == "book/claims/p1.html#claim-p1-onepixel-drop"
    evidence = json.loads((site / drop["data"]).read_text())["values"][drop["value"]]
    assert (evidence["value"], evidence["ci"], evidence["unit"]) == (
        drop["ours"],
        drop["interval"],
        drop["our_unit"],
    )


def test_committed_claims_keep_their_addresses(site: Path) -> None:
    """An address that was given out once leads to its claim for good: ids are those committed with the verdicts."""
    papers = load_claims(ROOT / "claims")
    ids = sorted({claim.id for paper in papers for claim in paper.claims} | set(read_verdicts(ROOT)))
    assert len(ids) > 60
    ledgers = {
        path.stem: path.read_text(encoding="utf-8") for path in (site / "book" / "claims").glob("*.md")
    }
    for id in ids:
        paper, _, rest = id.partition(".")
        assert f"\n(claim-{paper}-{rest.replace('.', '-')})=\n### `{id}`\n" in ledgers[paper], id
    addresses = {claim["id"]: claim["page"] for claim in json.loads((site / CLAIMS).read_text())["claims"]}
    for id in ids:
        assert addresses[id] == f"book/claims/{id[:2]}.html#claim-{id.replace('.', '-')}"


def test_a_ledger_has_its_claims_as_linked_data(site: Path) -> None:
    papers = load_claims(ROOT / "claims")
    for paper in papers:
        text = (site / "book" / "claims" / f"{paper.id}.md").read_text(encoding="utf-8")
        (found,) = re.findall(r'<script type="application/ld\+json">(.*)</script>', text)
        graph = json.loads(found)
        assert graph["@context"] == "https://schema.org"
        by_id = {item["@id"]: item for item in graph["@graph"]}
        assert by_id["#paper"]["name"] == paper.title
        reviews = [item for item in graph["@graph"] if item["@type"] == "ClaimReview"]
        assert [review["itemReviewed"]["name"] for review in reviews] == [claim.id for claim in paper.claims]
        for claim in paper.claims:
            review = by_id[f"#{claim.anchor}"]
            assert review["claimReviewed"] == claim.statement
            assert review["isBasedOn"]["@id"] in by_id if "isBasedOn" in review else True
        for item in graph["@graph"]:
            if item["@type"] == "Dataset":
                file = item["distribution"]["contentUrl"].removeprefix("../../")
                assert (site / file).is_file()


def test_text_of_a_claim_cannot_end_the_script() -> None:
    (paper, *_) = load_claims(ROOT / "claims")
    claim = paper.claims[0].model_copy(update={"statement": "a </script> b"})
    paper = paper.model_copy(update={"claims": (claim,)})
    text = linked_data(paper, judge([paper], {}))
    assert text.count("</script>") == 1
    graph = json.loads(text.removeprefix('<script type="application/ld+json">').removesuffix("</script>"))
    assert graph["@graph"][-1]["claimReviewed"] == "a </script> b"


def test_the_crate_lists_each_file_once_with_its_size_and_type(site: Path) -> None:
    found = json.loads((site / takeaway.CRATE).read_text(encoding="utf-8"))
    assert found["@context"] == "https://w3id.org/ro/crate/1.1/context"
    by_id = {item["@id"]: item for item in found["@graph"]}
    assert len(by_id) == len(found["@graph"])
    assert by_id[takeaway.CRATE]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert by_id[takeaway.CRATE]["about"] == {"@id": "./"}
    listed = [part["@id"] for part in by_id["./"]["hasPart"]]
    there = [path.relative_to(site).as_posix() for path in (site / "data").rglob("*") if path.is_file()]
    assert sorted(listed) == sorted([CLAIMS, *there])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", by_id["./"]["datePublished"])
    for name in listed:
        assert by_id[name]["@type"] == "File"
        assert int(by_id[name]["contentSize"]) == (site / name).stat().st_size > 0
    assert by_id[f"data/reference/{P1}/{KEPT_OUTCOMES}"]["encodingFormat"] == "application/gzip"
    assert by_id[f"data/reference/{P1}/tables/p1.counts.csv"]["encodingFormat"] == "text/csv"
    for reference in (*by_id["./"]["author"], by_id["./"]["license"]):
        assert reference["@id"] in by_id


def test_a_file_of_an_unknown_kind_has_no_place_in_a_crate(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"x\.bin: no media type"):
        takeaway.crate(tmp_path, [tmp_path / "x.bin"], BOOK, day="2026-01-02")


def test_no_path_of_the_machine_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = kept_project(tmp_path / "project")
    home = tmp_path / "someone"
    monkeypatch.setenv("HOME", str(home))
    run(root, "embedded", {}, parameters={"classes": f"see {home}/faces"})
    laid_out(root, tmp_path / "site")
    assert load_record(tmp_path / "site" / "data" / "this-run" / P1)["parameters"]["classes"] == "see ~/faces"


def test_a_page_is_cited_with_what_the_file_says_and_nothing_else(site: Path) -> None:
    assert sentence(BOOK, "One") == "The authors. “One”. In: Attacks & more, version 0.1.0."
    entry = bibtex(BOOK, "50 % of it", "p1")
    assert entry.splitlines() == [
        "@misc{attacks-explained-p1,",
        "  author = {{The authors}},",
        r"  title = {{50 \% of it}},",
        r"  howpublished = {In: Attacks \& more, version 0.1.0},",
        "}",
    ]
    people = ({"family-names": "Doe", "given-names": "Jo"}, {"family-names": "Poe", "given-names": "Al"})
    full = Book("B", people, year="2027", doi="10.1/x")
    assert sentence(full, "One") == "Jo Doe, Al Poe (2027). “One”. In: B, doi:10.1/x."
    assert "  author = {Doe, Jo and Poe, Al}," in bibtex(full, "One", "x")
    assert "  year = {2027}," in bibtex(full, "One", "x")
    ours = load_book(ROOT)
    text = block(site)
    assert f"<dd>{sentence(ours, 'A chapter')} Please" in text
    assert f"```bibtex\n{bibtex(ours, 'A chapter', P1)}\n```" in text


def test_claims_have_what_has_no_result_as_null() -> None:
    papers = load_claims(ROOT / "claims")
    claims = claims_data(papers, judge(papers, {}))["claims"]
    waiting = [claim for claim in claims if claim["kind"] != "internal-consistency"]
    assert waiting
    for claim in waiting:
        assert claim["ours"] is claim["data"] is claim["edition"] is claim["interval"] is None
        assert claim["verdict"] == "not testable here"
