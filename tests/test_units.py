"""Units: every committed number lies in the range of its unit, and so does every number that a ledger prints."""

import json
import math
import re
from pathlib import Path

import nbformat
import pytest

from xaicore.book.claims.evidence import Measured
from xaicore.book.claims.ledger import committed_evidence, judge
from xaicore.book.claims.schema import load_claims
from xaicore.book.pages.ledgers import ledger_page
from xaicore.core.errors import UserError
from xaicore.core.units import UNITS, check_range, number, quantity, table_number
from xaicore.run.recorded import load_record, range_unit
from xaicore.run.records import Run

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "results").glob("*/*/record.json"))
EVIDENCE_PATHS = sorted((ROOT / "results").glob("*/*/evidence.json"))
RECORDS: dict[str, dict[str, dict]] = {}
for path in PATHS:
    RECORDS.setdefault(path.parent.parent.name, {})[path.parent.name] = load_record(path)
PAPERS = load_claims(ROOT / "claims")


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("%", 100.1),
        ("%", -0.1),
        ("points", 3609.1),
        ("points", -100.1),
        ("share", 1.1),
        ("correlation", -1.1),
        ("percentile", 101),
        ("bits", -0.1),
        ("s", -1),
        ("images", -1),
        ("relative %", -1),
        ("per cent", 1),
        ("", 1),
    ],
)
def test_a_record_refuses_what_its_unit_cannot_have(tmp_path, unit, value):
    run = Run("p1_test", {}, tmp_path)
    with pytest.raises(
        ValueError, match=r"^(value p1\.a is .* which must be at|unit must be one of)"
    ) as error:
        run.value("p1.a", value, unit=unit)
    assert "\n" not in str(error.value)
    assert run.values == {}


def test_the_ends_of_an_interval_and_rounding(tmp_path):
    run = Run("p1_test", {}, tmp_path)
    with pytest.raises(
        ValueError, match=r"an end of the interval of p1\.a is 101 %, which must be at most 100"
    ):
        run.value("p1.a", 99, ci=(98, 101), unit="%")
    assert run.value("p1.a", 100 * (1 + 1e-12), ci=(-1e-12, 100), unit="%") == 100 * (1 + 1e-12)
    run.value("p1.b", 217.2, unit="relative %")
    run.value("p1.c", -1e9)


def test_a_record_with_an_impossible_number_is_not_read(tmp_path):
    run = Run("p1_test", {}, tmp_path)
    run.value("p1.a", 1, unit="%")
    path = run.finish()
    text = path.read_text()
    for wrong in (
        text.replace('"value": 1.0', '"value": 3609.0'),
        text.replace('"unit": "%"', '"unit": "pct"'),
    ):
        assert wrong != text
        path.write_text(wrong)
        with pytest.raises(UserError, match=r"is not valid: (the value p1\.a is 3609 %|unit must be one of)"):
            load_record(path)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_committed_values_lie_in_the_range_of_their_unit(path):
    for name, entry in load_record(path)["values"].items():
        for value in (entry["value"], *(entry["ci"] or ())):
            check_range(name, value, range_unit(name, entry["unit"]))


@pytest.mark.parametrize("path", EVIDENCE_PATHS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_committed_intervals_lie_in_the_range_of_their_unit(path):
    for name, entry in json.loads(path.read_text(encoding="utf-8"))["values"].items():
        for value in (entry["value"], *(entry["ci"] or ()), *(entry["prediction"] or ())):
            check_range(name, value, range_unit(name, entry["unit"]))


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("p5.auroc.explainer.bim", "share"),
        ("p5.auroc.change.smooth_ig.bim", "share"),
        ("p5.score.smooth_ig.size_of_the_change.bim", "share"),
        ("p2.shift_failure_auroc_held.vgg16", "share"),
        ("p2.mod_noise.xception.eps_100", "share"),
        ("p2.shift_failure_within.vgg16", "share"),
        ("p4.mask.lrp.iou", "share"),
        ("p4.ndcg.cw_untargeted.cleaned.mean", "share"),
        ("atlas.clusters.fgsm.attacked__answer.p", "share"),
        ("p4.control_spread.ndcg", "share"),
        ("p4.control_spread.difference", None),
        ("p4.ndcg.graded_classes", None),
        ("p4.ndcg_gain.cw_targeted", None),
        ("p4.mask_gain.random", None),
        ("p2.mod_gap.vgg16", None),
        ("p1.similarity.onepixel_immune", "correlation"),
        ("p1.similarity.onepixel_gain", None),
        ("p3.as_published.vulnerability_rank_gaussian.block1_conv2", "rank"),
        ("p3.strength_distance.s025_s050", "distance"),
        ("p5.separation_gap.smooth_ig", None),
        ("p5.patch_ratio", None),
        ("p1.model.seconds", None),
    ],
)
def test_a_name_says_the_range_of_a_plain_number(tmp_path, name, unit):
    assert range_unit(name, None) == unit
    assert range_unit(name, "%") == "%"
    run = Run("p1_test", {}, tmp_path)
    if unit is None:
        run.value(name, 1.2)
    else:
        beyond, bound = (-1.2, "at least") if unit in ("distance", "rank") else (1.2, "at most 1$")
        with pytest.raises(ValueError, match=rf"{number(beyond)} {unit}, which must be {bound}"):
            run.value(name, beyond)


def test_a_number_has_one_unit_in_all_editions():
    units: dict[str, set] = {}
    for runs in RECORDS.values():
        for record in runs.values():
            for name, entry in record["values"].items():
                measured = Measured.from_record(entry)
                units.setdefault(name, set()).add(measured and measured.unit)
    assert {name: found for name, found in units.items() if len(found) > 1} == {}


def test_verdicts_and_ledgers_hold_no_impossible_number():
    judgements = judge(PAPERS, committed_evidence(ROOT))
    for judgement in judgements:
        for runs in judgement.values_by_edition.values():
            for name in judgement.claim.results:
                for value in (runs[name].value, runs[name].low, runs[name].high) if name in runs else ():
                    check_range(name, value, runs[name].unit)
    units = {spec.shown: spec for spec in UNITS.values() if spec.shown and spec.parts == 1}
    del units["%"]
    pattern = re.compile(
        rf"([−-]?[\d.]+(?:e[−+-]?\d+)?) ({'|'.join(units)}|%)(?: \(95 % interval (\S+) to ([^\s,)]+))?"
    )
    count = 0
    for paper in PAPERS:
        text = ledger_page(paper, judgements)
        assert not re.search(r"\d\.\d{12}|0\.0000", text), "a number that rounding made"
        for match in pattern.finditer(text):
            difference = " minus `" in text[text.rfind("\n", 0, match.start()) : match.start()]
            for shown in filter(None, (match[1], match[3], match[4])):
                value = float(shown.replace("−", "-"))
                check_range(match[0], abs(value) if difference else value, match[2])
                count += 1
    assert count > 500


def test_the_overlap_of_chapter_1_is_printed_in_percent():
    page = ledger_page(PAPERS[0], judge(PAPERS, committed_evidence(ROOT)))
    share = Measured.from_record(
        RECORDS["reference"]["p1_inspecting_attacks"]["values"]["p1.mixing.attacked"]
    )
    assert share
    percent = share.value / 100 if share.unit == "‱" else share.value
    assert f"{percent:.4g} % (95 % interval" in page
    assert "3609" not in page


def test_notebooks_name_known_units():
    named = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                named |= set(re.findall(r'unit="([^"]*)"', cell.source))
    assert {"%", "images", "percentile"} <= named <= set(UNITS)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (2.22e-17, 4, "2.22e−17"),
        (-2.22e-17, 4, "−2.22e−17"),
        (1e-4, 4, "0.0001"),
        (0.00012345, 3, "0.000123"),
        (0.5, 4, "0.5"),
        (-12.3456, 4, "−12.35"),
        (1234.5678, 4, "1235"),
        (132837952420.68336, 4, "1.328e+11"),
        (1234567.8, 8, "1234567.8"),
        (14355.0, 4, "14355"),
        (0.0, 4, "0"),
    ],
)
def test_numbers_for_a_sentence(value, digits, text):
    assert number(value, digits) == text


def test_quantities_and_columns():
    assert quantity(36.09085, "%") == "36.09 %"
    assert quantity(3609.085, "‱") == "36.09 %"
    assert quantity(0.5, "correlation") == quantity(0.5, None) == "0.5"
    assert [table_number(value) for value in (math.nan, -math.inf, 1.5, 0.012, 2.22e-17)] == [
        "–",
        "−∞",
        "1.50",
        "0.012",
        "2.2e−17",
    ]
