"""Neuron coverage by growing sequences of examples, adversarial and with Gaussian noise (paper 3, Fig. 2).

A sequence takes half of the examples, each once, in a random order. Among such sequences a mean over examples varies as
a mean over all does from sample to sample (the delete-half jackknife; Shao and Wu, Annals of Statistics 17, 1989), so
that the range of 95 % of the sequences is an interval over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xaicore import metrics
from xaicore.figures.display import cell
from xaicore.figures.layer_report import level
from xaicore.metrics import Estimate
from xaicore.studies import steps
from xaicore.studies.layer_similarity import Version, versions_of

if TYPE_CHECKING:
    from typing import Any

    from xaicore.models import Classifier
    from xaicore.run.engine import Engine
    from xaicore.run.records import Run

Array = NDArray[np.float64]


class Sequences(NamedTuple):
    """Coverage in percent after each example of R sequences of M of the N examples, (R, M) each.

    Attributes:
        adversarial: one a strength.
        gaussian: one a strength, mean over the draws of the noise.
        clean: of the clean images.
        with_clean: adversarial and Gaussian, one a strength, beside the clean images, as the published code counts.
        second: of each clean image beside the clean image of another example.
        each: (S, N) coverage in percent by each adversarial example alone.
        neurons: how many there are.
    """

    adversarial: list[Array]
    gaussian: list[Array]
    clean: Array
    with_clean: tuple[list[Array], list[Array]]
    second: Array
    each: Array
    neurons: int


def sequences(
    engine: Engine,
    model: Classifier,
    clean: Tensor,
    adversarial_noise: Tensor,
    draws: Sequence[Tensor],
    strengths: Sequence[float],
    *,
    n_orders: int,
    seed: int,
) -> Sequences:
    """Return the coverage by sequences of examples.

    Args:
        engine: where batches run.
        model: whose neurons count.
        clean: (N, C, H, W) in [0, 1].
        adversarial_noise: (N, C, H, W).
        draws: of Gaussian noise like it, (N, C, H, W) each.
        strengths: multiples, 1 among them.
        n_orders: R.
        seed: of the orders.
    """
    rng = np.random.default_rng(seed)
    half = max(1, len(clean) // 2)
    orders = np.stack([rng.permutation(len(clean))[:half] for _ in range(n_orders)])

    def covered(version: Version, noise: Tensor) -> NDArray[np.bool_]:
        images = version.image(clean, adversarial_noise, noise)
        return steps.neurons_covered(engine, model, images, step="neuron coverage").numpy()

    def progress(*versions: NDArray[np.bool_]) -> Array:
        return 100 * metrics.coverage_progress(np.stack(versions, 1), orders)

    pair = versions_of(strengths)
    plain = covered(Version(), draws[0])
    attack = [covered(version, draws[0]) for version in pair.adversarial]
    noise = [[covered(version, draw) for draw in draws] for version in pair.gaussian]
    return Sequences(
        [progress(each) for each in attack],
        [np.mean([progress(each) for each in drawn], 0) for drawn in noise],
        progress(plain),
        (
            [progress(plain, each) for each in attack],
            [np.mean([progress(plain, each) for each in drawn], 0) for drawn in noise],
        ),
        progress(plain, np.roll(plain, 1, 0)),
        np.stack([100 * each.mean(1) for each in attack]),
        plain.shape[1],
    )


def coverage_rows(
    run: Run, of: Sequences, strengths: Sequence[float], images: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Record the coverage by strength and the gaps; return the rows of two tables, by strength and of the gaps.

    Args:
        run: that records.
        of: the sequences.
        strengths: multiples.
        images: (N,) number of each example's image in its set.
    """
    count, one = of.each.shape[1], list(strengths).index(1.0)

    def over(values: Array, name: str, unit: str) -> Estimate:
        mean = over_sequences(values, count)
        run.value(f"p3.{name}", mean.value, n=count, ci=mean, unit=unit)
        return mean

    run.value("p3.count.neurons", of.neurons)
    areas = [(a - g).mean(1) for a, g in zip(of.adversarial, of.gaussian, strict=True)]
    rows = []
    for k, (strength, name) in enumerate(zip(strengths, map(level, strengths), strict=True)):
        attack = over(of.adversarial[k][:, -1], f"coverage.{name}", "%")
        run.grouped(f"p3.coverage.{name}", {"each image alone": of.each[k]}, images=[images], factor=1)
        noise = over(of.gaussian[k][:, -1], f"coverage_gaussian.{name}", "%")
        area = over(areas[k], "coverage_gap" if k == one else f"coverage_gap.{name}", "points")
        row = {"strength": strength, "adversarial %": cell(attack), "Gaussian %": cell(noise)}
        rows.append({**row, "difference of the areas (points)": cell(area)})
    for name, side in (("coverage_change", of.adversarial), ("coverage_change_gaussian", of.gaussian)):
        over(side[-1][:, -1] - side[0][:, -1], name, "points")
    beside, noisy = of.with_clean
    for name, side in (("coverage_change", beside), ("coverage_change_gaussian", noisy)):
        over(side[-1][:, -1] - side[0][:, -1], f"{name}_with_clean", "points")
    for name, each in (("gaussian", noisy[one]), ("adversarial", beside[one]), ("second", of.second)):
        over((each - of.clean)[:, -1], f"coverage_gain_{name}", "points")
    compared = {
        "1 and 1, perturbed images only": ("coverage_gap", of.adversarial[one], of.gaussian[one]),
        "1 and 1, beside the clean ones": ("coverage_gap_with_clean", beside[one], noisy[one]),
        "1 and the lowest, beside the clean ones, as published": (
            "as_published.coverage_gap",
            beside[one],
            noisy[0],
        ),
    }
    gaps = []
    for title, (name, one_side, other) in compared.items():
        area = (one_side - other).mean(1)
        found = over_sequences(area, count) if name == "coverage_gap" else over(area, name, "points")
        row = {"strengths": title, "adversarial %": one_side[:, -1].mean(), "random %": other[:, -1].mean()}
        gaps.append({**row, "difference of the areas (points)": cell(found)})
    return rows, gaps


def over_sequences(values: Array, count: int) -> Estimate:
    """Return the mean over sequences with the range of 95 % of them; ``count`` examples."""
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(low), float(high), count)
