r"""Contrastive relevance: what speaks for one class and not as much for the others.

Relevance of the target is compared with relevance of the other classes, both by bounded deep Taylor decomposition
(:func:`~xaicore.attribution.lrp` with ``deep-taylor-bounded``) from one forward pass, the second scaled to the same
sum in each image:

.. math:: h = h^+ - h^- \frac{\sum h^+}{\sum h^-}.

:math:`h^+` starts from the target :math:`t`, :math:`h^-` from the other classes :math:`n` of :math:`N`:

==========================  ==============================  ==================================
\                           start of :math:`h^+`            start of :math:`h^-`
==========================  ==============================  ==================================
CLRP (Gu et al., 2018)      :math:`z_t`                     :math:`z_t/(N - 1)` on each
SGLRP (Iwana et al., 2019)  :math:`p_t (1 - p_t)`           :math:`p_n p_t`
==========================  ==============================  ==================================

with the logits :math:`z` and their softmax :math:`p`. Propagation is linear in its start, so both start from
a total of 1 here and the scale is applied at the end: a saturated softmax then loses nothing to rounding.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xaicore.attribution.propagation import Pass, Propagation
from xaicore.attribution.relevance import by_propagation

Start = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits (N, K), chosen (N, 1)) -> scale (N, 1) and shares of the classes in the start of h⁻, (N, K)."""


def clrp(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    batch_size: int = 32,
) -> Tensor:
    """Return contrastive relevance (CLRP): the target against all other classes alike.

    An image whose target has no positive logit gets an all-zero heatmap, as deep Taylor decomposition has
    nothing to say of it. Where the other classes hand down nothing, nothing is subtracted.

    Arguments and errors are those of :func:`~xaicore.attribution.lrp`; the model has at least two classes.

    Returns:
        (N, C, H, W): positive where the input speaks for the target more than for the other classes.
        Where something is subtracted, the values of an image sum to 0.

    References:
        Gu, Yang, Tresp: Understanding Individual Decisions of CNNs via Contrastive Backpropagation, ACCV
        2018 (CLRP2; with the scaling of Brama and Grinshpoun, 2020, and without the final
        maximum with 0).
    """
    return _contrast(_alike, model, images, targets, low, high, batch_size)


def sglrp(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    batch_size: int = 32,
) -> Tensor:
    """Return softmax-gradient relevance (SGLRP): the target against the others by their probabilities.

    Arguments, result and errors are those of :func:`clrp`. The start is made of probabilities, so the sign of
    the target's logit does not matter. Where the target's probability is 1 to float32 (a gap of 100 between
    logits and more) the heatmap is all zero, as the gradient of the softmax is.

    References:
        Iwana, Kuroki, Uchida: Explaining Convolutional Neural Networks using Softmax Gradient Layer-wise
        Relevance Propagation, ICCV workshops 2019 (both signs propagated apart, as in CLRP).
    """
    return _contrast(_by_probability, model, images, targets, low, high, batch_size)


def _alike(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    others = torch.ones_like(logits).scatter_(1, chosen, 0) / (logits.shape[1] - 1)
    return logits.gather(1, chosen).clamp(min=0), others


def _by_probability(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    without_target = logits.scatter(1, chosen, -torch.inf)
    others = without_target.logsumexp(1, keepdim=True) - logits.logsumexp(1, keepdim=True)  # log(1 - p_t)
    target = logits.log_softmax(1).gather(1, chosen)
    return (target + others).exp(), without_target.softmax(1)


def _contrast(
    start: Start,
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None,
    low: float | Tensor | None,
    high: float | Tensor | None,
    batch_size: int,
) -> Tensor:
    def explain(propagation: Propagation, forward: Pass, chosen: Tensor) -> Tensor:
        if forward.logits.shape[1] < 2:
            raise ValueError("model must have at least two classes to contrast")
        scale, others = start(forward.logits, chosen[:, None])
        target = torch.zeros_like(others).scatter_(1, chosen[:, None], 1)
        positive, negative = (propagation.backward(forward, relevance) for relevance in (target, others))
        sums = [part.sum((1, 2, 3), keepdim=True) for part in (positive, negative)]
        ratio = torch.where(sums[1] == 0, 0, sums[0] / sums[1])
        return scale[:, :, None, None] * (positive - negative * ratio)

    return by_propagation(explain, model, images, targets, "deep-taylor-bounded", 0.0, low, high, batch_size)
