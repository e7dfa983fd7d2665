r"""MagNet: images that lie far from those an autoencoder knows (Meng and Chen 2017).

Autoencoders learn clean images. A reconstruction-error detector takes the mean of :math:`|x - ae(x)|^p` (Sec. 4.2.1), a
divergence detector the Jensen-Shannon divergence of the classifier's answers to x and ae(x), softened by a temperature
T (Sec. 4.2.2). An image is adversarial where any of them exceeds its own threshold, which a stated share of clean
validation images exceed. The reformer replaces an image by its reconstruction (Sec. 4.3).

For MNIST the paper has detector I, an autoencoder with a bottleneck, with p = 2; detector II, one without, with p = 1;
no divergence detectors; and a false-positive rate of 0.001 for each (so the authors' ``test_defense.py``). Divergence
detectors with T = 10 and 40 belong to its CIFAR-10 setting.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.devices import device_of
from xaicore.core.errors import UserError
from xaicore.core.undisturbed import exact_arithmetic
from xaicore.defenses.autoencoders import Autoencoder, trained_autoencoder
from xaicore.detectors.base import Detector, in_batches, threshold_of

LEAST = 1e-12
"""What a threshold of zero, that of detectors which clean images leave unmoved, counts as."""


class MagNet(Detector):
    r"""MagNet's detectors and reformer, trained on clean images alone.

    The score is the largest ratio of a detector's value to its own threshold: it exceeds 1 exactly where one of the
    detectors exceeds its threshold, which is what :meth:`flagged` tells. All together flag a share of clean images
    between ``fpr`` and ``fpr`` times their number; :meth:`threshold` gives a threshold on the score for any rate.

    Args:
        model: the classifier.
        fpr: the share of calibration images that each detector may exceed its threshold on.
        temperatures: T of the divergence detectors, positive; the paper has none for MNIST, (10, 40) for CIFAR-10.
        noise: standard deviation of the noise in training.
        epochs: passes over the clean images in training. The paper has 100 over 55,000 digits in batches of 256 at
            0.001, which are 21,500 updates; small batches and a higher rate learn from few images in some hundred.
        batch_size: images in an update.
        learning_rate: of Adam.
        seed: of the training.
        rows: images in a pass of the autoencoders; fewer are filled up to as many.

    References:
        Meng and Chen, MagNet: a Two-Pronged Defense against Adversarial Examples, CCS 2017.
    """

    differentiable = True

    def __init__(
        self,
        model: nn.Module,
        *,
        fpr: float = 0.001,
        temperatures: Sequence[float] = (),
        noise: float = 0.1,
        epochs: int = 10,
        batch_size: int = 64,
        learning_rate: float = 0.02,
        seed: int = 0,
        rows: int = 64,
    ) -> None:
        super().__init__(
            model,
            fpr=fpr,
            temperatures=tuple(checks.positive("temperatures", value) for value in temperatures),
            noise=checks.not_negative("noise", noise),
            epochs=checks.integer("epochs", epochs, least=1),
            batch_size=checks.integer("batch_size", batch_size, least=1),
            learning_rate=checks.positive("learning_rate", learning_rate),
            seed=checks.integer("seed", seed, least=0),
            rows=checks.integer("rows", rows, least=1),
        )
        self._autoencoders: tuple[Autoencoder, Autoencoder] | None = None
        self._thresholds: Tensor | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the detectors, in the order of :meth:`values`."""
        temperatures = self._settings["temperatures"]
        return ("I, L2", "II, L1", *(f"I, divergence at T = {value:g}" for value in temperatures))

    @property
    def reformer(self) -> Autoencoder:
        """The autoencoder that reforms images, that of detector I, as a module: it has the gradient that
        :meth:`reform` hides.
        """
        network: Autoencoder = self._known(self._autoencoders)[0]
        return network

    def reform(self, images: Tensor) -> Tensor:
        """Return the images as the reformer gives them to the classifier, (N, C, H, W) in [0, 1]."""
        return self._reconstructed(checks.images(images).detach(), 0)

    def values(self, images: Tensor) -> Tensor:
        """Return what each detector says of each image, (N, detectors) float64 on the CPU."""
        return self._values(checks.images(images).detach())

    def _values(self, images: Tensor) -> Tensor:
        first, second = self._reconstructed(images, 0), self._reconstructed(images, 1)
        columns = [
            (images - first).double().square().mean((1, 2, 3)),
            (images - second).double().abs().mean((1, 2, 3)),
        ]
        temperatures = self._settings["temperatures"]
        if temperatures:
            answers = [self._logits(each).double() for each in (images, first)]
            for value in temperatures:
                columns.append(jensen_shannon(*[(each / value).softmax(1) for each in answers]))
        return torch.stack([column.cpu() for column in columns], dim=1)

    @property
    def thresholds(self) -> Tensor:
        """The threshold of each detector, (detectors,) float64."""
        known: Tensor = self._known(self._thresholds)
        return known

    @property
    def limit(self) -> float:
        """One: a score above it means that a detector exceeds its own threshold."""
        return 1.0

    def _score(self, images: Tensor) -> Tensor:
        return (self._values(images) / self.thresholds).amax(1)

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        if clean.shape[2] % 2 or clean.shape[3] % 2:
            raise UserError(f"clean images must have even sides for MagNet, not {tuple(clean.shape[2:])}")
        chosen = {
            name: value for name, value in self._settings.items() if name not in ("temperatures", "rows")
        }
        device = device_of(self.model)
        first, second = (
            trained_autoencoder(clean, bottleneck=bottleneck, device=device, **chosen)
            for bottleneck in (True, False)
        )
        self._autoencoders = first, second
        values = self.values(calibration).sort(dim=0).values
        limits = [threshold_of(column, self.fpr) for column in values.unbind(1)]
        self._thresholds = torch.tensor(limits, dtype=torch.float64).clamp(min=LEAST)

    def _reconstructed(self, images: Tensor, which: int) -> Tensor:
        network: Autoencoder = self._known(self._autoencoders)[which]
        if images.requires_grad:
            return network(images)  # type: ignore[no-any-return]
        device = device_of(network)
        with exact_arithmetic(device):
            rows = self._settings["rows"]
            return in_batches(lambda part: network(part.to(device)), rows, images).to(images.device)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    r"""Return the Jensen-Shannon divergence of distributions (N, K), in nats: (N,), from 0 to log 2.

    .. math:: \tfrac12 \sum_k p_k \log \tfrac{2 p_k}{p_k + q_k} + \tfrac12 \sum_k q_k \log \tfrac{2 q_k}{p_k + q_k}
    """
    middle = (p + q) / 2
    halves = [torch.special.xlogy(each, each / middle.where(middle > 0, 1)).sum(1) for each in (p, q)]
    return ((halves[0] + halves[1]) / 2).clamp(min=0)
