"""The model under attack: a :class:`~xaicore.core.batched_model.BatchedModel` that is asked which way a goal lies."""

from torch import Tensor

from xaicore.attacks.goal import Goal
from xaicore.core.batched_model import BatchedModel


class Victim(BatchedModel):
    """Logits and input gradients of the model under attack, in batches of one fixed shape."""

    def gradient(self, images: Tensor, goal: Goal) -> Tensor:
        """Return the gradient (N, C, H, W) of ``goal.score`` at ``images``, on the model's device."""
        return self.differentiate(images, lambda logits, part: goal[part].score(logits))[1]
