"""A network with one logit for two classes, as a classifier with two."""

import torch
from torch import Tensor, nn

from xaicore.core.devices import device_of
from xaicore.core.errors import UserError
from xaicore.core.outputs import checked_logits


class TwoLogits(nn.Module):
    """Two logits (-z/2, z/2) from a model's one logit z.

    Their difference is z to the last bit, so that the softmax of class 1 is the sigmoid of z, the prediction is 1
    where z > 0, and the margin of class 1 is z. The two come from a linear layer without bias, which explanations by
    relevance know.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, 1) or (N,) logits z, before the sigmoid; used as it is, not copied.

    Raises:
        UserError: in a forward pass, ``model`` gives something else.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        kind = next((each.dtype for each in model.parameters()), torch.get_default_dtype())
        self.halves = nn.utils.skip_init(nn.Linear, 1, 2, bias=False, device=device_of(model))
        halves = torch.tensor([[-0.5], [0.5]], device=device_of(model), dtype=kind)
        self.halves.weight = nn.Parameter(halves, requires_grad=False)
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, 2) of images (N, C, H, W)."""
        z = self.model(images)
        if isinstance(z, Tensor) and z.ndim == 1:
            z = z[:, None]
        z = checked_logits(z, len(images), fewest=1)
        if z.shape[1] > 1:
            raise UserError(f"TwoLogits takes a model with one logit, not {z.shape[1]}: use the model itself")
        logits: Tensor = self.halves(z)
        return logits
