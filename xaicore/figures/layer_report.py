"""What chapter 3 records and shows of an analysis: its layers, its strengths, what is compromised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xaicore import metrics
from xaicore.figures.display import cell
from xaicore.metrics import Estimate
from xaicore.studies import as_published, layer_findings
from xaicore.studies.as_published import Deviations
from xaicore.studies.layer_counts import Counts, depth_estimate, layer_counts, with_width
from xaicore.studies.layer_findings import Findings, mean_of_known

if TYPE_CHECKING:
    from xaicore.run.records import Run

Array = NDArray[np.float64]
FEW = 3 / 13
"""Share of a network's layers that counts as a few: three of VGG16's."""
RANKED = 12
"""Pairs that Wilcoxon's test needs to be able to confirm one of 49 layers after Holm's correction."""


def level(strength: float) -> str:
    """Return the part of a record's name that says which strength: hundredths."""
    return f"s{round(100 * strength):03d}"


@dataclass(frozen=True)
class Analysis:
    """K examples at S strengths and L layers, analysed in one way.

    Attributes:
        prefix: of the record ids.
        deviations: of the published code that the analysis follows.
        layers: L names.
        strengths: S multiples, 1 among them.
        images: (K,) number of the image in its set.
        attack: (K, S, L) similarities under adversarial noise; ``noise`` under Gaussian noise.
        misleads: (K, S) bool, the adversarial image has another answer; ``noise_misleads`` the Gaussian one.
        findings: the quantities.
        seed: of the bootstrap's draws.
    """

    prefix: str
    deviations: Deviations
    layers: Sequence[str]
    strengths: Sequence[float]
    images: Any
    attack: Array
    noise: Array
    misleads: NDArray[np.bool_]
    noise_misleads: NDArray[np.bool_]
    findings: Findings
    seed: int

    @classmethod
    def of(
        cls,
        prefix: str,
        deviations: Deviations,
        layers: Sequence[str],
        strengths: Sequence[float],
        images: Any,
        sides: tuple[Array, Array],
        misleads: tuple[NDArray[np.bool_], NDArray[np.bool_]],
        *,
        n_resamples: int,
        seed: int,
    ) -> Analysis:
        """Analyse similarities and answers, ``sides`` and ``misleads``, each adversarial and Gaussian."""
        chance = as_published.compromise if deviations.threshold else layer_findings.compromise_probability
        attack, noise = layer_findings.with_enough(*sides)
        found = layer_findings.findings(
            attack,
            noise,
            list(strengths).index(1.0),
            pooled=deviations.pooled,
            compromise=chance,
            n_resamples=n_resamples,
            seed=seed,
        )
        return cls(prefix, deviations, layers, strengths, images, attack, noise, *misleads, found, seed)

    @property
    def one(self) -> int:
        """The position of strength 1."""
        return list(self.strengths).index(1.0)

    @cached_property
    def counts(self) -> Counts:
        """In how many layers adversarial noise does more than Gaussian noise, by intervals over images."""
        return layer_counts(self._counted(self.attack), self._counted(self.noise), seed=self.seed)

    @cached_property
    def depth(self) -> Estimate:
        """The correlation of depth and adversarial similarity, also where the findings have too few draws."""
        return depth_estimate(self._counted(self.attack), seed=self.seed)

    def _counted(self, side: Array) -> Array:
        """Return a side at the strengths that speak of single layers, (K, S', L)."""
        return side if self.deviations.pooled else side[:, [self.one]]

    @property
    def there(self) -> tuple[Array, Array]:
        """The similarities that speak of single layers, (K', L) each: of strength 1, or of all where they are pooled."""
        attack, noise = (
            self._counted(side).reshape(-1, len(self.layers)) for side in (self.attack, self.noise)
        )
        return attack, noise

    def flags(self, side: Array) -> Array:
        """Return which layers each example of a side compromises, (K, S, L), by the rule of the analysis."""
        rule = as_published if self.deviations.threshold else layer_findings
        return rule.compromised(side, self.noise)


def layer_table(run: Run, of: Analysis) -> pd.DataFrame:
    """Record what each layer shows, and return the rows of a table."""
    result, (attack, noise) = of.findings, of.there
    images = np.repeat(np.asarray(of.images), len(attack) // len(of.images))
    # one pair an image, also where strengths are pooled
    tests = layer_findings.paired_tests(
        *((mean_of_known(side, 1) for side in (of.attack, of.noise)) if of.deviations.pooled else of.there)
    )
    content = np.isfinite(attack).mean(0)
    rows = []
    for k, layer in enumerate(of.layers):
        name = layer.lower()
        sides = {"adversarial": attack[:, k], "Gaussian": noise[:, k]}
        further = noise[:, k] - attack[:, k]
        gap = run.estimate(
            f"{of.prefix}.similarity_gap.{name}", result.gap[k], outcomes=further, images=images
        )
        ratio = run.estimate(f"{of.prefix}.variance_log_ratio.{name}", result.log_variance_ratio[k])
        run.grouped(f"{of.prefix}.variance_log_ratio.{name}", sides, images=(images, images))
        rank = run.estimate(f"{of.prefix}.vulnerability_rank.{name}", result.rank[k])
        run.grouped(f"{of.prefix}.vulnerability_rank.{name}", sides, images=(images, images))
        run.estimate(f"{of.prefix}.vulnerability_rank_gaussian.{name}", result.gaussian_rank[k])
        lowest = {
            kind: run.estimate(
                f"{of.prefix}.lowest_share{ending}.{name}",
                with_width(estimate[k], len(of.images)),
                "%",
                outcomes=_is_lowest(side, k),
                images=of.images,
            )
            for kind, ending, estimate, side in (
                ("attack", "", result.lowest, of.attack),
                ("noise", "_gaussian", result.gaussian_lowest, of.noise),
            )
        }
        test, p_value = tests[k]
        row = {"layer": layer, "adversarial": mean_of_known(attack[:, k], 0).item()}
        row |= {"Gaussian": mean_of_known(noise[:, k], 0).item(), "difference": cell(gap, 3)}
        row |= {"rank": cell(rank, 0), "lowest in % of examples": cell(lowest["attack"], 0)}
        row |= {"p (Holm)": p_value, "effect (rank-biserial)": test.effect}
        row |= {
            "ratio of the variances": cell(_doubled(ratio), 1),
            "rank, noise alone": result.gaussian_rank[k].value,
        }
        row |= {
            "lowest under noise %": cell(lowest["noise"], 0),
            "maps with content %": 100 * content[k].item(),
        }
        rows.append(row)
    for name in ("smallest_gap", "middle_gap", "smallest_log_ratio", "middle_log_ratio"):
        run.estimate(f"{of.prefix}.{name}", getattr(result, name))
    for name, count in of.counts._asdict().items():
        run.value(f"{of.prefix}.layers_{name}", count, n=len(of.images))
    return run.table(f"{of.prefix}.layers", pd.DataFrame(rows))


def _is_lowest(side: Array, layer: int) -> Array:
    """Return whether the layer's similarity is the lowest of each example, (K, S); NaN where none is defined."""
    there = np.isfinite(side).any(2)
    return np.where(there, np.where(np.isfinite(side), side, np.inf).argmin(2) == layer, np.nan)


def _doubled(logarithm: Estimate) -> Estimate:
    """Return the number whose binary logarithm is an estimate."""
    return Estimate(2.0**logarithm.value, 2.0**logarithm.low, 2.0**logarithm.high, logarithm.n)


def strength_values(run: Run, of: Analysis) -> list[dict[str, Any]]:
    """Record what the strengths show, and return the rows of a table."""
    result, names = of.findings, [level(each) for each in of.strengths]
    pairs = (("adversarial", of.attack), ("gaussian", of.noise))
    changes = {"adversarial": result.adversarial_change, "gaussian": result.gaussian_change}
    deviations = {"adversarial": result.adversarial, "gaussian": result.gaussian}
    for kind, values in pairs:
        given = {"outcomes": values[:, 0] - values[:, -1], "images": of.images}
        run.estimate(f"{of.prefix}.deviation_change.{kind}", changes[kind], **given)
        for k, strength in enumerate(names):
            given = {"outcomes": 1 - values[:, k], "images": of.images}
            run.estimate(f"{of.prefix}.deviation.{kind}.{strength}", deviations[kind][k], **given)
        correlation = getattr(
            result, "depth_correlation" if kind == "adversarial" else "gaussian_depth_correlation"
        )
        name = f"{of.prefix}.depth_correlation{'' if kind == 'adversarial' else '_gaussian'}"
        run.estimate(name, correlation, "correlation")
        of_one = values if of.deviations.pooled else values[:, of.one, None]
        each = [[layer_findings.depth_correlation(curve) for curve in image] for image in of_one]
        run.grouped(name, {"each image": mean_of_known(each, 1)}, images=[of.images])
    run.estimate(f"{of.prefix}.deviation_change_gap", result.change_gap)
    both = zip(((result.shift, of.attack), (result.gaussian_shift, of.noise)), ("", "_gaussian"), strict=True)
    for (shifts, values), ending in both:
        for (i, j), shift in shifts.items():
            given = {"outcomes": values[:, i] - values[:, j], "images": of.images}
            run.estimate(f"{of.prefix}.strength_shift{ending}.{names[i]}_{names[j]}", shift, **given)
    for (i, j), distance in result.distance.items():
        between = f"{names[i]}_{names[j]}"
        if np.isfinite(distance):
            run.value(f"{of.prefix}.strength_distance.{between}", distance, n=len(of.images))
        further = (of.attack[:, i] - of.attack[:, j]) - (of.noise[:, i] - of.noise[:, j])
        given = {"outcomes": further, "images": of.images}
        run.estimate(f"{of.prefix}.shift_gap.{between}", result.shift_gap[i, j], **given)
    flags, rows = of.flags(of.attack), []
    for k, strength in enumerate(names):
        given = {"outcomes": of.noise[:, k] - of.attack[:, k], "images": of.images}
        run.estimate(f"{of.prefix}.deviation_gap.{strength}", result.strength_gap[k], **given)
        share = run.estimate(f"{of.prefix}.compromise.{strength}", result.compromise[k], "%")
        run.grouped(f"{of.prefix}.compromise.{strength}", {"all": flags[:, k]}, images=[of.images])
        row = {"strength": f"{of.strengths[k]:g}", "adversarial": cell(result.adversarial[k])}
        row |= {"Gaussian": cell(result.gaussian[k]), "difference": cell(result.strength_gap[k])}
        rows.append(
            {**row, "compromised %": f"{share.value:.0f}" if of.deviations.threshold else cell(share, 0)}
        )
    return rows


def compromised_rows(run: Run, of: Analysis) -> list[dict[str, Any]]:
    """Record how many examples that mislead compromise all layers or few, and return the rows of a table.

    Images with Gaussian noise are the control: all of them for "all layers", those that mislead for "few".
    """
    rows = []
    for title, ending, side, misleads in (
        ("adversarial", "", of.attack, of.misleads),
        ("Gaussian", "_gaussian", of.noise, of.noise_misleads),
    ):
        count, defined = layer_findings.compromised_layers(of.flags(side))
        kinds = {"all": (count == defined) & (defined > 0), "few": (count <= FEW * defined) & (defined > 0)}
        row = {"noise": title, "images × strengths": misleads.size, "misleading": int(misleads.sum())}
        for kind, words in (("all", "all layers"), ("few", "at most 3 of 13")):
            eligible = np.ones_like(misleads) if ending and kind == "all" else misleads
            chosen = kinds[kind] & eligible
            row[words] = int(chosen.sum())
            if eligible.any():
                images = int(eligible.any(1).sum())
                run.value(f"{of.prefix}.compromised_{kind}{ending}.count", row[words], n=images)
                share = with_width(metrics.ratio(chosen.sum(1), eligible.sum(1)), images)
                outcomes = {"outcomes": np.where(eligible, chosen, np.nan), "images": of.images}
                run.estimate(f"{of.prefix}.compromised_{kind}{ending}.share", share, "%", **outcomes)
                row[f"{words} %"] = cell(share.scaled(100), 0)
        for k, strength in enumerate(map(level, of.strengths)):
            run.share(f"{of.prefix}.misleads{ending}.{strength}", misleads[:, k], images=of.images)
        rows.append(row)
    count, defined = layer_findings.compromised_layers(of.flags(of.attack))
    every = np.where(of.misleads, (count == defined) & (defined > 0), np.nan)
    for k, strength in enumerate(map(level, of.strengths)):
        run.mean(f"{of.prefix}.compromised_all_at.{strength}", every[:, k], "%", images=of.images)
    if 2.0 in of.strengths and of.strengths[-1] > 2:
        before = every[:, list(of.strengths).index(2.0)]
        run.change(f"{of.prefix}.compromised_all_change", before, every[:, -1], "points", images=of.images)
    return rows


def attack_rows(
    run: Run,
    identity: str,
    title: str,
    success: Any,
    found: Any,
    literature: Mapping[str, str],
    of: Findings | None,
    strengths: Sequence[float],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Record the main quantities of an attack and return its rows of two tables.

    Args:
        run: that records.
        identity: in the record ids.
        title: of the attack.
        success: (N,), whether each seed was turned, or in what share of the orders.
        found: :class:`xaicore.studies.layer_attacks.Compared`, or None.
        literature: names of the layers.
        of: its quantities.
        strengths: of the analysis.
    """
    rate = run.estimate(f"p3.{identity}.success", metrics.ratio(success), "%")
    row = {"attack": title, "seeds": len(success), "success %": cell(rate, 0)}
    if found is None or of is None:
        return row, {"attack": title}
    one = list(strengths).index(1.0)
    tests = layer_findings.paired_tests(found.adversarial[:, one], found.gaussian[:, one])
    depth = run.estimate(f"p3.{identity}.depth_correlation", of.depth_correlation, "correlation")
    run.estimate(f"p3.{identity}.deviation.adversarial.s100", of.adversarial[one])
    run.estimate(f"p3.{identity}.deviation.gaussian.s100", of.gaussian[one])
    for name in ("smallest_gap", "middle_gap", "smallest_log_ratio", "middle_log_ratio"):
        run.estimate(f"p3.{identity}.{name}", getattr(of, name))
    lowest, highest = (
        run.estimate(f"p3.{identity}.compromise.{level(strengths[k])}", of.compromise[k], "%")
        for k in (0, -1)
    )
    enough = len(found.adversarial) >= RANKED
    beyond = sum(gap.low > 0 for gap in of.gap)
    run.value(f"p3.{identity}.layers_beyond_noise", beyond, n=len(of.gap))
    names = [literature.get(name, name) for name in found.layers]
    row["RMS, grey levels"] = 255 * found.perturbation.square().mean().sqrt().item()
    row |= {"1 − similarity": cell(of.adversarial[one]), "the same, Gaussian": cell(of.gaussian[one])}
    return row, {
        "attack": title,
        "layers beyond noise": f"{beyond} of {len(names)}" if enough else "–",
        "p < 0.05 (Holm)": sum(p < 0.05 and test.effect > 0 for test, p in tests) if enough else "–",
        "most vulnerable": names[int(np.nanargmax([gap.value for gap in of.gap]))],
        "depth correlation": cell(depth),
        f"compromised at {strengths[0]:g} %": f"{lowest.value:.0f}",
        f"at {strengths[-1]:g} %": f"{highest.value:.0f}",
    }
