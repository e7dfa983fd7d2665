"""Differences of two shares of independent groups, with an interval that has a width also where no outcome varies."""

import numpy as np
from numpy.typing import ArrayLike

from xaicore.core.errors import UserError
from xaicore.metrics.intervals import Estimate, proportion_ci


def difference_of_shares(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Estimate:
    r"""Return the share of true outcomes in one group minus that in another, with Newcombe's interval.

    With Wilson's limits l, u of each share p, the difference d = p_1 − p_2 lies between

    .. math:: d - \sqrt{(p_1 - l_1)^2 + (u_2 - p_2)^2}, \qquad d + \sqrt{(u_1 - p_1)^2 + (p_2 - l_2)^2}

    Args:
        first: (N,) booleans, one an image, N at least 1.
        second: (M,) of other images, M at least 1.
        level: confidence level, between 0 and 1.

    Returns:
        The difference, in [-1, 1]; ``n`` is N.

    Raises:
        UserError: a group is empty.

    References:
        Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17,
        1998, method 10.
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if not len(one) or not len(other):
        raise UserError("first and second must each have an outcome")
    p, q = float(one.mean()), float(other.mean())
    of_p = proportion_ci(int(one.sum()), len(one), level=level)
    of_q = proportion_ci(int(other.sum()), len(other), level=level)
    below = ((p - of_p.low) ** 2 + (of_q.high - q) ** 2) ** 0.5
    above = ((of_p.high - p) ** 2 + (q - of_q.low) ** 2) ** 0.5
    return Estimate(p - q, p - q - below, p - q + above, len(one))
