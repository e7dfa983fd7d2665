"""Neuron coverage of a model by a growing set of images (Pei et al. 2017; Guo et al. 2018, DLFuzz, Sec. 3).

What a neuron is and when an image covers it stands in :mod:`xaicore.attacks.neurons`, which counts; here is the
metric: the share covered so far, as a whole, by layer, and after each image (Renkhoff et al. 2022, Fig. 2).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xaicore.attacks.neurons import Coverage, activations, covered
from xaicore.core.errors import UserError


class NeuronCoverage:
    """The neurons of a model that at least one image has covered.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits; used in eval mode, not changed.
        layers: names of the modules whose channels are neurons; None: activations, max-pools and the softmax.
        threshold: a neuron is covered where its activation, scaled to [0, 1] by image and layer, is greater.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Attributes:
        progress: share of neurons covered after the first, second, … image, one number for each image so far.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Sequence[str] | None = None,
        threshold: float = 0.25,
        batch_size: int | None = None,
    ) -> None:
        self.progress: list[float] = []
        self._model, self._layers = model, layers
        self._threshold, self._batch_size = threshold, batch_size
        self._coverage: Coverage | None = None

    def update(self, images: Tensor) -> None:
        """Add images (N, C, H, W) float32 in [0, 1], in their order.

        Raises:
            TypeError: the model or an argument is of the wrong kind.
            ValueError: shape, range, layers or threshold do not fit; nothing is added then.
        """
        found = activations(self._model, images, layers=self._layers, batch_size=self._batch_size)
        rows = covered(found, self._threshold)
        if self._coverage is None:
            self._coverage = Coverage({name: values.shape[1] for name, values in found.items()})
        for row in rows:
            self._coverage.update(row[None])
            self.progress.append(self._coverage.share())

    @property
    def coverage(self) -> Coverage:
        """How often each neuron was covered.

        Raises:
            ValueError: there was no image yet.
        """
        if self._coverage is None:
            raise UserError("neuron coverage needs an image: call update(images) first")
        return self._coverage

    def share(self) -> float:
        """Return the share of all neurons that are covered; raises as :attr:`coverage` does."""
        return self.coverage.share()


def coverage_progress(covered: ArrayLike, orders: ArrayLike) -> NDArray[np.float64]:
    """Return the share of neurons covered after the first, second, … image, for several orders of the images.

    Args:
        covered: (N, neurons) bool, which neurons each image covers, or (N, k, neurons) where image i comes as k versions.
        orders: (R, M) int, R sequences of M images; one may occur more than once.

    Returns:
        (R, M) in [0, 1], not falling along a row.

    Raises:
        ValueError: a shape does not fit, or there is no such image.
    """
    rows: NDArray[np.bool_] = np.asarray(covered, dtype=bool)
    sequences = np.asarray(orders)
    if rows.ndim == 3:
        rows = np.logical_or.reduce(rows, axis=1)
    if rows.ndim != 2 or not rows.size or sequences.ndim != 2:
        raise UserError(
            f"covered must be (N, neurons) and orders (R, M), not {rows.shape} and {sequences.shape}"
        )
    if sequences.size and not 0 <= sequences.min() <= sequences.max() < len(rows):
        raise UserError(f"orders must lie in 0..{len(rows) - 1}, one for each of the images covered")
    progress = [np.logical_or.accumulate(rows[order], axis=0).mean(1) for order in sequences]
    return np.array(progress).reshape(sequences.shape)
