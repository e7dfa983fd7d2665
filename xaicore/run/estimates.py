"""The statistics that notebooks record, each a number with its 95 % interval over images.

Every method records under an id and returns the estimate in the unit of the record, or None where the images are too few
for an interval; then nothing is recorded. Bootstraps draw images (:mod:`xaicore.metrics.intervals`) with the run's seed.
The outcome of each image is kept beside its estimate, so that runs can be pooled (:mod:`xaicore.run.evidence`).
``images``, (N,) whole numbers, says which image of the set each is, so that other runs know it again; ``id`` and ``unit``
are everywhere those of :meth:`Estimates.estimate`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from numpy.typing import ArrayLike
from torch import Tensor

from xaicore import metrics
from xaicore.core.units import UNITS, check_range, known_unit
from xaicore.figures import display
from xaicore.metrics import Estimate
from xaicore.metrics.proportions import difference_of_shares
from xaicore.run.recorded import IDENTIFIER, range_unit

Values = ArrayLike | Tensor
Numbers = ArrayLike | Tensor | None
"""Of each image, its number in its set; None where it is not known."""


class Estimates:
    """What :class:`xaicore.run.records.Run` records with an interval.

    Attributes:
        seed: of the draws of the intervals.
        values: id → {value, n, ci, unit}, in the order recorded.
        outcomes: id → the outcomes behind the value, columns ``group``, ``image`` and ``outcome``, in its unit.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.values: dict[str, dict[str, Any]] = {}
        self.outcomes: dict[str, pd.DataFrame] = {}
        self._tables: dict[str, pd.DataFrame] = {}

    def value(
        self, id: str, number: Any, n: int | None = None, ci: Any = None, unit: str | None = None
    ) -> float:
        """Record a number.

        Args:
            id: lower-case letters, digits, ``_`` and ``.``; once in a run.
            number: a finite number (a one-element tensor will do).
            n: number of images it rests on, at least 1.
            ci: lower and upper end of its interval, a pair or something with ``low`` and ``high``.
            unit: one of :data:`xaicore.core.units.UNITS`, such as ``%`` or ``s``; None for a plain number.

        Returns:
            The number as a float.

        Raises:
            ValueError: the id is malformed or taken, the unit is not known, or a number is not finite, out of order or
                outside the range of its unit, or of what its name says: AUROC, NDCG, IoU and MOD are shares.
        """
        _claim(id, self.values)
        number = _finite(f"value {id}", number)
        if n is not None and (isinstance(n, bool) or int(n) != n or n < 1):
            raise ValueError(f"n of {id} must be a whole number of at least 1, got {n!r}")
        interval = None
        if ci is not None:
            low, high = (ci.low, ci.high) if hasattr(ci, "low") else ci
            interval = [_finite(f"interval of {id}", low), _finite(f"interval of {id}", high)]
            if interval[0] > interval[1]:
                raise ValueError(f"the interval of {id} must be (low, high), got {interval}")
        for each in (number, *(interval or ())):
            check_range(f"value {id}" if each is number else f"an end of the interval of {id}", each, unit)
        check_range(f"value {id}", number, range_unit(id, unit))
        self.values[id] = {"value": number, "n": None if n is None else int(n), "ci": interval, "unit": unit}
        return number

    def table(self, id: str, dataframe: pd.DataFrame) -> pd.DataFrame:
        """Record a table and return it; its index is written where it is named.

        Raises:
            ValueError: the id is malformed or taken.
            TypeError: it is not a dataframe.
        """
        _claim(id, self._tables)
        if not isinstance(dataframe, pd.DataFrame):
            raise TypeError(f"table {id} must be a pandas DataFrame, not a {type(dataframe).__name__}")
        self._tables[id] = dataframe.copy()
        return dataframe

    def show(self, id: str, frame: pd.DataFrame | list[dict[str, Any]]) -> HTML:
        """Record a table, or its rows, and return it as a cell shows it.

        A column may hold estimates, see ``xaicore.figures.display.spread``.
        """
        return display.table(self.table(id, display.spread(pd.DataFrame(frame))))

    def estimate(
        self,
        id: str,
        estimate: Estimate,
        unit: str | None = None,
        *,
        outcomes: Values | None = None,
        images: Numbers = None,
    ) -> Estimate:
        """Record an estimate and return it in its unit.

        This is the one place where a part of one becomes so many of its unit: an estimate of 0.25 is 25 in ``%`` and in
        ``points``, and 0.25 where the unit is no such one. An estimate that is not finite is returned, not recorded.

        Args:
            id: see :meth:`value`, as for the errors.
            estimate: in parts of one where ``unit`` is a percentage or the like, else in the unit.
            unit: one of :data:`xaicore.core.units.UNITS`.
            outcomes: (N,) or (N, K) of each image, in parts of one where the estimate is; NaN where there is none. With
                ``images`` these are what ``n`` counts. None: they are not kept.
            images: (N,), see the module.
        """
        factor = UNITS[known_unit(unit)].of_one
        estimate = estimate.scaled(factor)
        if np.isfinite(estimate.value):
            frame = None if outcomes is None else _frame(np.asarray(outcomes, dtype=float) * factor, images)
            if frame is not None and images is not None and len(frame):
                estimate = estimate._replace(n=frame["image"].nunique())
            self.value(id, estimate.value, n=estimate.n, ci=estimate, unit=unit)
            if frame is not None:
                self.outcomes[id] = frame
        return estimate

    def share(self, id: str, outcomes: Values, *, images: Numbers = None) -> Estimate | None:
        """Record how many of the outcomes are true, in percent, with Wilson's interval.

        Args:
            outcomes: (N,) booleans, one an image; None is recorded for N = 0.
        """
        true = np.asarray(outcomes, dtype=bool)
        if not len(true):
            return None
        interval = metrics.proportion_ci(int(true.sum()), len(true))
        estimate = Estimate(float(true.mean()), *interval, len(true))
        return self.estimate(id, estimate, "%", outcomes=true, images=images)

    def mean(
        self, id: str, values: Values, unit: str | None = None, *, least: int = 2, images: Numbers = None
    ) -> Estimate | None:
        """Record a mean with its bootstrap interval; Wilson's for shares of images, and where all are 0 or all are 1.

        Points are differences: where all are 0 the interval is Wilson's for 0 of n to either side.

        Args:
            values: (N,), or several for each image, (N, K); NaN where there is none. Rows that ``images`` gives the same
                number are of one image. ``n`` is how many images have a value.
            least: fewer images with a value are not recorded. One image has no interval: a mean of ``least=1`` may have
                one that is a point.
        """
        return self._mean(id, values, unit, least, images, difference=unit == "points")

    def change(
        self, id: str, before: Values, after: Values, unit: str | None = None, *, images: Numbers = None
    ) -> Estimate | None:
        """Record the mean of paired differences, after minus before, as :meth:`mean` does.

        Where no image changed, the interval is Wilson's for 0 of n to either side: as many may change either way.

        Args:
            before: (N,) or (N, K), NaN where there is none.
            after: of the same images.
        """
        values = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
        return self._mean(id, values, unit, 2, images, difference=True)

    def _mean(
        self, id: str, values: Values, unit: str | None, least: int, images: Numbers, *, difference: bool
    ) -> Estimate | None:
        given = np.asarray(values, dtype=float)
        given = given.reshape(len(given), -1) if len(given) else np.empty((0, 1))
        above, below = np.where(there := np.isfinite(given), given, 0).sum(1), there.sum(1)
        if images is not None and len(given):  # several rows of an image are drawn together
            place, _ = pd.factorize(np.asarray(images))
            above, below = np.bincount(place, above), np.bincount(place, below)
        rows = below > 0
        if (n := int(rows.sum())) < least:
            return None
        if difference and n > 1 and not given[there].any():
            most = metrics.proportion_ci(0, n).high
            found = Estimate(0.0, -most, most, n)
        else:
            above, below = above[rows], below[rows]
            once = bool((below == 1).all())
            if once and unit == "%" and not difference and np.isin(above, (0, 1)).all():
                found = Estimate(float(above.mean()), *metrics.proportion_ci(int(above.sum()), n), n)
            else:
                found = metrics.ratio(above, None if once else below, seed=self.seed)._replace(n=n)
        return self.estimate(id, found, unit, outcomes=given, images=images)

    def difference(
        self,
        id: str,
        first: Values,
        second: Values,
        unit: str | None = None,
        *,
        images: tuple[Values, Values] | None = None,
    ) -> Estimate | None:
        """Record the mean of one group of images minus that of another, independent one; ``n`` counts the smaller group.

        The interval is a bootstrap's; of two shares, whose outcomes are all 0 or 1, it is Newcombe's.

        Args:
            first: (N,); fewer than two are not recorded, nor is a comparison with nothing.
            second: (M,).
            images: (N,) and (M,), see the module.
        """
        one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
        if len(one) < 2 or not len(other):
            return None
        n = min(len(one), len(other))
        if np.isin(np.concatenate([one, other]), (0, 1)).all():
            found = difference_of_shares(one, other)._replace(n=n)
        else:
            interval = metrics.bootstrap_difference_ci(one, other, seed=self.seed)
            found = Estimate(one.mean() - other.mean(), *interval, n)
        estimate = self.estimate(id, found, unit)
        self.grouped(id, {"first": one, "second": other}, images=images)
        return estimate

    def median(
        self, id: str, values: Values, unit: str | None = None, *, lower: bool = False
    ) -> Estimate | None:
        """Record a median with its bootstrap interval.

        Args:
            values: (N,); fewer than two have no interval and are not recorded.
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

    def auroc(self, id: str, clean: Values, other: Values) -> Estimate | None:
        """Record how well scores tell other images from clean ones (:func:`xaicore.metrics.auroc`).

        Where the groups separate wholly the bootstrap has no width; the interval is then Wilson's for all of as many
        images as the smaller group has.

        Args:
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

    def detected(self, id: str, clean: Values, other: Values, *, fpr: float) -> Estimate | None:
        """Record the share of other images, in percent, that scores find where they flag ``fpr`` of the clean ones.

        Where so few draws of the bootstrap differ from 0, or from 1, that it has no width, the interval is Wilson's.

        Args:
            clean: (N,) scores; fewer than two of either are not recorded.
            other: (M,) scores; ``n`` is M.
            fpr: false-positive rate, see :func:`xaicore.metrics.tpr_at_fpr`.
        """
        if min(len(clean), len(other)) < 2:  # type: ignore[arg-type]
            return None
        interval = metrics.tpr_at_fpr_ci(clean, other, fpr=fpr, seed=self.seed)
        rate = metrics.tpr_at_fpr(clean, other, fpr=fpr).true_positive_rate
        if interval.low == interval.high and interval.low in (0, 1):
            interval = metrics.proportion_ci(round(rate * len(other)), len(other))  # type: ignore[arg-type]
        estimate = self.estimate(id, Estimate(rate, *interval, len(other)), "%")  # type: ignore[arg-type]
        self.grouped(id, {"clean": clean, "other": other}, factor=1)
        return estimate

    def grouped(
        self,
        id: str,
        groups: Mapping[str, Values],
        *,
        images: Sequence[Values] | None = None,
        factor: float | None = None,
    ) -> None:
        """Keep the outcomes of a recorded value that is no mean over images, each group by its name.

        Runs are pooled from them where the value is the mean of the group ``first`` minus that of ``second``.

        Args:
            id: of the value; where it was not recorded, nothing is kept.
            groups: name → (N,) or (N, K), NaN where there is none.
            images: (N,) of each group.
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


def _frame(values: np.ndarray, images: Numbers) -> pd.DataFrame:
    """Return outcomes (N,) or (N, K) as rows; NaN, where there is none, are left out."""
    given = values.reshape(len(values), -1)
    numbers = np.full(len(given), np.nan) if images is None else np.asarray(images, dtype=float)
    if numbers.shape != (len(given),):
        raise ValueError(f"images must be ({len(given)},), one for each outcome, got {numbers.shape}")
    frame = pd.DataFrame(
        {"group": None, "image": numbers.repeat(given.shape[1]), "outcome": given.reshape(-1)}
    )
    return frame[np.isfinite(frame["outcome"])].astype({"image": "Int64"})


def _claim(id: str, taken: Mapping[str, Any]) -> None:
    if not isinstance(id, str) or not IDENTIFIER.fullmatch(id):
        raise ValueError(f"id must be lower-case letters, digits, _ and ., got {id!r}")
    if id in taken:
        raise ValueError(f"the id {id} is recorded already")


def _finite(what: str, number: Any) -> float:
    try:
        plain = float(number)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} must be a number, got {number!r}") from error
    if not math.isfinite(plain):
        raise ValueError(f"{what} must be finite, got {plain}")
    return plain
