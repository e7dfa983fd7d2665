r"""A network in front of the network: what an image passes through before it is classified.

MagNet's reformer (Meng and Chen, MagNet: a Two-Pronged Defense against Adversarial Examples, CCS 2017, Sec. 4.3)
moves an image towards those it knows by replacing it with its reconstruction :math:`ae(x)`, learned from clean images
alone. For MNIST the paper takes the autoencoder of detector I. A :class:`Reformed` classifier, :math:`f(r(x))`, is
attacked as any other: its gradient goes through the reformer, which is what an attacker has who knows of it.
"""

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.core.fingerprint import code_digest, digest, module_fingerprint
from xaicore.defenses.base import Defended


class Reformed(Defended):
    """A classifier behind a reformer; itself a classifier of images in [0, 1], with gradients.

    Args:
        model: the classifier; used as it is, its weights are shared.
        reformer: images (N, C, H, W) in [0, 1] to images of the same shape; what it gives is cut to [0, 1].

    Attributes:
        reformer: what stands in front of the classifier; others as for :class:`~xaicore.defenses.base.Defended`.
    """

    def __init__(self, model: nn.Module, reformer: nn.Module) -> None:
        super().__init__(model)
        self.reformer = checks.module("reformer", reformer)
        self.eval()

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the classifier, the reformer and the code."""
        inner = module_fingerprint(self.model)
        kind = type(self.reformer)
        code = code_digest(kind) if kind.__module__.startswith("xaicore.") else kind.__qualname__
        before = digest(code, repr(self.reformer), dict(self.reformer.state_dict()))
        return digest("reformed", code_digest(Reformed), inner, before)

    def reform(self, images: Tensor) -> Tensor:
        """Return what the classifier is given, (N, C, H, W) in [0, 1]; the reformer must keep the shape."""
        reformed: Tensor = self.reformer(images)
        if reformed.shape != images.shape:
            raise UserError(
                f"reformer must keep the shape {tuple(images.shape)}, not give {tuple(reformed.shape)}"
            )
        # Black and white are inside: the gradient of clamp is 0 or 1 there, by the version of PyTorch.
        inside = (reformed >= 0) & (reformed <= 1)
        return torch.where(inside, reformed, reformed.detach().clamp(0, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of the reformed images; raises as :meth:`reform` does."""
        logits: Tensor = self.model(self.reform(images))
        return logits
