"""The autoencoders of MagNet: a few sigmoid convolutions that learn to take noise off clean images.

Meng and Chen (CCS 2017), their architectures for MNIST and their training: the mean squared error between the clean image
and the reconstruction of a noisy copy, by Adam. Weights start as Keras' do (Glorot and Bengio 2010).
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from xaicore.core.randomness import stream
from xaicore.core.undisturbed import exact_arithmetic

CHANNELS = 3
ACTIVITY = 1e-9
"""Weight of the squared activations of all convolutions, as in the authors' code."""


class Autoencoder(nn.Module):
    """Convolutions of 3 x 3 with sigmoids: with a bottleneck of half the size (detector I, reformer), or without (II).

    Its weights are not set: :func:`trained_autoencoder` draws and trains them.

    Args:
        colours: channels of the images.
        bottleneck: whether the image is averaged over 2 x 2 pixels after the first convolution and enlarged again.
    """

    def __init__(self, colours: int, *, bottleneck: bool) -> None:
        super().__init__()
        widths = [colours, *[CHANNELS] * (4 if bottleneck else 2), colours]
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Conv2d, before, after, 3, padding=1) for before, after in pairwise(widths)
        )
        self.bottleneck = bottleneck

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstructions (N, C, H, W), in (0, 1); with a bottleneck, sides must be even."""
        return self.activations(images)[-1]

    def activations(self, images: Tensor) -> list[Tensor]:
        """Return what each convolution gives after its sigmoid."""
        found = []
        values = images
        for place, layer in enumerate(self.layers):
            if self.bottleneck and place == 1:
                values = nn.functional.avg_pool2d(values, 2)
            if self.bottleneck and place == 3:
                values = nn.functional.interpolate(values, scale_factor=2.0, mode="nearest")
            values = torch.sigmoid(layer(values))
            found.append(values)
        return found


def trained_autoencoder(
    images: Tensor,
    *,
    bottleneck: bool,
    noise: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
) -> Autoencoder:
    """Return an autoencoder that has learned from clean images, in eval mode and frozen.

    Args:
        images: (N, C, H, W) in [0, 1].
        bottleneck: as in :class:`Autoencoder`.
        seed: of weights, order and noise.
        device: where it computes; the other numbers are those of :func:`fit_denoising`.
    """
    network = Autoencoder(images.shape[1], bottleneck=bottleneck)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(noisy: Tensor, clean: Tensor) -> Tensor:
        activations = network.activations(noisy.contiguous(memory_format=torch.channels_last))
        squares = sum(values.square().sum() for values in activations) / len(clean)
        return nn.functional.mse_loss(activations[-1], clean) + ACTIVITY * squares

    fit_denoising(
        network,
        loss,
        images,
        images,
        noise=noise,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        stability=1e-7,
        draws=stream(seed, int(bottleneck)),
        device=device,
    )
    return network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]


def fit_denoising(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    corrupted: Tensor,
    clean: Tensor,
    *,
    noise: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    stability: float,
    draws: np.random.Generator,
    device: torch.device,
) -> None:
    """Draw the weights of ``network`` and train it by Adam to give clean images; it ends in eval mode and frozen.

    Args:
        network: of convolutions and linear layers with biases.
        loss: (noisy, clean), each (n, C, H, W) -> scalar.
        corrupted: (N, C, H, W) in [0, 1], what goes in, with Gaussian noise and cut to [0, 1].
        clean: images of the same shape, what is to come out.
        noise: standard deviation of the noise.
        epochs: passes over the images.
        batch_size: images in an update.
        learning_rate: of Adam.
        stability: Adam's epsilon.
        draws: source of weights, order and noise.
        device: where it computes.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert layer.bias is not None
            ends = layer.weight.shape[0] + layer.weight.shape[1]
            spread = math.sqrt(6 / (layer.weight[0, 0].numel() * ends))  # Glorot and Bengio 2010
            start = draws.uniform(-spread, spread, tuple(layer.weight.shape))
            layer.weight.data.copy_(torch.from_numpy(start))
            layer.bias.data.zero_()
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, eps=stability)
    with exact_arithmetic(device), torch.enable_grad():
        for _ in range(epochs):
            order = torch.from_numpy(draws.permutation(len(clean)))
            for chosen in order.split(batch_size):
                drawn = draws.standard_normal((len(chosen), *clean.shape[1:]), dtype="float32")
                noisy = corrupted[chosen].to(device) + noise * torch.from_numpy(drawn).to(device)
                value = loss(noisy.clamp(0, 1), clean[chosen].to(device))
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    network.eval().requires_grad_(False)
