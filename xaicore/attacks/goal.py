"""What an attack is after: lower the odds of the true class, or raise those of a target class.

The objective is the log-odds of a class y under the softmax::

    log p_y / (1 - p_y) = z_y - log sum_{k != y} exp z_k .

It rises and falls with the probability p_y and with the cross-entropy -log p_y, so that ranking candidates by
any of the three is the same; and its gradient is that of log p_y divided by 1 - p_y > 0, so that a *sign*
step is the same too. In float32, however, log p_y is exactly 0 at logit gaps over about 17, where its
gradient loses the part of the true class, and over about 103 the gradient is exactly 0: the attack silently
does nothing. The log-odds never saturate.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xaicore.core import checks


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """Return log p/(1-p), (N,), of ``classes`` (N,) under the softmax of ``logits`` (N, K), K at least 2."""
    column = classes[:, None]
    rest = logits.scatter(1, column, -torch.inf).logsumexp(dim=1)
    return logits.gather(1, column).squeeze(1) - rest


@dataclass(frozen=True)
class Goal:
    """The true class of each image and, for a targeted attack, the class wanted instead; both (N,) int64."""

    labels: Tensor
    target: Tensor | None

    @classmethod
    def of(cls, labels: Any, target: Any, images: Tensor) -> "Goal":
        """Return the goal of an attack on ``images`` (N, C, H, W), on their device.

        Raises:
            TypeError: an argument is of the wrong kind.
            UserError: a shape or type does not fit, or a target is the label itself.
        """
        true = checks.integers("labels", labels, len(images)).to(images.device)
        return cls(true, checks.target(target, true))

    def check_classes(self, count: int) -> None:
        """Raise UserError unless all labels and targets lie in 0..count-1."""
        checks.classes_in_range("labels", self.labels, count)
        if self.target is not None:
            checks.classes_in_range("target", self.target, count)

    def __getitem__(self, which: slice | Tensor) -> "Goal":
        return Goal(self.labels[which], None if self.target is None else self.target[which])

    def to(self, device: torch.device) -> "Goal":
        """Return the same goal with its classes on ``device``."""
        return Goal(self.labels.to(device), None if self.target is None else self.target.to(device))

    def score(self, logits: Tensor) -> Tensor:
        """Return the log-odds against the label, or of the target, (N,): the higher, the nearer the goal."""
        return -log_odds(logits, self.labels) if self.target is None else log_odds(logits, self.target)

    def margin(self, logits: Tensor) -> Tensor:
        """Return the lead of the best wrong class over the label, or of the target over all others, (N,).

        Positive where the goal is reached; -f of Carlini & Wagner (2017), Eq. 6 of Sec. V, without its confidence.
        """
        chosen = self.labels if self.target is None else self.target
        own = logits.gather(1, chosen[:, None]).squeeze(1)
        rest = logits.scatter(1, chosen[:, None], -torch.inf).amax(dim=1)
        return rest - own if self.target is None else own - rest

    def attained(self, logits: Tensor, confidence: float = 0.0) -> Tensor:
        """Return where the margin is at least ``confidence`` and more than rounding, (n,) bool.

        Attacks that look for the smallest change end beside the border, where the last bits of the logits
        decide; these differ with the size of the batch. What counts here is a success in any batch.
        """
        rounding = 1e-5 * logits.abs().amax(dim=1)
        return self.margin(logits) >= rounding.clamp(min=max(confidence, 1e-12))

    def reached(self, logits: Tensor) -> Tensor:
        """Return where the prediction is not the label, or is the target, (N,) bool; never at NaN logits."""
        predicted = logits.argmax(dim=1)
        there = predicted != self.labels if self.target is None else predicted == self.target
        return there & logits.isfinite().all(dim=1)
