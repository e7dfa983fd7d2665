"""Differences of logits that attacks raise or bring to zero: the DLR losses, and the leads of rival classes.

With z the logits, y the label, t a target and pi the order of the classes by falling logit::

    DLR     -(z_y - max_{k != y} z_k) / (z_pi1 - z_pi3)                    Croce & Hein (2020), Eq. 6
    DLR, t  -(z_y - z_t) / (z_pi1 - (z_pi3 + z_pi4) / 2)                   Eq. 7

They change with neither scale nor shift of the logits. With fewer classes than they name, where their quotient would
be constant or not defined, they are the numerator alone.
"""

import torch
from torch import Tensor

from xaicore.attacks.goal import Goal

LEAST = 1e-12  # of the denominators, added to them as by the authors


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the DLR loss (n,) of ``logits`` (n, K), towards ``targets`` (n,) if given: the higher, the nearer."""
    if targets is None:
        lead, needed = Goal(labels, None).margin(logits), 3
    else:
        lead, needed = _lead(logits, labels, targets[:, None])[:, 0], 4
    if logits.shape[1] < needed:
        return lead
    top = logits.topk(needed, dim=1).values
    return lead / (top[:, 0] - top[:, 2:].mean(dim=1) + LEAST)


def rivals(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the wrong classes of highest logit, falling, int64 (n, m); m is ``count``, or K - 1 where that is less."""
    wrong = logits.detach().scatter(1, labels[:, None], -torch.inf)
    return wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices


def leads(logits: Tensor, goal: Goal, count: int, aims: Tensor | None = None) -> Tensor:
    """Return by how much a goal leads, (n, m): positive in one column where the goal is reached.

    Args:
        logits: (n, K).
        goal: the label and, if it is targeted, the target, which then has to lead the best other class: m is 1.
        count: as in :func:`rivals`; each of these classes is to lead the label.
        aims: (n,) int64, the class that is to lead the label in their place; None: the rivals.
    """
    if goal.target is not None:
        return goal.margin(logits)[:, None]
    return _lead(logits, goal.labels, rivals(logits, goal.labels, count) if aims is None else aims[:, None])


def _lead(logits: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes) - logits.gather(1, labels[:, None])
