"""The claims for programs: ``claims.json`` at the root of the built book, and linked data in the ledgers' pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from xaicore.book.claims.assessment import Judgement
from xaicore.book.claims.ledger import claims_table
from xaicore.book.claims.schema import Paper
from xaicore.run.evidence import EVIDENCE

CLAIMS = "claims.json"
DATA = "data"
"""Folder of the built book: ``data/<edition>/<notebook>/`` has what is committed, ``data/this-run/<notebook>/`` the run
that the pages show."""

FIELDS = {
    "id": "of the claim; stays the same over versions of the book",
    "paper": "such as p1",
    "locator": "where the paper says it",
    "statement": "in our words",
    "kind": "what the rule judges",
    "reported": "what the paper gives for it, with its unit",
    "unit": "of the reported numbers",
    "value": "record id of the number of ours that tells most",
    "ours": "that number, in our_unit",
    "our_unit": "of ours and of its interval",
    "interval": "95 %, low and high",
    "n": "images",
    "networks": "runs, each with networks and a seed of its own, that are pooled",
    "edition": "that the verdict rests on; null where it rests on the paper's own numbers or on nothing yet",
    "verdict": "reproduced, partly, not reproduced, inconclusive or not testable here",
    "explanation": "why",
    "rule": "when a claim counts as reproduced",
    "reason": "why this rule",
    "control": "what must not satisfy the rule as well",
    "page": "address of the claim, from the root of the book",
    "data": "file with the evidence, from the root of the book",
}
"""Field of a claim in ``claims.json`` → what it holds; what does not exist is null."""


def claims_data(papers: Sequence[Paper], judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Return what stands in ``claims.json``: ``fields``, see :data:`FIELDS`, and ``claims``, one object each.

    Args:
        papers: the papers.
        judgements: one per claim.
    """
    notebooks = {paper.id: paper.notebook for paper in papers}
    rows = claims_table(judgements).to_dict("records")
    claims = [
        {str(name): value for name, value in row.items()} | _more(judgement, notebooks[judgement.claim.paper])
        for row, judgement in zip(rows, judgements, strict=True)
    ]
    return {"fields": FIELDS, "claims": [{name: claim.get(name) for name in FIELDS} for claim in claims]}


def _more(judgement: Judgement, notebook: str) -> dict[str, Any]:
    claim = judgement.claim
    check = claim.check_for(judgement.edition or "")
    written = claim.model_dump(mode="json", exclude_none=True)
    return {
        **{name: written.get(name) or None for name in ("locator", "statement", "kind", "unit", "control")},
        "value": claim.results[0] if claim.results else None,
        "our_unit": judgement.measured.unit if judgement.measured else None,
        "explanation": judgement.outcome.explanation,
        "rule": check.words(),
        "reason": check.reason,
        "page": claim.page,
        "data": f"{DATA}/{judgement.edition}/{notebook}/{EVIDENCE}" if judgement.edition else None,
    }


def linked_data(paper: Paper, judgements: Sequence[Judgement]) -> str:
    """Return a paper's claims as JSON-LD for its ledger's page, in the tag that such data stands in.

    The vocabulary is schema.org's: a ``ClaimReview`` for each claim, whose ``itemReviewed`` is a ``Claim`` that appears
    in the paper (``ScholarlyArticle``) and whose ``reviewRating`` has the verdict as its ``alternateName``, as verdicts
    are words and no marks; a ``Dataset`` for the evidence that it rests on. Addresses are relative to the page.

    Args:
        paper: the paper.
        judgements: one per claim; those of other papers are ignored.
    """
    mine = [judgement for judgement in judgements if judgement.claim.paper == paper.id]
    article: dict[str, Any] = {"@type": "ScholarlyArticle", "@id": "#paper", "name": paper.title}
    article |= {"author": [{"@type": "Person", "name": name} for name in paper.authors]}
    article |= {"datePublished": str(paper.year)}
    article |= {"sameAs": f"https://doi.org/{paper.doi}"} if paper.doi else {}
    editions = dict.fromkeys(judgement.edition for judgement in mine if judgement.edition)
    datasets = [
        {
            "@type": "Dataset",
            "@id": f"#evidence-{edition}",
            "name": f"Evidence for the claims of {paper.short}, {edition} edition",
            "description": f"Values with intervals, pooled over runs, of {paper.notebook} in the {edition} edition.",
            "license": "https://creativecommons.org/licenses/by/4.0/",
            "distribution": {
                "@type": "DataDownload",
                "encodingFormat": "application/json",
                "contentUrl": f"../../{DATA}/{edition}/{paper.notebook}/{EVIDENCE}",
            },
        }
        for edition in editions
    ]
    graph = {"@context": "https://schema.org", "@graph": [article, *datasets, *map(_review, mine)]}
    text = json.dumps(graph, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/ld+json">{text}</script>'


def _review(judgement: Judgement) -> dict[str, Any]:
    claim = judgement.claim
    review = {
        "@type": "ClaimReview",
        "@id": f"#{claim.anchor}",
        "url": f"#{claim.anchor}",
        "claimReviewed": claim.statement,
        "itemReviewed": {"@type": "Claim", "name": claim.id, "appearance": {"@id": "#paper"}},
        "reviewRating": {"@type": "Rating", "alternateName": str(judgement.verdict)},
        "reviewBody": judgement.outcome.explanation,
    }
    return review | ({"isBasedOn": {"@id": f"#evidence-{judgement.edition}"}} if judgement.edition else {})
