"""Wilcoxon's rank test with the size of the effect beside the p-value, and Holm's correction for a family of tests.

Values that are no numbers raise TypeError; another shape, no value, values out of range or not finite ValueError.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from xaicore.core.errors import UserError
from xaicore.metrics.checks import sample


class RankTest(NamedTuple):
    """The outcome of a rank test.

    Attributes:
        statistic: Wilcoxon's sum of the positive ranks.
        p_value: in [0, 1], two-sided.
        effect: how far apart the two are, blind to n, in [-1, 1].
        n: number of pairs that the test rests on.
    """

    statistic: float
    p_value: float
    effect: float
    n: int


def wilcoxon(a: ArrayLike | Tensor, b: ArrayLike | Tensor) -> RankTest:
    """Test whether values measured on the same images tend to be larger in one setting than in another.

    Args:
        a: (n,) finite values, one per image.
        b: (n,) of the same images in the same order.

    Returns:
        Wilcoxon's signed-rank test by ``scipy.stats.wilcoxon`` on the pairs that differ, whose number is ``n``.
        ``effect`` is the matched-pairs rank-biserial correlation, (W+ − W−) / (W+ + W−): 1 where a is larger in all
        pairs, −1 in none. Where no pair differs, the p-value is 1 and the effect 0.

    References:
        Wilcoxon, Biometrics Bulletin 1, 1945; Kerby, Comprehensive Psychology 3, 2014.
    """
    first, second = sample("a", a), sample("b", b)
    if len(first) != len(second):
        raise UserError(f"a and b must have the same length, not {len(first)} and {len(second)}")
    differences = (first - second)[first != second]
    n = len(differences)
    if not n:
        return RankTest(0.0, 1.0, 0.0, 0)
    positive = float(stats.rankdata(np.abs(differences))[differences > 0].sum())
    p_value = float(stats.wilcoxon(differences).pvalue)
    return RankTest(positive, p_value, 4 * positive / (n * (n + 1)) - 1, n)


def holm(p_values: ArrayLike | Tensor) -> NDArray[np.float64]:
    r"""Return p-values corrected for a family of tests, such as one per layer (Holm's step-down procedure).

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Rejecting what is at most α then errs in any test of the family with probability at most α, whatever the tests
    have to do with each other.

    Args:
        p_values: (m,) in [0, 1].

    Returns:
        (m,) in the order given.

    References:
        Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    values = sample("p_values", p_values)
    if (values < 0).any() or (values > 1).any():
        raise UserError("p_values must lie in [0, 1]")
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(np.minimum(steps, 1))
    return corrected
