"""Which deviation of the published code of chapter 3 makes which finding: a column an analysis, a row a finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xaicore.figures.layer_report import Analysis


def findings_rows(
    strengths: Sequence[float], compared: Mapping[str, Analysis | None], said: Sequence[float]
) -> list[dict[str, Any]]:
    """Return a row for each finding of the paper: what it says where a column has no analysis, else the analysis' number.

    Args:
        strengths: of the analyses.
        compared: the columns' titles and analyses.
        said: the paper's shares compromised at the lowest and the highest strength, in percent.
    """
    strengths = list(strengths)
    one = strengths.index(1.0)

    def largest(of: Analysis, *chosen: float) -> float:
        tried = [strengths.index(each) for each in chosen if each in strengths]
        distances = [of.findings.distance[i, j] for k, i in enumerate(tried) for j in tried[k + 1 :]]
        return max(distances) if distances else float("nan")

    kinds = {
        "distance of 0.5 and 1": ("almost identical", lambda r: largest(r, 0.5, 1.0)),
        "distance of 0.25, 2 and 4": ("very similar", lambda r: largest(r, 0.25, 2.0, 4.0)),
        "compromised, lowest (%)": (f"about {said[0]:g}", lambda r: 100 * r.findings.compromise[0].value),
        "compromised, highest (%)": (f"{said[1]:g}", lambda r: 100 * r.findings.compromise[-1].value),
        "layers moved further": ("every", lambda r: f"{r.counts.further} of {r.counts.judged}"),
        "layers that vary more": ("every", lambda r: f"{r.counts.vary_more} of {r.counts.judged}"),
        "depth correlation": ("below 0", lambda r: r.findings.depth_correlation.value),
        "mean similarity at 1": ("–", lambda r: 1 - r.findings.adversarial[one].value),
    }
    return [
        {"finding": title, **{c: words if r is None else _short(measure(r)) for c, r in compared.items()}}
        for title, (words, measure) in kinds.items()
    ]


def _short(value: float | str) -> str:
    """Return a number of that table, with the digits that mean something there."""
    if isinstance(value, str):
        return value
    if not np.isfinite(value):
        return "–"
    return f"{value:.0f}" if value >= 1.5 or value == round(value) else f"{value:.3f}".replace("-", "−")
