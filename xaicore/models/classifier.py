"""The classifier that everything else works on: images in [0, 1] in, logits out, normalisation inside."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.core.fingerprint import checksum, digest
from xaicore.models.batchnorm import fold, has_batchnorm

FOLD_TOLERANCE = 1e-4


class Classifier(nn.Module):
    """A network with its input normalisation and its class names.

    Args:
        network: maps normalised images (N, C, H, W) to logits (N, K).
        classes: the K class names.
        name: the architecture's name.
        mean: per-channel mean of the normalisation (x − mean)/std.
        std: per-channel standard deviation.
        input_size: side of the square images the network is made for.
        fixed_size: whether it takes images of that size only.
        options: what else the architecture was built with (width, …), for records and
            :func:`xaicore.models.save`.

    Raises:
        ValueError: mean and std do not agree, or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: Sequence[str],
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: int,
        fixed_size: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ValueError("mean and std must have one value per channel, std positive")
        self.network = network
        self.classes = tuple(classes)
        self.name = name
        self.input_size = input_size
        self.fixed_size = fixed_size
        self.options = dict(options or {})
        self._fingerprint = ("", "")
        for buffer, values in (("mean", mean), ("std", std)):
            value = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(buffer, value, persistent=False)
        self.eval()

    @property
    def channels(self) -> int:
        """Number of colour channels of the images, 1 or 3."""
        return int(self.mean.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.mean.device

    def normalize(self, images: Tensor) -> Tensor:
        """Return (images − mean)/std, the input of :attr:`network`, of images (N, C, H, W) in [0, 1]."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W), float in [0, 1].

        Raises:
            ValueError: the shape does not fit this model.
            TypeError: ``images`` is not a float tensor.
        """
        if not isinstance(images, Tensor) or not images.is_floating_point():
            raise TypeError("images must be a float tensor with values in [0, 1]")
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"images must be (N, {self.channels}, H, W) for {self.name}, got {tuple(images.shape)}"
            )
        if self.fixed_size and tuple(images.shape[2:]) != (self.input_size, self.input_size):
            height, width = images.shape[2:]
            raise ValueError(
                f"images must be {self.input_size}x{self.input_size} for {self.name}, got {height}x{width}"
            )
        logits: Tensor = self.network(self.normalize(images))
        return logits

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of architecture, normalisation, parameters and buffers.

        Kept until any of them changes. A change is found by the CRC-32 of all bytes, ten times as fast as sha256: other
        traces of one, such as a tensor's version, miss writes through ``.data``.
        """
        architecture = (self.name, len(self.classes), self.input_size, self.options, repr(self.network))
        weights = self.network.state_dict()
        sums = {name: checksum(tensor) for name, tensor in weights.items()}
        traced = digest(architecture, sums, self.mean, self.std)
        if self._fingerprint[0] != traced:
            self._fingerprint = (traced, digest("classifier", architecture, self.mean, self.std, weights))
        return self._fingerprint[1]

    def fold_batchnorm(self) -> "Classifier":
        """Return a copy without batch normalisation that computes the same logits (eval mode).

        Raises:
            ValueError: the network's normalisations do not each follow a convolution.
            ArithmeticError: the folded network differs by more than rounding; nothing should rely on it then.
        """
        folded = copy.deepcopy(self).eval()
        if has_batchnorm(folded.network):
            fold(folded.network)
            folded.options["batch_norm"] = False
            probe = torch.linspace(0, 1, self.channels * self.input_size**2, device=self.device)
            probe = probe.view(1, self.channels, self.input_size, self.input_size)
            reference = copy.deepcopy(self).eval() if self.training else self
            with torch.no_grad():
                one, other = reference(probe), folded(probe)
            error = float((one - other).abs().max() / one.abs().max().clamp_min(1.0))
            if not error < FOLD_TOLERANCE:
                raise ArithmeticError(
                    f"folding batch normalisation changed {self.name}'s logits by {error:.1e}"
                )
        return folded
