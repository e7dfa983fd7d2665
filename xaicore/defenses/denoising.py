"""A denoising autoencoder that takes the attack off the image before it is classified (Gu and Rigazio 2015).

A denoising autoencoder learns to return a clean image from a corrupted one (Vincent et al. 2008). Gu and Rigazio
corrupt by attacks: the autoencoder sees adversarial examples of the training images and is to give the images
themselves. They also found that the autoencoder and the network together have adversarial examples of their own, with
smaller changes than those of the network alone. As theirs, this one is dense; its hidden units are ReLUs.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.randomness import stream
from xaicore.defenses.autoencoders import fit_denoising

WIDTHS = (256, 128, 256)


class Denoiser(nn.Module):
    """Four dense layers over all values of an image, ReLU between them and a sigmoid at the end.

    Its weights are not set: :func:`trained_denoiser` draws and trains them.

    Args:
        shape: (C, H, W) of the images.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        size = math.prod(shape)
        layers: list[nn.Module] = []
        for before, after in pairwise((size, *WIDTHS, size)):
            layers += [nn.utils.skip_init(nn.Linear, before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1], nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """Return the denoised images (N, C, H, W), in (0, 1)."""
        denoised: Tensor = self.layers(images.flatten(1))
        return denoised.view(images.shape)


def trained_denoiser(
    corrupted: Tensor,
    clean: Tensor,
    *,
    noise: float = 0.1,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: torch.device | None = None,
) -> Denoiser:
    """Train a denoiser by the cross-entropy of its pixels with the clean images, with Adam; in eval mode and frozen.

    Args:
        corrupted: (N, C, H, W) float32 in [0, 1]: what goes in, say adversarial examples and, so that
            clean images stay as they are, clean ones too.
        clean: images of the same shape, what is to come out.
        noise: standard deviation of Gaussian noise that is put on what goes in, which is cut to [0, 1].
        epochs: passes over the images.
        batch_size: images in an update.
        learning_rate: of Adam.
        seed: of weights, order and noise.
        device: where it computes; None: where the images are.

    References:
        Vincent, Larochelle, Bengio and Manzagol, Extracting and Composing Robust Features with Denoising Autoencoders,
        ICML 2008. Gu and Rigazio, Towards Deep Neural Network Architectures Robust to Adversarial Examples, ICLR
        workshop 2015.
    """
    checks.images(corrupted, "corrupted")
    checks.images(clean, "clean")
    checks.same_shape("corrupted and clean", corrupted, clean)
    network = Denoiser((clean.shape[1], clean.shape[2], clean.shape[3]))
    fit_denoising(
        network,
        lambda noisy, wanted: nn.functional.binary_cross_entropy(network(noisy), wanted),
        corrupted,
        clean,
        noise=noise,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        stability=1e-8,
        draws=stream(seed, 0),
        device=device or clean.device,
    )
    return network
