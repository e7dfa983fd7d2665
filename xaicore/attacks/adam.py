"""Adam for many images at once, each at its own step: Kingma & Ba (2015), Algorithm 1."""

import math

import torch
from torch import Tensor

from xaicore.attacks.lanes import rows

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Decay rates and the number that keeps the quotient finite, the values of the paper."""


def adam(
    m: Tensor, v: Tensor, gradient: Tensor, step: Tensor, learning_rate: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step that Adam takes, to be subtracted, and its two new running means.

    Args:
        m: (n, ...) running mean of the gradients, zero before the first step.
        v: (n, ...) running mean of their squares, zero before the first step.
        gradient: (n, ...), finite.
        step: (n,) number of this step for each row, counted from 1.
        learning_rate: one for all rows, or (n,).

    Returns:
        The update, m and v, each (n, ...).
    """
    power = step.to(gradient.dtype)
    m = BETA_1 * m + (1 - BETA_1) * gradient
    v = BETA_2 * v + (1 - BETA_2) * gradient.square()
    # 1 - beta^step, without the cancellation that costs float32 four digits at step 1.
    rate = learning_rate / -torch.expm1(power * math.log(BETA_1))
    spread = -torch.expm1(power * math.log(BETA_2))
    return rows(rate, m) * m / ((v / rows(spread, v)).sqrt() + EPSILON), m, v
