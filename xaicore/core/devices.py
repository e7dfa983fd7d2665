"""Where a model computes."""

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters of ``model`` are; the CPU if it has none."""
    first = next(model.parameters(), None)
    return first.device if first is not None else torch.device("cpu")
