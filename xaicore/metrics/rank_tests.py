"""Rank tests with the size of the effect beside the p-value, and Holm's correction for a family of them."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from xaicore.metrics.checks import sample

Alternative = Literal["two-sided", "less", "greater"]


class RankTest(NamedTuple):
    """The outcome of a rank test.

    Attributes:
        statistic: Mann and Whitney's U of a, or Wilcoxon's sum of the positive ranks.
        p_value: in [0, 1].
        effect: how far apart the two are, blind to n; what it is stands with each test.
        n: number of values that the test rests on.
    """

    statistic: float
    p_value: float
    effect: float
    n: int


def mann_whitney(
    a: ArrayLike | Tensor, b: ArrayLike | Tensor, *, alternative: Alternative = "two-sided"
) -> RankTest:
    """Test whether the values of one independent group tend to be larger than those of another.

    Args:
        a: (n,) finite values of one group of images.
        b: (m,) of the other.
        alternative: a against b: ``"greater"``, ``"less"`` or ``"two-sided"``.

    Returns:
        The test by ``scipy.stats.mannwhitneyu``. ``effect`` is the common-language effect size U / (n·m): how often
        a value of a is larger than one of b, ties counting one half; 0.5 for no difference. It is the AUROC of b
        (clean) against a. ``n`` is n + m. Where all values are the same, the p-value is 1.

    Raises:
        TypeError: the values are not numbers.
        ValueError: another shape, no value, NaN or infinite values, or an unknown alternative.

    References:
        Mann and Whitney, Ann. Math. Stat. 18, 1947; McGraw and Wong, Psychological Bulletin 111, 1992.
    """
    first, second = sample(a, "a"), sample(b, "b")
    found = stats.mannwhitneyu(first, second, alternative=_known(alternative))
    statistic = float(found.statistic)
    effect = statistic / (len(first) * len(second))
    # No two values differ: the test's statistic has no spread, and what SciPy returns depends on its version.
    tied = np.ptp(np.concatenate([first, second])) == 0
    return RankTest(statistic, 1.0 if tied else float(found.pvalue), effect, len(first) + len(second))


def wilcoxon(
    a: ArrayLike | Tensor, b: ArrayLike | Tensor, *, alternative: Alternative = "two-sided"
) -> RankTest:
    """Test whether values measured on the same images tend to be larger in one setting than in another.

    Args:
        a: (n,) finite values, one per image.
        b: (n,) of the same images in the same order.
        alternative: a against b: ``"greater"``, ``"less"`` or ``"two-sided"``.

    Returns:
        Wilcoxon's signed-rank test by ``scipy.stats.wilcoxon`` on the pairs that differ, whose number is ``n``.
        ``effect`` is the matched-pairs rank-biserial correlation, (W+ − W−) / (W+ + W−): 1 where a is larger in all
        pairs, −1 in none. Where no pair differs, the p-value is 1 and the effect 0.

    Raises:
        TypeError: the values are not numbers.
        ValueError: lengths differ, or as for :func:`mann_whitney`.

    References:
        Wilcoxon, Biometrics Bulletin 1, 1945; Kerby, Comprehensive Psychology 3, 2014.
    """
    first, second = sample(a, "a"), sample(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a and b must have the same length, not {len(first)} and {len(second)}")
    _known(alternative)
    differences = (first - second)[first != second]
    n = len(differences)
    if not n:
        return RankTest(0.0, 1.0, 0.0, 0)
    ranks = stats.rankdata(np.abs(differences))
    positive, total = float(ranks[differences > 0].sum()), n * (n + 1) / 2
    p_value = float(stats.wilcoxon(differences, alternative=alternative).pvalue)
    return RankTest(positive, p_value, 2 * positive / total - 1, n)


def holm(p_values: ArrayLike | Tensor) -> NDArray[np.float64]:
    r"""Return p-values corrected for a family of tests, such as one per layer (Holm's step-down procedure).

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Rejecting what is at most α then errs in any test of the family with probability at most α, whatever the tests
    have to do with each other.

    Args:
        p_values: (m,) in [0, 1].

    Returns:
        (m,) in the order given.

    Raises:
        TypeError: the values are not numbers.
        ValueError: another shape, no value, or values outside [0, 1].

    References:
        Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    values = sample(p_values, "p_values")
    if (values < 0).any() or (values > 1).any():
        raise ValueError("p_values must lie in [0, 1]")
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(np.minimum(steps, 1))
    return corrected


def _known(alternative: str) -> str:
    if alternative not in ("two-sided", "less", "greater"):
        raise ValueError(f"alternative must be two-sided, less or greater, not {alternative!r}")
    return alternative
