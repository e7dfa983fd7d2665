"""The autoencoders of MagNet: a few sigmoid convolutions that learn to take noise off clean images.

Meng and Chen (CCS 2017), their architectures for MNIST and their training: the mean squared error between the clean image
and the reconstruction of a noisy copy, by Adam. Weights start as Keras' do (Glorot and Bengio 2010).
"""

import math
from itertools import pairwise

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
        noise: standard deviation of the Gaussian noise on its inputs, which are cut to [0, 1].
        epochs: passes over the images.
        batch_size: images in an update.
        learning_rate: of Adam.
        seed: of weights, order and noise.
        device: where it computes.
    """
    draws = stream(seed, int(bottleneck))
    network = Autoencoder(images.shape[1], bottleneck=bottleneck)
    for layer in network.layers:
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        spread = math.sqrt(6 / (9 * (layer.in_channels + layer.out_channels)))
        start = draws.uniform(-spread, spread, tuple(layer.weight.shape))
        layer.weight.data.copy_(torch.from_numpy(start))
        layer.bias.data.zero_()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, eps=1e-7)
    with exact_arithmetic(device), torch.enable_grad():
        for _ in range(epochs):
            order = torch.from_numpy(draws.permutation(len(images)))
            for chosen in order.split(batch_size):
                clean = images[chosen].to(device)
                drawn = torch.from_numpy(draws.standard_normal(tuple(clean.shape), dtype="float32"))
                noisy = (clean + noise * drawn.to(device)).clamp(0, 1)
                activations = network.activations(noisy.contiguous(memory_format=torch.channels_last))
                squares = sum(values.square().sum() for values in activations) / len(clean)
                loss = nn.functional.mse_loss(activations[-1], clean) + ACTIVITY * squares
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return network.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
