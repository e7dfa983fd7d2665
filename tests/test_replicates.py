"""Verdicts of the same edition on other machines: kept, compared and shown."""

import dataclasses
from pathlib import Path

import pytest

from xaicore.book.claims.evidence import Verdict
from xaicore.book.claims.ledger import judge, read_verdicts
from xaicore.book.claims.replicates import (
    Replicate,
    differences,
    differing,
    keep_replicate,
    other_verdicts,
    read_replicates,
    write_replicate,
)
from xaicore.book.claims.schema import load_claims
from xaicore.book.pages.ledgers import ledger_page, scoreboard
from xaicore.core.errors import UserError
from xaicore.run.records import load_record

ROOT = Path(__file__).parents[1]
PAPERS = load_claims(ROOT / "claims")
RECORDS = {
    "embedded": {
        path.parent.name: load_record(path)
        for path in sorted((ROOT / "results/embedded").glob("*/record.json"))
    }
}
JUDGED = judge(PAPERS, RECORDS)


def verdicts() -> dict[str, Verdict]:
    return {each.claim.id: each.verdict_in("embedded") for each in JUDGED}


def test_a_replicate_is_read_as_it_was_written_and_replaces_one_of_its_processor(tmp_path: Path) -> None:
    one, two = (Replicate(name, "abc", {"p1.a": Verdict.PARTLY}) for name in ("One 1.0 GHz", "Two"))
    write_replicate(tmp_path, "embedded", one)
    write_replicate(tmp_path, "embedded", two)
    again = dataclasses.replace(one, commit="def")
    write_replicate(tmp_path, "embedded", again)
    assert read_replicates(tmp_path, "embedded") == [two, again]
    assert read_replicates(tmp_path, "reference") == []


@pytest.mark.parametrize(
    "text", ["- processor: x", "just words", "- {processor: x, commit: y, verdicts: {a: good}}"]
)
def test_a_file_that_is_no_list_of_replicates_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "embedded.yml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"^claims/replicates/embedded\.yml is not a list"):
        read_replicates(tmp_path, "embedded")


def test_only_what_differs_is_named_on_front_page_and_ledger() -> None:
    there = verdicts()
    name = next(name for name, verdict in there.items() if verdict is Verdict.REPRODUCED)
    there[name] = Verdict.PARTLY
    replicated = differing(
        JUDGED,
        "embedded",
        [Replicate("Other", "abc", there), Replicate("Same", "abc", verdicts())],
        RECORDS["embedded"],
    )
    assert replicated == {each.claim.id: [] for each in JUDGED} | {name: [("Other", Verdict.PARTLY)]}
    front = scoreboard(PAPERS, JUDGED, replicated)
    assert f"Of the {len(JUDGED)} verdicts" in front
    assert ", too, 1 came out otherwise" in front
    assert "came out otherwise" not in scoreboard(PAPERS, JUDGED)
    pages = {paper.id: ledger_page(paper, JUDGED, replicated) for paper in PAPERS}
    paper = name.split(".")[0]
    assert "(Other), see {ref}`committed-run`" in pages[paper]
    assert pages[paper].index(f"`{name}`") < pages[paper].index("(Other)")
    assert not any("(Other)" in page for other, page in pages.items() if other != paper)


def test_the_committed_run_counts_as_another_processor_unless_its_networks_are_ours() -> None:
    assert other_verdicts(ROOT, "embedded", JUDGED, RECORDS, same=True) is not None, (
        "a replicate is committed"
    )
    theirs = {
        name: {**record, "provenance": {**record["provenance"], "device": "another"}}
        for name, record in RECORDS["embedded"].items()
    }
    found = other_verdicts(ROOT, "embedded", JUDGED, {"embedded": theirs}, same=False)
    assert found is not None
    assert set(found) == set(read_verdicts(ROOT / "claims" / "verdicts", "embedded"))
    own = {name.split("_")[0]: record["provenance"]["device"] for name, record in RECORDS["embedded"].items()}
    named = {processor for runs in found.values() for processor, _ in runs}
    assert named == {"AMD EPYC"}, "only the replicate came to other verdicts than the committed run"

    untested = [dataclasses.replace(each, by_edition={}) for each in JUDGED]  # every verdict is another
    found = other_verdicts(ROOT, "embedded", untested, {"embedded": theirs}, same=False)
    assert found is not None
    named = {processor for name, runs in found.items() if name.startswith("p2.") for processor, _ in runs}
    assert named == {own["p2"]} != {own["arena"]}, "chapter 2 was run on another processor than the arena"
    with pytest.raises(UserError, match="the same run again"):
        keep_replicate(ROOT, "embedded", JUDGED, RECORDS, same=True)


def test_verdicts_are_kept_with_the_processor_and_commit_of_their_own_chapter(tmp_path: Path) -> None:
    path = keep_replicate(tmp_path, "embedded", JUDGED, RECORDS, same=False)
    assert path == tmp_path / "claims" / "replicates" / "embedded.yml"
    for kept in read_replicates(path.parent, "embedded"):
        for name in kept.verdicts:
            (source,) = (
                record["provenance"]
                for notebook, record in RECORDS["embedded"].items()
                if notebook.startswith(name.split(".")[0] + "_")
            )
            assert kept.processor == source["device"]
    found = {name for kept in read_replicates(path.parent, "embedded") for name in kept.verdicts}
    ran = {notebook.split("_")[0] for notebook in RECORDS["embedded"]}
    assert found == {name for name in verdicts() if name.split(".")[0] in ran}


def test_the_committed_replicates_judged_what_another_processor_did() -> None:
    """All of it, but for claims that were added after they ran."""
    replicates = read_replicates(ROOT / "claims" / "replicates", "embedded")
    assert replicates
    processors = {
        name.split("_")[0]: record["provenance"]["device"] for name, record in RECORDS["embedded"].items()
    }
    for replicate in replicates:
        judged_there = {
            each.claim.id
            for each in JUDGED
            if processors.get(each.claim.id.split(".")[0]) not in (None, replicate.processor)
        }
        assert len(replicate.verdicts) > len(JUDGED) / 2
        assert set(replicate.verdicts) <= judged_there
        found = differing(JUDGED, "embedded", [replicate], RECORDS["embedded"])
        assert set(found) == set(replicate.verdicts)
        assert any(found.values())


def test_what_came_out_otherwise_is_listed() -> None:
    committed = {"p1.a": Verdict.REPRODUCED, "p1.b": Verdict.PARTLY, "p2.c": Verdict.PARTLY}
    replicated = {**committed, "p1.b": Verdict.INCONCLUSIVE, "p2.c": Verdict.REPRODUCED}
    source = {"xaicore": {"commit": "abc"}}
    records = {
        "p1_x": {"provenance": {"device": "Ours", **source}},
        "p2_y": {"provenance": {"device": "Other", "instruction_sets": {"torch": "AVX2"}, **source}},
    }
    text = differences(
        committed,
        [Replicate("Other (torch AVX2)", "abc", replicated), Replicate("Same", "abc", committed)],
        records,
    )
    assert "On Other (torch AVX2) (P1), 1 of 2 verdicts came out otherwise:" in text
    assert "- {ref}`p1.b <claim-p1-b>`: inconclusive instead of partly" in text
    assert "p1.a" not in text
    assert "p2.c" not in text, "its own record is of that processor"
    assert "On Same (P1, P2), none of 3 verdicts came out otherwise." in text
    assert differences(committed, [], records) == "No such run is kept yet.\n"
