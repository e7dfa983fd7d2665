"""Which deviation of the published code of chapter 3 makes which finding: a column an analysis, a row a finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xaicore.metrics import Estimate
from xaicore.studies.layer_findings import Findings


def findings_rows(
    strengths: Sequence[float], compared: Mapping[str, Findings | None], said: Sequence[float]
) -> list[dict[str, Any]]:
    """Return a row for each finding of the paper: what it says where a column has no analysis, else the analysis' number.

    Args:
        strengths: of the analyses.
        compared: the columns' titles and analyses.
        said: the paper's shares compromised at the lowest and the highest strength, in percent.
    """
    strengths = list(strengths)
    one = strengths.index(1.0)

    def largest(of: Findings, *chosen: float) -> float:
        tried = [strengths.index(each) for each in chosen if each in strengths]
        distances = [of.distance[i, j] for k, i in enumerate(tried) for j in tried[k + 1 :]]
        return max(distances) if distances else float("nan")

    def _share_of(estimates: Sequence[Estimate]) -> str:
        known = [each for each in estimates if np.isfinite(each.value)]
        return f"{sum(each.low > 0 for each in known)} of {len(known)}"

    kinds = {
        "distance of 0.5 and 1": ("almost identical", lambda r: largest(r, 0.5, 1.0)),
        "distance of 0.25, 2 and 4": ("very similar", lambda r: largest(r, 0.25, 2.0, 4.0)),
        "compromised, lowest (%)": (f"about {said[0]:g}", lambda r: 100 * r.compromise[0].value),
        "compromised, highest (%)": (f"{said[1]:g}", lambda r: 100 * r.compromise[-1].value),
        "layers moved further": ("every", lambda r: _share_of(r.gap)),
        "layers that vary more": ("every", lambda r: _share_of(r.log_variance_ratio)),
        "depth correlation": ("below 0", lambda r: r.depth_correlation.value),
        "mean similarity at 1": ("–", lambda r: 1 - r.adversarial[one].value),
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
