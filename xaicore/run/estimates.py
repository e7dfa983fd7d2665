"""The statistics that notebooks record, each a number with its 95 % interval over images.

Every method records under an id and returns the estimate in the unit of the record, or None where the images are too few
for an interval; then nothing is recorded. Bootstraps draw images (:mod:`xaicore.metrics.intervals`) with the run's seed.
The outcome of each image is kept beside its estimate, so that runs can be pooled (:mod:`xaicore.run.evidence`).
``images``, (N,) whole numbers, says which image of the set each is, so that other runs know it again.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from numpy.typing import ArrayLike
from torch import Tensor

from xaicore import metrics
from xaicore.core.units import UNITS, known_unit
from xaicore.figures import display
from xaicore.metrics import Estimate
from xaicore.metrics.proportions import difference_of_shares


class Estimates(abc.ABC):
    """What :class:`xaicore.run.records.Run` records with an interval.

    Attributes:
        seed: of the draws of the intervals.
        values: id → the number as it is recorded.
        outcomes: id → the outcomes behind the value, columns ``group``, ``image`` and ``outcome``, in its unit.
    """

    seed: int
    values: dict[str, dict[str, Any]]
    outcomes: dict[str, pd.DataFrame]

    @abc.abstractmethod
    def value(
        self, id: str, number: Any, n: int | None = None, ci: Any = None, unit: str | None = None
    ) -> float:
        """Record a number that is in its unit already; see :meth:`xaicore.run.records.Run.value`."""

    @abc.abstractmethod
    def table(self, id: str, dataframe: pd.DataFrame) -> pd.DataFrame:
        """Record a table; see :meth:`xaicore.run.records.Run.table`."""

    def show(self, id: str, frame: pd.DataFrame | list[dict[str, Any]]) -> HTML:
        """Record a table, or its rows, and return it as a cell shows it."""
        return display.table(self.table(id, pd.DataFrame(frame)))

    def estimate(
        self,
        id: str,
        estimate: Estimate,
        unit: str | None = None,
        *,
        outcomes: ArrayLike | Tensor | None = None,
        images: ArrayLike | Tensor | None = None,
    ) -> Estimate:
        """Record an estimate and return it in its unit.

        This is the one place where a part of one becomes so many of its unit: an estimate of 0.25 is 25 in ``%`` and in
        ``points``, and 0.25 where the unit is no such one. An estimate that is not finite is returned, not recorded.

        Args:
            id: see :meth:`value`, as for the errors.
            estimate: in parts of one where ``unit`` is a percentage or the like, else in the unit.
            unit: one of :data:`xaicore.core.units.UNITS`.
            outcomes: (N,) or (N, K) of each image, in parts of one where the estimate is; NaN where there is none. None:
                they are not kept.
            images: (N,), see the module.
        """
        factor = UNITS[known_unit(unit)].of_one
        estimate = estimate.scaled(factor)
        if np.isfinite(estimate.value):
            self.value(id, estimate.value, n=estimate.n, ci=estimate, unit=unit)
            if outcomes is not None:
                self.outcomes[id] = _frame(np.asarray(outcomes, dtype=float) * factor, images)
        return estimate

    def share(
        self, id: str, outcomes: ArrayLike | Tensor, *, images: ArrayLike | Tensor | None = None
    ) -> Estimate | None:
        """Record how many of the outcomes are true, in percent, with Wilson's interval.

        Args:
            id: see :meth:`value`.
            outcomes: (N,) booleans, one an image; None is recorded for N = 0.
            images: (N,), see the module.
        """
        true = np.asarray(outcomes, dtype=bool)
        if not len(true):
            return None
        interval = metrics.proportion_ci(int(true.sum()), len(true))
        estimate = Estimate(float(true.mean()), *interval, len(true))
        return self.estimate(id, estimate, "%", outcomes=true, images=images)

    def mean(
        self,
        id: str,
        values: ArrayLike | Tensor,
        unit: str | None = None,
        *,
        least: int = 2,
        images: ArrayLike | Tensor | None = None,
    ) -> Estimate | None:
        """Record a mean with its bootstrap interval; Wilson's where all values are 0 or all are 1.

        Points are differences: where all are 0 the interval is Wilson's for 0 of n to either side.

        Args:
            id: see :meth:`value`.
            values: (N,), or several for each image, (N, K); NaN where there is none. ``n`` is how many there are.
            unit: see :meth:`estimate`.
            least: fewer images with a value are not recorded. One image has no interval: a mean of ``least=1`` may have
                one that is a point.
            images: (N,), see the module.
        """
        given = np.asarray(values, dtype=float)
        given = given.reshape(len(given), -1) if len(given) else np.empty((0, 1))
        there = np.isfinite(given)
        rows = there.any(1)
        if rows.sum() < least:
            return None
        if unit == "points" and rows.sum() > 1 and not given[there].any():
            return self._unchanged(id, given, int(rows.sum()), unit, images)
        above, below = np.where(there, given, 0).sum(1)[rows], there.sum(1)[rows]
        single = (below == 1).all()
        estimate = metrics.ratio(above, None if single else below, seed=self.seed)
        return self.estimate(id, estimate, unit, outcomes=given, images=images)

    def change(
        self,
        id: str,
        before: ArrayLike | Tensor,
        after: ArrayLike | Tensor,
        unit: str | None = None,
        *,
        images: ArrayLike | Tensor | None = None,
    ) -> Estimate | None:
        """Record the mean of paired differences, after minus before, as :meth:`mean` does.

        Where no image changed, the interval is Wilson's for 0 of n to either side: as many may change either way.

        Args:
            id: see :meth:`value`.
            before: (N,) or (N, K), NaN where there is none.
            after: of the same images.
            unit: see :meth:`estimate`.
            images: (N,), see the module.
        """
        values = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
        there = np.isfinite(values)
        n = int(there.reshape(len(values), -1).any(1).sum()) if len(values) else 0
        if n > 1 and not values[there].any():
            return self._unchanged(id, values, n, unit, images)
        return self.mean(id, values, unit, images=images)

    def difference(
        self,
        id: str,
        first: ArrayLike | Tensor,
        second: ArrayLike | Tensor,
        unit: str | None = None,
        *,
        images: tuple[ArrayLike | Tensor, ArrayLike | Tensor] | None = None,
    ) -> Estimate | None:
        """Record the mean of one group of images minus that of another, independent one; ``n`` counts the first.

        The interval is a bootstrap's; of two shares, whose outcomes are all 0 or 1, it is Newcombe's.

        Args:
            id: see :meth:`value`.
            first: (N,); fewer than two are not recorded.
            second: (M,).
            unit: see :meth:`estimate`.
            images: (N,) and (M,), see the module.
        """
        one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
        if len(one) < 2:
            return None
        if np.isin(np.concatenate([one, other]), (0, 1)).all() and len(other):
            found = difference_of_shares(one, other)
        else:
            interval = metrics.bootstrap_difference_ci(one, other, seed=self.seed)
            found = Estimate(one.mean() - other.mean(), *interval, len(one))
        estimate = self.estimate(id, found, unit)
        self.grouped(id, {"first": one, "second": other}, images=images)
        return estimate

    def median(
        self, id: str, values: ArrayLike | Tensor, unit: str | None = None, *, lower: bool = False
    ) -> Estimate | None:
        """Record a median with its bootstrap interval.

        Args:
            id: see :meth:`value`.
            values: (N,); fewer than two have no interval and are not recorded.
            unit: see :meth:`estimate`.
            lower: of the two values in the middle of an even number take the lower one, as ``torch.median`` does, not
                their mean.
        """
        given = np.asarray(values, dtype=float)
        if len(given) < 2:
            return None
        interval = metrics.bootstrap_ci(given, statistic="median", seed=self.seed)
        middle = np.quantile(given, 0.5, method="inverted_cdf") if lower else np.median(given)
        estimate = self.estimate(id, Estimate(float(middle), *interval, len(given)), unit)
        self.grouped(id, {"all": given})
        return estimate

    def auroc(self, id: str, clean: ArrayLike | Tensor, other: ArrayLike | Tensor) -> Estimate | None:
        """Record how well scores tell other images from clean ones (:func:`xaicore.metrics.auroc`).

        Where the groups separate wholly the bootstrap has no width; the interval is then Wilson's for all of as many
        images as the smaller group has.

        Args:
            id: see :meth:`value`.
            clean: (N,) scores; fewer than two of either are not recorded.
            other: (M,) scores; ``n`` is M.
        """
        if min(len(clean), len(other)) < 2:  # type: ignore[arg-type]
            return None
        area, interval = metrics.auroc(clean, other), metrics.auroc_ci(clean, other, seed=self.seed)
        if interval.low == interval.high and area in (0, 1):
            fewer = min(len(clean), len(other))  # type: ignore[arg-type]
            interval = metrics.proportion_ci(int(area) * fewer, fewer)
        estimate = self.estimate(id, Estimate(area, *interval, len(other)))  # type: ignore[arg-type]
        self.grouped(id, {"clean": clean, "other": other})
        return estimate

    def detected(
        self, id: str, clean: ArrayLike | Tensor, other: ArrayLike | Tensor, *, fpr: float
    ) -> Estimate | None:
        """Record the share of other images, in percent, that scores find where they flag ``fpr`` of the clean ones.

        Args:
            id: see :meth:`value`.
            clean: (N,) scores; fewer than two of either are not recorded.
            other: (M,) scores; ``n`` is M.
            fpr: false-positive rate, see :func:`xaicore.metrics.tpr_at_fpr`.
        """
        if min(len(clean), len(other)) < 2:  # type: ignore[arg-type]
            return None
        interval = metrics.tpr_at_fpr_ci(clean, other, fpr=fpr, seed=self.seed)
        rate = metrics.tpr_at_fpr(clean, other, fpr=fpr).true_positive_rate
        estimate = self.estimate(id, Estimate(rate, *interval, len(other)), "%")  # type: ignore[arg-type]
        self.grouped(id, {"clean": clean, "other": other}, factor=1)
        return estimate

    def _unchanged(
        self, id: str, values: np.ndarray, n: int, unit: str | None, images: ArrayLike | Tensor | None
    ) -> Estimate:
        """Record a difference that is 0 in each of n images."""
        most = metrics.proportion_ci(0, n).high
        return self.estimate(id, Estimate(0.0, -most, most, n), unit, outcomes=values, images=images)

    def grouped(
        self,
        id: str,
        groups: Mapping[str, ArrayLike | Tensor],
        *,
        images: Sequence[ArrayLike | Tensor] | None = None,
        factor: float | None = None,
    ) -> None:
        """Keep the outcomes of a recorded value that is no mean over images, each group by its name.

        Runs are pooled from them where the value is the mean of the group ``first`` minus that of ``second``.

        Args:
            id: of the value; where it was not recorded, nothing is kept.
            groups: name → (N,) or (N, K), NaN where there is none.
            images: (N,) of each group, see the module.
            factor: what the outcomes are multiplied by; None: as many of the value's unit as make one.
        """
        if id not in self.values:
            return
        factor = UNITS[self.values[id]["unit"]].of_one if factor is None else factor
        numbers = [None] * len(groups) if images is None else images
        frames = [
            _frame(np.asarray(values, dtype=float) * factor, each).assign(group=name)
            for (name, values), each in zip(groups.items(), numbers, strict=True)
        ]
        self.outcomes[id] = pd.concat(frames, ignore_index=True)


def _frame(values: np.ndarray, images: ArrayLike | Tensor | None) -> pd.DataFrame:
    """Return outcomes (N,) or (N, K) as rows; NaN, where there is none, are left out."""
    given = values.reshape(len(values), -1)
    numbers = np.full(len(given), np.nan) if images is None else np.asarray(images, dtype=float)
    if numbers.shape != (len(given),):
        raise ValueError(f"images must be ({len(given)},), one for each outcome, got {numbers.shape}")
    frame = pd.DataFrame(
        {"group": None, "image": numbers.repeat(given.shape[1]), "outcome": given.reshape(-1)}
    )
    return frame[np.isfinite(frame["outcome"])].astype({"image": "Int64"})
