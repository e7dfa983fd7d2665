"""The committed claims and reported numbers of the papers, and what the loader says about a bad file."""

import re
import textwrap
from pathlib import Path

import pytest

from xaicore.book.claims.evidence import Evidence
from xaicore.book.claims.rules import RULES, Rule, evaluate
from xaicore.book.claims.schema import Claim, Paper, load_claims
from xaicore.core.errors import UserError
from xaicore.core.units import UNITS, check_range
from xaicore.run.evidence import load_evidence

FOLDER = Path(__file__).parents[1] / "claims"
PAPERS = load_claims(FOLDER)
CLAIMS = [claim for paper in PAPERS for claim in paper.claims]

SPECIFIED = """
p1.clean-accuracy p1.fgsm-drop p1.onepixel-drop p1.fgsm-immune-restores p1.onepixel-immune-restores
p1.fgsm-reverses-heatmap p1.onepixel-heatmap-on-pixel p1.onepixel-immune-map-as-before
p1.fgsm-immune-map-noisier p1.attacked-lie-in-class-overlap p1.signatures-identify-attack
p1.fgsm-reverses-heatmap-one-logit p1.fgsm-reverses-heatmap-centred p1.fgsm-wrong-with-high-accuracy
p1.bars-say-dog p1.immunity-depends-on-attack p1.counts-class-order p1.counts-consistent
p2.accuracy-falls-with-eps p2.vgg16-barely-affected p2.wide-fail-more
p2.preprocessing-helps p2.mod-grows-with-eps p2.vgg16-lowest-mod p2.wide-higher-mod-at-small-eps
p2.vid-vgg16-most-stable p2.whitebox-stronger-than-blackbox p2.deep-better-at-similar-shift
p2.larger-mod-more-likely-to-fail p2.ic.preprocessing-benefits-all p2.ic.mod-monotone
p3.adversarial-deviates-more p3.adversarial-more-variance
p3.gaussian-deviates-too p3.block4conv1-block5conv1-most-vulnerable p3.deeper-deviates-more
p3.strength-grows-deviation p3.half-and-one-identical p3.quarter-two-four-similar
p3.compromise-40-percent-at-weakest p3.compromise-80-percent p3.some-compromise-all-layers
p3.some-compromise-none-or-few p3.coverage-adversarial-faster p3.coverage-grows-with-strength
p3.dlfuzz-success p3.adversarial-below-gaussian-at-every-strength
p3.adversarial-falls-more-with-strength p3.deeper-deviates-more-under-gaussian
p3.all-layer-share-grows-above-two p3.many-mislead-with-few-layers p3.gaussian-need-not-mislead
p3.random-raises-coverage p3.ic.lowest-strength p4.masks-agree-across-neurons p4.masks-agree-under-attack
p4.aes-highlight-target-features p4.targeted-ndcg-near-zero p4.untargeted-ndcg-about-half
p4.cleaned-recovers p4.control-ndcg-high p4.ndcg-steadier-than-top1 p4.sigma-tradeoff p4.blur-alone-worse
p4.adaptive-below-one-percent p4.top5-percent-mask p4.sigma-true-recovers p4.ndcg-curve-shapes
p4.blurred-not-adversarial p4.benign-cost-moderate p4.cost-of-passes p4.adaptive-low-confidence
p4.adaptive-related-class p4.adaptive-unbounded-visible p5.cw-detected-99 p5.iterative-detected-80
p5.beats-magnet-on-cw p5.beats-squeezing-on-cw p5.baselines-better-on-bim-mim p5.low-false-positive-rate
p5.ig-and-deeplift-separate p5.gradient-separates-less p5.all-attacks-separate
p5.normal-entropy-drops-after-denoising p5.patch-detected p5.explanation-shows-patch p5.seconds-per-image
p5.normal-map-hardly-changes p5.smoothgrad-more-accurate p5.efficient
p5.ic.around-99
"""


def paper(name: str) -> Paper:
    return next(paper for paper in PAPERS if paper.id == name)


def every_check(check: Rule) -> list[Rule]:
    return [check, *(inner for part in getattr(check, "checks", ()) for inner in every_check(part))]


def test_every_claim_of_the_specifications_is_there() -> None:
    assert set(SPECIFIED.split()) - {claim.id for claim in CLAIMS} == set()
    assert [paper.id for paper in PAPERS] == [f"p{number}" for number in range(1, len(PAPERS) + 1)]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_a_claim_is_complete(claim: Claim) -> None:
    checks = [inner for top in (claim.check, *claim.check_in.values()) for inner in every_check(top)]
    assert all(check.rule in RULES and type(check) is RULES[check.rule] for check in checks)
    assert len(claim.check.reason) > 30
    assert claim.locator
    assert claim.statement.endswith(".")
    assert all(name.startswith(claim.paper + ".") for name in claim.results)
    assert claim.reported is not None
    assert not claim.internal or claim.check.reported_ids()


def test_the_listed_units_are_the_recorded_ones() -> None:
    root = FOLDER.parent / "results"
    for one in PAPERS:
        read = set().union(*(claim.check.ids() for claim in one.claims))
        for claim in one.claims:
            read |= set().union(
                *(control.rule(claim.check).ids() for control in claim.control if control.placebo)
            )
        for folder in sorted(root.glob(f"*/{one.notebook}")):
            values = load_evidence(folder)["values"]
            for name in sorted(read & values.keys()):
                unit, listed = values[name]["unit"], one.record_units[name]
                if unit is None:  # a plain number in the record, its range is that of what is listed
                    check_range(name, values[name]["value"], listed)
                else:
                    assert (UNITS[unit].shown, UNITS[unit].of_one / UNITS[unit].parts) == (
                        UNITS[listed].shown,
                        UNITS[listed].of_one / UNITS[listed].parts,
                    ), name


def test_reported_tables_cell_by_cell() -> None:
    first = paper("p1").numbers
    cells = [first[f"p1.table1.{name}"] for name in ("clear.clear", "clear.fgsm", "clear.onepixel")]
    assert cells == [85.80, 58.37, 64.62]
    assert first["p1.table1.fgsm_immune.fgsm"] == 84.15
    assert first["p1.table1.onepixel_immune.onepixel"] == 86.09
    assert first["p1.count.fgsm_test.cats"] + first["p1.count.fgsm_test.dogs"] == first["p1.count.fgsm_test"]
    assert (
        first["p1.count.fgsm_train.cats"] + first["p1.count.fgsm_train.dogs"] == first["p1.count.fgsm_train"]
    )
    assert first["p1.count.onepixel_train"] == 5178 + 5454
    assert first["p1.count.onepixel_test"] == 1244 + 1416

    second = paper("p2").numbers
    networks = ("vgg16", "resnet50", "resnet101", "inception_v3", "xception")
    levels = ("000", "010", "050", "075", "100")
    rows = {
        ("1", "vgg16"): "91.89 91.55 90.87 89.86 89.86",
        ("1", "resnet50"): "90.54 91.89 88.51 78.04 70.60",
        ("1", "resnet101"): "90.87 92.22 89.18 75.33 61.82",
        ("1", "inception_v3"): "88.51 88.51 57.09 35.13 25.33",
        ("1", "xception"): "92.56 92.56 81.41 69.59 56.41",
        ("2", "vgg16"): "87.54 85.60 85.21 84.82 84.43",
        ("2", "resnet50"): "94.16 94.55 90.66 85.21 75.09",
        ("2", "resnet101"): "93.38 93.38 87.15 84.82 77.43",
        ("2", "inception_v3"): "85.21 84.82 66.92 47.85 29.96",
        ("2", "xception"): "89.49 90.27 71.20 59.14 45.13",
        ("3", "vgg16"): "0 0.098875 0.117416 0.121993 0.127394",
        ("3", "resnet50"): "0 0.127743 0.241743 0.269364 0.292002",
        ("3", "resnet101"): "0 0.084589 0.208446 0.245334 0.262114",
        ("3", "inception_v3"): "0 0.160696 0.275883 0.296766 0.295898",
        ("3", "xception"): "0 0.162345 0.255316 0.272804 0.27981",
        ("3", "mean"): "0 0.12685 0.219761 0.241252 0.251444",
    }
    assert len([name for name in second if name.startswith("p2.table")]) == 5 * len(rows)
    for (table, network), row in rows.items():
        found = [second[f"p2.table{table}.{network}.eps_{level}"] for level in levels]
        assert found == [float(cell) for cell in row.split()]
    for level in levels:  # the last row of Table 3 is the mean of the others
        mean = sum(second[f"p2.table3.{network}.eps_{level}"] for network in networks) / 5
        assert second[f"p2.table3.mean.eps_{level}"] == pytest.approx(mean, abs=1e-6)

    fifth = paper("p5").numbers
    table = {"explainer": (99.8, 99.9, 80, 80, 80), "magnet": (86, 86, 96, 100, 100)}
    table["squeezing"] = (91, 100, 100, 98, 98)
    for detector, row in table.items():
        attacks = ("cw_l0", "cw_l2", "cw_linf", "bim", "mim")
        assert tuple(fifth[f"p5.table1.{detector}.{attack}"] for attack in attacks) == row
    assert paper("p3").numbers["p3.success.share"] == 48
    assert paper("p4").numbers["p4.pairs.boundary"] == 175


def test_derived_reported_numbers() -> None:
    claims = {claim.id: claim for claim in CLAIMS}
    first, second = paper("p1").numbers, paper("p2").numbers
    clean = first["p1.table1.clear.clear"]
    assert claims["p1.fgsm-drop"].reported == first["p1.derived.fgsm_success"]
    assert claims["p1.onepixel-drop"].reported == pytest.approx(clean - first["p1.table1.clear.onepixel"])
    drop = {
        (table, net): second[f"p2.table{table}.{net}.eps_000"] - second[f"p2.table{table}.{net}.eps_100"]
        for table in (1, 2)
        for net in ("vgg16", "resnet50", "resnet101", "inception_v3", "xception")
    }
    vgg = (drop[1, "vgg16"], drop[2, "vgg16"])
    assert claims["p2.vgg16-barely-affected"].reported == pytest.approx(vgg)
    lost = {key: 100 * points / second[f"p2.table{key[0]}.{key[1]}.eps_000"] for key, points in drop.items()}
    gaps = []
    for table in (1, 2):
        wide = (lost[table, "inception_v3"] + lost[table, "xception"]) / 2
        gaps.append(wide - (lost[table, "vgg16"] + lost[table, "resnet50"] + lost[table, "resnet101"]) / 3)
    assert claims["p2.wide-fail-more"].reported == pytest.approx(gaps, abs=0.006)
    excess = []
    for eps in ("010", "050", "075", "100"):
        row = {net: second[f"p2.table3.{net}.eps_{eps}"] for _, net in drop}
        of_wide = (row["inception_v3"] + row["xception"]) / 2
        excess.append(of_wide - (row["vgg16"] + row["resnet50"] + row["resnet101"]) / 3)
    assert claims["p2.wide-higher-mod-at-small-eps"].reported == pytest.approx(excess, abs=5.5e-5)
    fifth = paper("p5").numbers
    for detector in ("magnet", "squeezing"):
        gain = [
            fifth[f"p5.table1.explainer.{attack}"] - fifth[f"p5.table1.{detector}.{attack}"]
            for attack in ("cw_l0", "cw_l2", "cw_linf")
        ]
        assert claims[f"p5.beats-{detector}-on-cw"].reported == pytest.approx(gain)


@pytest.mark.parametrize(
    ("claim_id", "verdict"),
    [
        ("p1.counts-consistent", "partly"),
        ("p1.counts-class-order", "not reproduced"),
        ("p2.ic.preprocessing-benefits-all", "not reproduced"),
        ("p2.ic.mod-monotone", "not reproduced"),
        ("p2.ic.mean-shift-row", "reproduced"),
        ("p3.ic.lowest-strength", "not reproduced"),
        ("p5.ic.around-99", "not reproduced"),
    ],
)
def test_the_papers_against_themselves(claim_id: str, verdict: str) -> None:
    claim = next(claim for claim in CLAIMS if claim.id == claim_id)
    assert claim.internal
    assert evaluate(claim.check, Evidence(reported=paper(claim.paper).numbers)).verdict == verdict


def test_a_value_on_the_papers_own_photographs_is_not_asked_of_digits() -> None:
    def rules(check: Rule) -> set[str]:
        return {inner.rule for inner in every_check(check)}

    for claim in paper("p1").claims:
        if "embedded" in claim.editions:
            assert "within" not in rules(claim.check_for("embedded"))
    drop = next(claim for claim in CLAIMS if claim.id == "p1.fgsm-drop")
    assert "within" in rules(drop.check_for("reference"))
    assert "within" in rules(drop.check_for("paper"))


GOOD = """
id: p7
title: A title
authors: [A. Author]
year: 2020
bib: author2020
notebook: p7_something
units: {share: [p7.x]}
reported:
  - {id: p7.a, locator: Table 1, label: a, number: 1}
claims:
  - id: p7.first
    locator: Table 1
    statement: It is so.
    kind: value
    results: [p7.x]
    control: {none: nothing is said to cause it}
    check: {rule: at_least, value: p7.x, threshold: 1, reason: because}
"""


def test_a_good_file_loads(tmp_path: Path) -> None:
    (tmp_path / "p7.yml").write_text(GOOD, encoding="utf-8")
    (found,) = load_claims(tmp_path)
    assert found.claims[0].paper == "p7"
    assert found.claims[0].anchor == "claim-p7-first"
    assert found.short == "Author (2020)"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("rule: at_least", "rule: roughly", ["p7.first", "unknown rule 'roughly'"]),
        ("threshold: 1", "treshold: 1", ["p7.first", "threshold"]),
        ("threshold: 1", "threshold: one", ["p7.first", "threshold", "number"]),
        (", reason: because", "", ["p7.first", "reason"]),
        ("results: [p7.x]", "results: [p7.y]", ["p7.first", "p7.x", "results"]),
        ("results: [p7.x]", "results: [P7-x]", ["p7.first", "P7-x", "record id"]),
        ("kind: value", "kind: guess", ["p7.first", "kind"]),
        ("    kind: value\n", "", ["p7.first", "kind", "required"]),
        ("statement: It is so.", "statement: It is so.\n    colour: red", ["p7.first", "colour"]),
        ("id: p7.first", "id: first", ["first", "claim id"]),
        ("id: p7.first", "id: p8.first", ["p8.first", "begin"]),
        ("number: 1}", "number: 1, claim: p7.second}", ["p7.a", "p7.second"]),
        ("number: 1}", "number: many}", ["p7.a", "number"]),
        (
            "at_least, value: p7.x, threshold: 1",
            "within, value: p7.x, reported: p7.b, tolerance: 1",
            ["p7.b"],
        ),
        ("kind: value", "kind: internal-consistency", ["p7.first", "internal-consistency"]),
        ("kind: value", "kind: value\n    editions: [quick]", ["p7.first", "editions"]),
        ("    control: {none: nothing is said to cause it}\n", "", ["p7.first", "control", "missing"]),
        ("{none: nothing is said to cause it}", "{}", ["p7.first", "control", "placebo"]),
        ("none: nothing", "placebo: noise, none: nothing", ["p7.first", "control", "one of"]),
        ("none: nothing is said to cause it", "placebo: noise", ["p7.first", "control", "instead"]),
        (
            "none: nothing is said to cause it",
            "placebo: noise, instead: {p7.y: p7.z}",
            ["p7.first", "replaces nothing"],
        ),
        (
            "none: nothing is said to cause it",
            "placebo: noise, instead: {p7.x: p7.z}",
            ["p7.first", "no unit", "p7.z"],
        ),
        ("threshold: 1", "threshold: 1.1", ["p7.first", "threshold is 1.1 share", "at most 1"]),
        ("units: {share: [p7.x]}\n", "", ["p7.first", "no unit is listed for p7.x"]),
        ("share: [p7.x]", "furlong: [p7.x]", ["furlong"]),
        ("kind: value", "kind: value\n    history: [{date: yesterday}]", ["p7.first", "history"]),
        ("id: p7\n", "id: p6\n", ["p6"]),
        ("title: A title", "title: A: title", ["YAML", "line 3"]),
        ("authors: [A. Author]", "authors: []", ["authors"]),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, old: str, new: str, says: list[str]) -> None:
    assert GOOD.count(old) >= 1
    (tmp_path / "p7.yml").write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_claims(tmp_path)
    message = str(caught.value)
    assert message.startswith("p7.yml")
    assert "\n" not in message
    assert str(tmp_path) not in message
    assert all(word in message for word in says), message


def test_a_sum_that_cannot_be_done_is_refused(tmp_path: Path) -> None:
    check = (
        "check: {rule: arithmetic, numbers: {a: p7.a}, expression: a / (a - a), expected: 1, reason: because}"
    )
    text = GOOD.replace("kind: value", "kind: internal-consistency").replace("    results: [p7.x]\n", "")
    text = text.replace("    control: {none: nothing is said to cause it}\n", "")
    text = text[: text.index("    check:")] + f"    {check}\n"
    (tmp_path / "p7.yml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"p7\.first.*division by zero"):
        load_claims(tmp_path)


def test_the_file_that_the_guide_shows_loads(tmp_path: Path) -> None:
    guide = (FOLDER.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^ *```yaml\n(.*?)^ *```", guide, re.DOTALL | re.MULTILINE)
    (tmp_path / "p6.yml").write_text(textwrap.dedent(example), encoding="utf-8")
    (shown,) = load_claims(tmp_path)
    assert [claim.id for claim in shown.claims] == ["p6.fgsm-fools-most"]
    assert shown.claims[0].control[0].rule(shown.claims[0].check).ids() == {"p6.error.noise"}
    assert shown.bib in (FOLDER.parent / "book" / "references.bib").read_text(encoding="utf-8")


def test_double_ids_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no claims found"):
        load_claims(tmp_path)
    twice = GOOD + GOOD[GOOD.index("  - id: p7.first") :]
    (tmp_path / "p7.yml").write_text(twice, encoding="utf-8")
    with pytest.raises(UserError, match=r"p7\.first: the id is used twice"):
        load_claims(tmp_path)
    (tmp_path / "p7.yml").write_text("- a list", encoding="utf-8")
    with pytest.raises(UserError, match="mapping"):
        load_claims(tmp_path)
