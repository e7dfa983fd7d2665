r"""How far an image lies from clean ones where the network sees it: in the features that enter its last layer.

Four scores of the literature, of the penultimate layer alone and without what their papers learn from adversarial
examples (a logistic regression over layers). Classes are those that the network predicts, of clean images too, as no
detector here is given labels. All are functions of the features :math:`\phi`, so that an attacker has their gradient.
"""

import abc

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.detectors.base import Detector, in_batches
from xaicore.detectors.penultimate import entering, linear_layers
from xaicore.detectors.surrogates import differentiable_score

ROWS = 32
LEAST = 1e-12
"""What a distance of 0 counts as."""


class DeepFeatures(Detector):
    """A score of the features that enter the last layer, and of the class that the network predicts.

    Args:
        model: the classifier; a linear layer gives the logits.
        fpr: the share of calibration images that :meth:`flagged` flags at most.
        settings: of the detector.
    """

    def __init__(self, model: nn.Module, *, fpr: float = 0.05, **settings: float | None) -> None:
        super().__init__(model, fpr=fpr, **settings)
        linear_layers(model)  # refuses a model without any
        self._clean: Tensor | None = None
        self._classes = torch.empty(0)

    @abc.abstractmethod
    def of(self, features: Tensor, classes: Tensor) -> Tensor:
        """Return the scores (N,) of features (N, D) float64 and predicted classes (N,), differentiable."""

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features (N, D) float64 and the predicted classes (N,) of images (N, C, H, W), on the CPU."""
        found, logits, _ = entering(self.model, lambda: self._logits(checks.images(images).detach()))
        return found.cpu(), logits.argmax(1).cpu()

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        self._clean, self._classes = self.features(clean)

    def _score(self, images: Tensor) -> Tensor:
        self._known(self._clean)
        return in_batches(self.of, ROWS, *self.features(images))

    def _near(self, features: Tensor, clean: Tensor, k: int) -> Tensor:
        """Return the distances to the ``k`` nearest of ``clean`` (M, D), rising, (N, k)."""
        if k > len(clean):
            raise UserError(
                f"k must be at most the number of clean images to learn from, {len(clean)}, not {k}"
            )
        return _distances(features, clean).topk(k, dim=1, largest=False).values


@differentiable_score.register
def _(detector: DeepFeatures, images: Tensor) -> Tensor:
    features, logits, _ = entering(detector.model, lambda: detector.model(images.clone()))
    return detector.of(features, logits.argmax(1))


class KernelDensity(DeepFeatures):
    r"""How thinly clean images of the predicted class lie around an image.

    .. math:: s(x) = -\log \frac{1}{|X_t|} \sum_{x_i \in X_t} e^{-\|\phi(x) - \phi(x_i)\|^2 / \sigma^2}

    Where no clean image has the predicted class, all of them count; two are needed at least.

    Args:
        model: the classifier.
        bandwidth: σ, positive; None: the median distance of a calibration image to its second nearest clean one. The
            paper tunes it, 1.2 for MNIST.
        fpr: the share of calibration images that :meth:`flagged` flags at most.

    References:
        Feinman, Curtin, Shintre and Gardner, Detecting Adversarial Samples from Artifacts, 2017, Sec. 5.1.
    """

    def __init__(self, model: nn.Module, *, bandwidth: float | None = None, fpr: float = 0.05) -> None:
        given = None if bandwidth is None else checks.positive("bandwidth", bandwidth)
        super().__init__(model, fpr=fpr, bandwidth=given)
        self.bandwidth = given or 0.0

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        if len(clean) < 2:
            raise UserError("KernelDensity needs at least 2 clean images to learn from, not 1")
        super()._learn(clean, calibration, adversarial)
        given, found = self._settings["bandwidth"], self._known(self._clean)
        near = in_batches(lambda part: self._near(part, found, 2), ROWS, self.features(calibration)[0])
        self.bandwidth = given or max(float(near[:, -1].median()), LEAST)

    def of(self, features: Tensor, classes: Tensor) -> Tensor:
        """Return the scores (N,) of features (N, D) and predicted classes (N,)."""
        clean, known = (each.to(features.device) for each in (self._known(self._clean), self._classes))
        same = classes[:, None] == known
        same |= ~same.any(1, keepdim=True)
        exponents = -(_distances(features, clean) / self.bandwidth).square()
        total = exponents.masked_fill(~same, -torch.inf).logsumexp(1)
        return same.sum(1).double().log() - total


class LocalDimension(DeepFeatures):
    r"""The local intrinsic dimension around an image, estimated from its ``k`` nearest clean images at distances r.

    .. math:: s(x) = -\Bigl( \frac1k \sum_{i=1}^k \log \frac{r_i}{r_k} \Bigr)^{-1}

    Args:
        model: the classifier.
        k: neighbours, at least 2 and at most as many as clean images; the paper has 20 of each 100.
        fpr: the share of calibration images that :meth:`flagged` flags at most.

    References:
        Ma et al., Characterizing Adversarial Subspaces Using Local Intrinsic Dimensionality, ICLR 2018, Eq. 4.
    """

    def __init__(self, model: nn.Module, *, k: int = 20, fpr: float = 0.05) -> None:
        super().__init__(model, fpr=fpr, k=checks.integer("k", k, least=2))

    def of(self, features: Tensor, classes: Tensor) -> Tensor:
        """Return the scores (N,) of features (N, D)."""
        clean = self._known(self._clean).to(features.device)
        near = self._near(features, clean, self._settings["k"]).clamp(min=LEAST)
        return -1 / (near / near[:, -1:]).log().mean(1).clamp(max=-LEAST)


class Mahalanobis(DeepFeatures):
    r"""The distance to the nearest class of clean images, in units of the spread that all classes share.

    .. math:: s(x) = \min_c (\phi(x) - \mu_c)^\top \Sigma^{+} (\phi(x) - \mu_c)

    with the mean of each class and the covariance of the features about their class's mean; directions in which clean
    images do not differ do not count. At least two clean images must have the same predicted class.

    Args:
        model: the classifier.
        fpr: the share of calibration images that :meth:`flagged` flags at most.

    References:
        Lee, Lee, Lee and Shin, A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
        Attacks, NeurIPS 2018, Eq. 1 and 2.
    """

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        super()._learn(clean, calibration, adversarial)
        found: Tensor = self._known(self._clean)
        present, place = self._classes.unique(return_inverse=True)
        if len(present) == len(found):
            raise UserError(
                "Mahalanobis needs at least 2 clean images of one predicted class to learn from, not one of each of "
                f"{len(present)}"
            )
        self._means = torch.stack([found[place == number].mean(0) for number in range(len(present))])
        apart = found - self._means[place]
        self._precision = torch.linalg.pinv(apart.T @ apart / len(found), hermitian=True)

    def of(self, features: Tensor, classes: Tensor) -> Tensor:
        """Return the scores (N,) of features (N, D)."""
        means, precision = (each.to(features.device) for each in (self._means, self._precision))
        apart = features[:, None] - means
        return ((apart @ precision) * apart).sum(2).amin(1)


class DeepNeighbours(DeepFeatures):
    r"""The distance to the ``k``-th nearest clean image, all features at unit length.

    Args:
        model: the classifier.
        k: which neighbour, at most the number of clean images; the paper has 50 of CIFAR-10's 50,000.
        fpr: the share of calibration images that :meth:`flagged` flags at most.

    References:
        Sun, Ming, Zhu and Li, Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022, Sec. 3.
    """

    def __init__(self, model: nn.Module, *, k: int = 50, fpr: float = 0.05) -> None:
        super().__init__(model, fpr=fpr, k=checks.integer("k", k, least=1))

    def of(self, features: Tensor, classes: Tensor) -> Tensor:
        """Return the scores (N,) of features (N, D)."""
        clean = self._known(self._clean).to(features.device)
        each, others = (torch.nn.functional.normalize(one) for one in (features, clean))
        return self._near(each, others, self._settings["k"])[:, -1]


def _distances(features: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distances (N, M) of (N, D) and (M, D), each from its two rows alone."""
    return torch.cdist(features, others, compute_mode="donot_use_mm_for_euclid_dist")
