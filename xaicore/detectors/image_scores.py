"""Two scores that ask no network, as a yardstick: on black digits they tell most changes, harmless ones too."""

from torch import Tensor

from xaicore.detectors.base import Detector
from xaicore.detectors.non_local_means import non_local_means
from xaicore.detectors.surrogates import _entropy, differentiable_score
from xaicore.metrics import shannon_entropy

BINS = 256


class ImageEntropy(Detector):
    """The entropy of the image's own histogram in bits (:func:`xaicore.metrics.shannon_entropy`)."""

    def _score(self, images: Tensor) -> Tensor:
        return shannon_entropy(images, bins=BINS).cpu()


@differentiable_score.register
def _(detector: ImageEntropy, images: Tensor) -> Tensor:
    return _entropy(images.sum(1), BINS)


class ImageDenoising(Detector):
    """How far non-local means move the image: the mean absolute change of a value.

    On the way back the denoised image counts as given.
    """

    differentiable = True

    def _score(self, images: Tensor) -> Tensor:
        cleaned = non_local_means(images.detach(), strength=0.8).clamp(0, 1)
        return (images - cleaned).abs().mean((1, 2, 3)).double().cpu()
