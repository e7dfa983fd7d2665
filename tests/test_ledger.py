"""Judging records, the committed verdicts, and what the ledgers say."""

import json
import re
from pathlib import Path

import pytest

from tests.kept import project
from xaicore.book.claims.assessment import Judgement
from xaicore.book.claims.evidence import Verdict
from xaicore.book.claims.ledger import (
    accept_verdicts,
    changed_verdicts,
    claims_table,
    judge,
    read_verdicts,
)
from xaicore.book.claims.schema import Paper, load_claims
from xaicore.book.pages.ledgers import claim_list, ledger_page, scoreboard
from xaicore.core.errors import UserError
from xaicore.run.records import Run

PAPERS = load_claims(Path(__file__).parents[1] / "claims")
P1 = "p1_inspecting_attacks"


def record(values: dict[str, tuple], runs: int = 1) -> dict:
    entries = {
        name: {"value": value, "n": n, "ci": [low, high], "unit": "points", "runs": runs}
        for name, (value, low, high, n) in values.items()
    }
    return {"schema": 1, "notebook": P1, "edition": "any", "seeds": list(range(runs)), "values": entries}


EMBEDDED = record(
    {
        "p1.drop.onepixel": (30.0, 28.0, 32.0, 500),
        "p1.reversal.two.fixed": (-0.8, -0.85, -0.75, 300),
        "p1.reversal.two.smallest": (-0.2, -0.25, -0.15, 300),
        "p1.pixel_rank": (98.0, 90.0, 99.5, 12),
        "p1.pixel_share_ratio": (3.0, 2.5, 3.5, 12),
        "p1.pixel_share_ratio.clean": (1.0, 0.8, 1.2, 12),
        "p1.accuracy.clear.clear": (99.0, 98.5, 99.5, 1000),
    }
)
REFERENCE = record(
    {
        "p1.drop.onepixel": (10.9, 10.7, 11.1, 2000),
        "p1.accuracy.clear.clear": (86.0, 84.5, 87.5, 2000),
    }
)


def judged(records: dict) -> dict[str, Judgement]:
    return {judgement.claim.id: judgement for judgement in judge(PAPERS, records)}


def test_without_any_run_only_the_papers_own_numbers_are_judged() -> None:
    found = judged({})
    assert len(found) == sum(len(paper.claims) for paper in PAPERS)
    for judgement in found.values():
        assert (judgement.verdict is Verdict.NOT_TESTABLE) is not judgement.claim.internal
        assert judgement.pending is not judgement.claim.internal
    assert "no result yet" in found["p1.onepixel-drop"].outcome.explanation


def test_verdicts_by_hand() -> None:
    found = judged({"embedded": {P1: EMBEDDED}})
    assert found["p1.onepixel-drop"].verdict is Verdict.REPRODUCED
    assert found["p1.fgsm-reverses-heatmap"].verdict is Verdict.PARTLY
    assert found["p1.onepixel-heatmap-on-pixel"].verdict is Verdict.INCONCLUSIVE
    clean = found["p1.clean-accuracy"]
    assert clean.verdict is Verdict.NOT_TESTABLE
    assert not clean.pending
    assert "embedded edition cannot test" in clean.outcome.explanation
    assert "reference or paper" in clean.outcome.explanation
    missing = found["p1.onepixel-immune-restores"]
    assert missing.verdict is Verdict.NOT_TESTABLE
    assert "recorded no number `p1.repaired.onepixel_immune.onepixel`" in missing.outcome.explanation


def test_the_larger_edition_makes_the_headline_and_its_own_check_counts() -> None:
    found = judged({"quick": {P1: EMBEDDED}, "embedded": {P1: EMBEDDED}, "reference": {P1: REFERENCE}})
    drop = found["p1.onepixel-drop"]
    assert drop.edition == "reference"
    assert drop.verdict is Verdict.PARTLY  # by more than half, but not within 10 points of 21.18
    assert len(drop.outcome.parts) == 2
    assert drop.by_edition["embedded"].verdict is Verdict.REPRODUCED
    assert found["p1.clean-accuracy"].verdict is Verdict.REPRODUCED
    turned = found[
        "p1.fgsm-reverses-heatmap"
    ]  # the reference run has no such number: the embedded one speaks
    assert (turned.edition, turned.verdict) == ("embedded", Verdict.PARTLY)


def test_evidence_of_several_runs_comes_before_one_run_of_a_larger_edition() -> None:
    several = EMBEDDED | {"seeds": [0, 1, 2]}
    drop = judged({"embedded": {P1: several}, "reference": {P1: REFERENCE}})["p1.onepixel-drop"]
    assert (drop.edition, drop.verdict) == ("embedded", Verdict.REPRODUCED)
    assert drop.by_edition["reference"].verdict is Verdict.PARTLY
    both = judged({"embedded": {P1: several}, "reference": {P1: REFERENCE | {"seeds": [0, 1]}}})
    assert both["p1.onepixel-drop"].edition == "reference"


def test_one_run_of_a_network_that_comes_with_its_weights_is_enough() -> None:
    notebook, value = "p4_heat_and_blur", {"value": 50.0, "n": 90, "ci": [40.0, 60.0], "unit": "%", "runs": 1}
    one = {"seeds": [0], "parameters": {"weights": "imagenet"}, "values": {"p4.mask_fraction": value}}
    several = one | {"seeds": [0, 1, 2]}
    found = judged({"embedded": {notebook: several}, "reference": {notebook: one}})
    assert found["p4.top5-percent-mask"].edition == "reference"


def test_a_quick_run_makes_no_headline() -> None:
    found = judged({"quick": {P1: EMBEDDED}})
    assert found["p1.onepixel-drop"].pending
    assert found["p1.onepixel-drop"].edition is None


def test_a_number_that_could_not_be_computed_is_missing() -> None:
    empty = json.loads(json.dumps(EMBEDDED))
    empty["values"]["p1.drop.onepixel"] |= {"value": None, "ci": None, "n": 0}
    assert judged({"embedded": {P1: empty}})["p1.onepixel-drop"].verdict is Verdict.NOT_TESTABLE


def test_claims_table() -> None:
    table = claims_table(judge(PAPERS, {"embedded": {P1: EMBEDDED}})).set_index("id")
    row = table.loc["p1.onepixel-drop"]
    assert row["ours"] == 30.0
    assert row["n"] == 500
    assert row["interval"] == (28.0, 32.0)
    assert (row["paper"], row["reported"], row["edition"]) == ("p1", "21.18 points", "embedded")
    assert row["verdict"] == "reproduced"
    assert table.loc["p2.wide-fail-more", "ours"] is None
    text = json.dumps(claims_table(judge(PAPERS, {})).to_dict("records"), allow_nan=False)
    assert len(json.loads(text)) == len(table)


def commit(root: Path, values: dict[str, tuple]) -> None:
    run = Run(P1, {"seed": 0}, root / "results" / "embedded" / P1, edition="embedded")
    for name, (value, low, high, n) in values.items():
        run.value(name, value, n=n, ci=(low, high), unit="points")
    run.finish()


def test_committed_verdicts(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert read_verdicts(root) == {}
    commit(root, {"p1.drop.onepixel": (30.0, 28.0, 32.0, 500)})
    assert accept_verdicts(root) == []
    committed = read_verdicts(root)
    assert committed["p1.onepixel-drop"] is Verdict.REPRODUCED
    assert committed["p5.ic.around-99"] is Verdict.NOT_REPRODUCED
    assert accept_verdicts(root) == []
    commit(root, {"p1.drop.onepixel": (14.0, 10.0, 18.0, 500)})
    assert accept_verdicts(root) == ["p1.onepixel-drop: reproduced → inconclusive"]

    path = root / "claims" / "verdicts.yml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("p1.clean-accuracy")]
    path.write_text("\n".join([*lines, "p1.old: partly"]))
    assert changed_verdicts(root, judge(PAPERS, {})) == [
        "p1.clean-accuracy: new claim, not testable here",
        "p1.onepixel-drop: inconclusive → not testable here",
        "p1.old: committed as partly, no such claim",
    ]


@pytest.mark.parametrize("text", ["p1.onepixel-drop: maybe", "- a\n- list", "p1: [", "just words"])
def test_damaged_verdicts_are_one_clear_line(tmp_path: Path, text: str) -> None:
    root = project(tmp_path)
    (root / "claims" / "verdicts.yml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"^claims/verdicts\.yml is not .*: xaibook claims --accept$"):
        read_verdicts(root)


def test_this_run_is_shown_beside_the_evidence() -> None:
    judgements = judge(PAPERS, {"embedded": {P1: EMBEDDED}})
    row = {"id": "p1.drop.onepixel", "here": 50.0}
    block = ledger_page(PAPERS[0], judgements, {"p1.drop.onepixel": row | {"outcome": "outside"}})
    assert "\nThis run\n: 0 of 1 values are where" in block
    assert "not these: `p1.drop.onepixel` is 50" in block
    block = ledger_page(PAPERS[0], judgements, {"p1.drop.onepixel": row | {"outcome": "inside"}})
    assert "1 of 1 values are where" in block
    assert "not these" not in block


def test_a_ledger_shows_every_claim_and_every_reported_number() -> None:
    judgements = judge(PAPERS, {"embedded": {P1: EMBEDDED}})
    for paper in PAPERS:
        page = ledger_page(paper, judgements)
        for claim in paper.claims:
            assert page.count(f"({claim.anchor})=\n") == 1
            assert claim.statement in page
            assert claim.check.reason in page or claim.check_for("embedded").reason in page
        assert page.count("\n| ") >= len(paper.reported)
        assert all(f" {entry.label} " in page or f"`{entry.label} <" in page for entry in paper.reported)
    first = ledger_page(PAPERS[0], judgements)
    assert '<span class="verdict verdict-reproduced">reproduced</span>' in first
    assert "| Ours, embedded |" in first
    assert "| 99 points (95 % interval 98.5 to 99.5, n = 1,000) |" in first  # beside 85.8 in the number table


def test_a_ledger_shows_every_edition_side_by_side() -> None:
    judgements = judge(
        PAPERS, {"embedded": {P1: EMBEDDED}, "quick": {P1: EMBEDDED}, "reference": {P1: REFERENCE}}
    )
    page = ledger_page(PAPERS[0], judgements)
    block = page.split("(claim-p1-onepixel-drop)=")[1].split("\n(claim-")[0]
    rows = [line.strip() for line in block.splitlines() if line.startswith(("  |", ": |"))]
    assert rows[0] == ": | Number | embedded | reference |"
    ours = [
        "**30 points (95 % interval 28 to 32, n = 500)**",
        "**10.9 points (95 % interval 10.7 to 11.1, n = 2,000)**",
    ]
    assert rows[2] == f"| `p1.drop.onepixel` | {ours[0]} | {ours[1]} |"
    assert [re.sub("<.*?>", "", cell).strip() for cell in rows[-1].split("|")[1:4]] == [
        "verdict",
        "reproduced",
        "partly",
    ]
    assert "Verdict (reference)\n: " in block
    assert 'Other editions\n: embedded <span class="verdict verdict-reproduced">' in block
    accuracy = next(line for line in page.splitlines() if "| 99 points" in line)
    assert accuracy.endswith(
        "| 99 points (95 % interval 98.5 to 99.5, n = 1,000) "
        "| 86 points (95 % interval 84.5 to 87.5, n = 2,000) |"
    )
    alone = page.split("(claim-p1-fgsm-reverses-heatmap)=")[1].split("\n(claim-")[0]
    assert ": embedded edition\n" in alone  # the reference run has none of its numbers
    assert "  |" not in alone


def test_the_front_page_says_which_editions_its_verdicts_rest_on() -> None:
    judgements = judge(PAPERS, {"embedded": {P1: EMBEDDED}, "reference": {P1: REFERENCE}})
    internal = sum(judgement.claim.internal for judgement in judgements)
    by = {name: sum(j.edition == name for j in judgements) for name in ("reference", "embedded")}
    assert all(by.values())
    assert (
        f"rest on: {by['reference']} on the reference edition, {by['embedded']} on the embedded edition, "
        f"{internal} on the papers' own numbers." in scoreboard(PAPERS, judgements)
    )
    text = claim_list(PAPERS, judgements)
    assert "onepixel-drop <claim-p1-onepixel-drop>` (reference, n = 2,000, one run)" in text
    assert "fgsm-reverses-heatmap <claim-p1-fgsm-reverses-heatmap>` (embedded, n = 300, one run)" in text


def test_scoreboard_counts_and_links() -> None:
    judgements = judge(PAPERS, {"embedded": {P1: EMBEDDED}})
    row = next(line for line in scoreboard(PAPERS, judgements).splitlines() if "verdict-reproduced" in line)
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["1", "1"]
    text = claim_list(PAPERS, judgements)
    for judgement in judgements:
        assert f"<{judgement.claim.anchor}>`" in text
    assert "onepixel-drop <claim-p1-onepixel-drop>` (embedded, n = 500, one run)" in text


def test_every_code_span_in_the_ledgers_is_closed() -> None:
    judgements = judge(PAPERS, {})
    for paper in PAPERS:
        for line in ledger_page(paper, judgements).splitlines():
            assert line.count("`") % 2 == 0, line
            for word in line.split("`")[1::2]:
                assert ", the values" not in word, line


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.id)
def test_a_ledger_says_what_each_number_is(paper: Paper) -> None:
    text = ledger_page(paper, []).partition("## What our numbers are")[2].partition("## Every reported")[0]
    read = {id for claim in paper.claims for id in claim.results}
    assert read
    assert {id for id in read if ".".join(id.split(".")[:2]) not in text} == set()


def test_placeholders_in_the_words_on_our_numbers_are_shown() -> None:
    told = PAPERS[0].model_copy(update={"records": "`p1.a.<attack>`\n: under b.<attack>, a < b"})
    page = ledger_page(told, [])
    assert "`p1.a.<attack>`\n: under b.&lt;attack>, a &lt; b" in page
