"""Controls, smallest groups and earlier checks of made claims, and how a ledger shows them."""

from pathlib import Path

import pytest

from xaicore.book.claims.assessment import Judgement, assess, earlier
from xaicore.book.claims.evidence import Evidence, Measured, Outcome, Verdict
from xaicore.book.claims.schema import Claim, Paper, load_claims
from xaicore.book.pages.ledgers import ledger_page

R, P, N = Verdict.REPRODUCED, Verdict.PARTLY, Verdict.NOT_REPRODUCED
INC, NT = Verdict.INCONCLUSIVE, Verdict.NOT_TESTABLE

FILE = """
id: p7
title: A title
authors: [A. Author]
year: 2020
bib: author2020
notebook: p7_something
units: {points: [p7.drop], "%": [p7.rate]}
reported:
  - {id: p7.a, locator: Table 1, label: a, number: 1}
  - {id: p7.b, locator: Table 1, label: b, number: 2}
claims:
  - id: p7.placebo
    locator: Table 1
    statement: The attack lowers the accuracy.
    kind: ordering
    results: [p7.drop.attack]
    control: {placebo: noise of equal size, instead: {p7.drop.attack: p7.drop.noise}}
    check: {rule: more_than, value: p7.drop.attack, threshold: 0, reason: any drop counts}
  - id: p7.missing
    locator: Table 1
    statement: It lowers it.
    kind: ordering
    results: [p7.drop.attack]
    control:
      - {missing: the drop under noise}
      - {none: noise is enough}
    check: {rule: more_than, value: p7.drop.attack, threshold: 0, reason: any drop counts}
  - id: p7.older
    locator: Table 1
    statement: It lowers it in two networks by five points.
    kind: ordering
    results: [p7.drop.attack, p7.drop.other]
    control: {none: nothing is said to cause it}
    check: {rule: all_of, over: [p7.drop.attack, p7.drop.other], each: {rule: at_least, threshold: 5}, reason: five}
    history:
      - date: 2026-03-01
        check: {rule: more_than, value: p7.drop.attack, threshold: 0}
        reason: It asked for any drop in one network
  - id: p7.several
    locator: Table 1
    statement: It lowers it in two networks.
    kind: ordering
    results: [p7.drop.attack, p7.drop.other]
    control: {none: nothing is said to cause it}
    check: {rule: all_of, over: [p7.drop.attack, p7.drop.other], each: {rule: more_than, threshold: 0}, reason: any}
  - id: p7.itself
    locator: Table 1
    statement: The first is smaller.
    kind: internal-consistency
    check: {rule: arithmetic, numbers: {a: p7.a, b: p7.b}, expression: a < b, reason: it is said}
    history:
      - date: 2026-03-01
        check: {rule: arithmetic, numbers: {a: p7.a, b: p7.b}, expression: b < a}
        reason: The sides were exchanged
"""

ATTACK = Measured(10, 8, 12, 200, "points", 5)


@pytest.fixture
def paper(tmp_path: Path) -> Paper:
    (tmp_path / "p7.yml").write_text(FILE, encoding="utf-8")
    return load_claims(tmp_path)[0]


def of(paper: Paper, name: str) -> Claim:
    return next(claim for claim in paper.claims if claim.id == f"p7.{name}")


def judged(claim: Claim, **values: Measured) -> Outcome:
    return assess(claim, "embedded", Evidence({f"p7.drop.{name}": value for name, value in values.items()}))


def block(paper: Paper, name: str, **values: Measured) -> str:
    claim = of(paper, name)
    outcome = judged(claim, **values)
    there = {f"p7.drop.{name}": value for name, value in values.items()}
    judgement = Judgement(claim, outcome, "embedded", there, {"embedded": outcome}, {"embedded": there})
    return ledger_page(paper, [judgement])


@pytest.mark.parametrize(
    ("noise", "verdict", "says"),
    [
        (Measured(5, 4, 6, 200), P, "; so does noise of equal size"),
        (Measured(0, -1, 1, 200), R, "; whether the same holds for noise of equal size is open"),
        (Measured(-5, -6, -4, 200), R, None),
        (Measured(5, 4, 6, 9), R, "; no control that can be judged"),
        (None, R, "; no control run"),
    ],
)
def test_a_placebo_has_to_fail(
    paper: Paper, noise: Measured | None, verdict: Verdict, says: str | None
) -> None:
    outcome = judged(of(paper, "placebo"), attack=ATTACK, **({"noise": noise} if noise else {}))
    assert outcome.verdict is verdict
    assert outcome.explanation.endswith(says or "above 0")
    ((name, control),) = outcome.controls
    assert name == "noise of equal size"
    assert control.verdict in (R, INC, N, NT)


def test_a_placebo_does_not_rescue_or_worsen_what_is_not_reproduced(paper: Paper) -> None:
    for attack, verdict in ((Measured(-5, -6, -4, 200), N), (Measured(1, -1, 3, 200), INC)):
        for noise in (Measured(5, 4, 6, 200), Measured(-5, -6, -4, 200)):
            assert judged(of(paper, "placebo"), attack=attack, noise=noise).verdict is verdict


def test_a_claim_needs_ten_images(paper: Paper) -> None:
    assert judged(of(paper, "placebo"), attack=Measured(10, 8, 12, 9)).verdict is NT
    assert judged(of(paper, "missing"), attack=Measured(10, 8, 12, 10)).explanation.endswith(
        "; no control run"
    )
    assert judged(of(paper, "missing"), attack=Measured(10, 8, 12, 9)).verdict is NT


def test_a_ledger_shows_control_images_and_networks(paper: Paper) -> None:
    page = block(paper, "placebo", attack=ATTACK, noise=Measured(5, 4, 6, 200, "points"))
    assert "verdict-partly" in page
    assert (
        "Control\n: Noise of equal size. It must not reach this: `p7.drop.noise` is more than 0. **It does**: "
        in page
    )
    assert "at least 10 behind each number" in page.lower()
    assert "behind `p7.drop.attack` are 200 images × 5 networks." in page
    failing = block(paper, "placebo", attack=ATTACK, noise=Measured(-5, -6, -4, 200, "points"))
    assert "It does not: `p7.drop.noise` is −5 points" in failing
    page = block(paper, "missing", attack=Measured(10, 8, 12, 14))
    assert "Control\n: Not run yet: the drop under noise.\n\n  None: noise is enough.\n" in page
    assert "At least 10 behind each number" in page
    assert "14 images × 1 network." in page


def test_a_ledger_shows_what_would_decide(paper: Paper) -> None:
    open_ = block(paper, "placebo", attack=Measured(1, -1, 3, 200))
    assert "What would decide it\n: About 810 images instead of 200, if the values stay" in open_
    assert "What would decide it" not in block(paper, "placebo", attack=ATTACK)


def test_a_ledger_shows_the_check_before_its_reason_and_both_verdicts(paper: Paper) -> None:
    page = block(paper, "older", attack=ATTACK, other=Measured(1, 0, 2, 200, "points"))
    new, old = page.split("Until 1 March 2026\n: ")
    assert "Rule\n: Reproduced if all of these 2 hold: " in new
    assert '<span class="verdict verdict-partly">partly<' in new
    assert old.startswith(
        '<span class="verdict verdict-reproduced">reproduced</span> Reproduced if `p7.drop.attack` is more'
    )
    assert "*Changed because:* It asked for any drop in one network." in old
    internal = of(paper, "itself")
    ((until, words, reason, outcome),) = earlier(internal, "", {}, paper.numbers)
    assert (until, words) == ("1 March 2026", "Reproduced if `b < a` holds for the paper's own numbers")
    assert reason == "The sides were exchanged"
    assert outcome.verdict is N


def test_a_verdict_that_correction_or_controls_changed_is_shown_with_the_one_before(paper: Paper) -> None:
    page = block(
        paper,
        "several",
        attack=Measured(2.1, 0.1, 4.1, 200, "points"),
        other=Measured(-1, -4, 2, 200, "points"),
    )
    assert "Until" not in page  # inconclusive either way
    weak = Measured(-2.1, -4.1, -0.1, 200, "points")
    page = block(paper, "several", attack=weak, other=Measured(-1, -4, 2, 200, "points"))
    assert 'Until 29 November 2026\n: <span class="verdict verdict-not-reproduced">' in page
    assert "The same condition." in page
    few = block(paper, "placebo", attack=Measured(10, 8, 12, 9))
    assert 'Until 29 November 2026\n: <span class="verdict verdict-reproduced">' in few


def test_a_claim_without_a_run_shows_its_control(paper: Paper) -> None:
    pending = [Judgement(claim, Outcome(NT, "no result yet"), pending=True) for claim in paper.claims]
    page = ledger_page(paper, pending)
    assert "Control\n: Noise of equal size. It must not reach this: `p7.drop.noise` is more than 0.\n" in page
    assert "Images\n: At least 10 behind each number, and a share known to ± 15 points.\n" in page
