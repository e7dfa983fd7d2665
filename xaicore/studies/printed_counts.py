"""What the numbers printed in paper 1 imply, beside what they are said to show (Klawikowska et al. 2020, Sec. 4.2)."""

import math


def two_proportions(turned: float, of: float, other_turned: float, other_of: float) -> float:
    """Return z of the difference of two shares with their pooled variance: above 2 or below -2 it is hardly chance.

    Args:
        turned: images of the first kind that were turned.
        of: images of that kind, more than 0.
        other_turned: of the second kind.
        other_of: likewise.

    Returns:
        z, NaN where none or all of both kinds were turned, or a number is NaN.
    """
    pooled = (turned + other_turned) / (of + other_of)
    variance = pooled * (1 - pooled) * (1 / of + 1 / other_of)
    return (turned / of - other_turned / other_of) / math.sqrt(variance) if variance > 0 else math.nan
