"""What all defences share: each is a classifier of its own, behind which stands the classifier it defends."""

import torch
from torch import nn

from xaicore.core import checks
from xaicore.core.devices import device_of

INHERITED = ("classes", "name", "channels", "input_size", "fixed_size", "options")


class Defended(nn.Module):
    """A classifier behind a defence; itself a classifier of images in [0, 1] that any attack takes as it is.

    Args:
        model: the classifier; used as it is, its weights are shared.

    Attributes:
        model: the classifier behind the defence.
        classes: its class names; ``name``, ``channels``, ``input_size``, ``fixed_size`` and ``options`` likewise.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = checks.module("model", model)
        for name in INHERITED:
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)
