"""A claim against its evidence: its check, its controls, and what the verdict would have been before.

A placebo that satisfies the check as well leaves nothing that the claim could mean: the verdict is then at most *partly*,
and says so. Where no control has been run the verdict stays and says that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from xaicore.book.claims.evidence import LEAST, Evidence, Measured, Outcome, Verdict
from xaicore.book.claims.rules import evaluate
from xaicore.book.claims.schema import Claim

CHANGED = "29 November 2026"
"""Until when checks were judged without smallest groups, controls and correction for several comparisons."""


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict: the headline, from the edition that counts first, and every edition's own.

    ``edition`` is None where no run bears on the claim: it is about the paper's own numbers, or it is
    ``pending``, its notebook having run in no edition that counts. ``values`` are that edition's numbers,
    ``values_by_edition`` those of every edition, and ``runs`` says how many runs they pool.
    """

    claim: Claim
    outcome: Outcome
    edition: str | None = None
    values: Mapping[str, Measured] = field(default_factory=dict)
    by_edition: Mapping[str, Outcome] = field(default_factory=dict)
    values_by_edition: Mapping[str, Mapping[str, Measured]] = field(default_factory=dict)
    runs: Mapping[str, int] = field(default_factory=dict)
    pending: bool = False

    @property
    def verdict(self) -> Verdict:
        """The headline verdict."""
        return self.outcome.verdict

    @property
    def measured(self) -> Measured | None:
        """Our most telling number, the first of the claim's results; None where it was not recorded."""
        return self.values.get(self.claim.results[0]) if self.claim.results else None


def assess(claim: Claim, edition: str, evidence: Evidence) -> Outcome:
    """Judge a claim in an edition.

    Args:
        claim: the claim.
        edition: whose check counts.
        evidence: its numbers, and the paper's own.

    Returns:
        The outcome of its check, each number over :data:`LEAST` images or more, with those of its controls.
    """
    evidence = replace(evidence, least=LEAST)
    check = claim.check_for(edition)
    outcome = evaluate(check, evidence)
    controls = tuple(
        (control.placebo, evaluate(control.rule(check), evidence))
        for control in claim.control
        if control.placebo
    )
    verdict, words = outcome.verdict, outcome.explanation
    same = [name for name, found in controls if found.verdict is Verdict.REPRODUCED]
    run = [found for _, found in controls if found.verdict is not Verdict.NOT_TESTABLE]
    awaited = any(control.missing for control in claim.control) or (controls and not run)
    open_ = [name for name, found in controls if found.verdict is Verdict.INCONCLUSIVE]
    if verdict is Verdict.REPRODUCED and same:
        verdict, words = Verdict.PARTLY, f"{words}; so does {' and '.join(same)}"
    elif verdict is Verdict.REPRODUCED and open_:
        words = f"{words}; whether the same holds for {' and '.join(open_)} is open"
    elif verdict is not Verdict.NOT_TESTABLE and awaited and not run:
        asked = (control.rule(check).ids() for control in claim.control if control.placebo)
        recorded = any(name in evidence.values for ids in asked for name in set(ids) - set(check.ids()))
        words = f"{words}; no control {'that can be judged' if recorded else 'run'}"
    return replace(outcome, verdict=verdict, explanation=words, controls=controls)


def earlier(
    claim: Claim, edition: str, values: Mapping[str, Measured], reported: Mapping[str, float]
) -> list[tuple[str, str, str, Outcome]]:
    """Judge the checks that a claim had before, on the same evidence.

    Args:
        claim: the claim.
        edition: whose check counted.
        values: the numbers of the edition.
        reported: the paper's own.

    Returns:
        Until when each was in force, its condition, why it was changed, and the outcome, without smallest
        groups, controls and correction. Last the present check judged in that way, where this comes out otherwise.
    """
    evidence = Evidence(values, reported)
    found = [
        (
            f"{each.date.day} {each.date:%B %Y}",
            f"Reproduced if {each.check.words()}",
            each.reason,
            evaluate(each.check, evidence, correct=False),
        )
        for each in claim.history
    ]
    if claim.internal or claim.history:
        return found
    plain = evaluate(claim.check_for(edition), evidence, correct=False)
    if plain.verdict is not assess(claim, edition, evidence).verdict:
        reason = "Since then groups have a smallest size, several comparisons are corrected and a placebo has to fail"
        found.append((CHANGED, "the same condition", reason, plain))
    return found
