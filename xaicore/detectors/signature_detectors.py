r"""Detectors that learn the signature of adversarial examples: of relevance, or of SHAP values of the last layer.

Klawikowska et al. (2020) explain the decision by layer-wise relevance propagation and see clean and attacked images
apart in the plane; Fidel et al. (2019) take the SHAP values of the penultimate layer's neurons for every class and train
a classifier on them. Both need adversarial examples to learn from: what they detect are attacks such as those. The
classifier of both is here a support vector machine (RBF kernel, classes weighed equally), untuned, whose decision value
is the score.
"""

import abc
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor, nn

from xaicore.attribution import PRESETS, lrp, signatures
from xaicore.core import checks
from xaicore.detectors.base import Detector, in_batches
from xaicore.detectors.penultimate import entering, linear_layers
from xaicore.detectors.surrogates import differentiable_score

ROWS = 32


class _Separator(Detector):
    """A detector that separates features of clean from those of adversarial images."""

    supervised = True
    _machine: Pipeline | None = None

    @abc.abstractmethod
    def features(self, images: Tensor) -> NDArray[np.float64]:
        """Return the features (N, D) of images (N, C, H, W)."""

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        assert adversarial is not None
        points = np.concatenate([self.features(clean), self.features(adversarial)])
        labels = np.repeat([0, 1], [len(clean), len(adversarial)])
        machine = SVC(class_weight="balanced", random_state=self._settings["seed"])
        self._machine = make_pipeline(StandardScaler(), machine).fit(points, labels)

    def _score(self, images: Tensor) -> Tensor:
        machine: Pipeline = self._known(self._machine)
        return torch.from_numpy(
            np.asarray(machine.decision_function(self.features(images)), dtype=np.float64)
        )


class SignatureDetector(_Separator):
    """A support vector machine on relevance maps of unit length (paper 1).

    Args:
        model: the classifier.
        preset: of :func:`xaicore.attribution.lrp`.
        fpr: the share of calibration images that :meth:`flagged` flags at most.
        seed: of the machine.

    References:
        Klawikowska, Mikołajczyk and Grochowski, 2020, Sec. 3.2.
    """

    def __init__(
        self, model: nn.Module, *, preset: str = "preset-a-flat", fpr: float = 0.05, seed: int = 0
    ) -> None:
        preset = checks.one_of("preset", preset, PRESETS)
        super().__init__(model, fpr=fpr, preset=preset, seed=checks.integer("seed", seed, least=0))

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """Return the relevance of the predicted class, (N, H·W) of unit length."""
        explain = partial(lrp, self.model, preset=self._settings["preset"], batch_size=ROWS)
        return signatures(in_batches(explain, ROWS, images)).astype(np.float64)


class ShapSignature(_Separator):
    r"""A support vector machine on the SHAP values of the penultimate layer (Fidel et al. 2019).

    The last layer is linear, and for a linear function of independent features the values are known exactly (Lundberg
    and Lee 2017, Corollary 1): neuron i with activation a and weight w gives class k

    .. math:: \phi_{ki} = w_{ki} (a_i - E[a_i]),

    the expectation over the clean images of :meth:`fit`.

    Args:
        model: the classifier; a linear layer gives the logits.
        all_classes: whether the values for every class make up the signature, K times as many as neurons, as in the
            paper; otherwise those for the predicted class alone.
        fpr: the share of calibration images that :meth:`flagged` flags at most.
        seed: of the machine.

    References:
        Fidel, Bitton and Shabtai, When Explainability Meets Adversarial Learning: Detecting Adversarial Examples using
        SHAP Signatures, 2019.
    """

    def __init__(
        self, model: nn.Module, *, all_classes: bool = True, fpr: float = 0.05, seed: int = 0
    ) -> None:
        super().__init__(
            model,
            fpr=fpr,
            all_classes=checks.flag("all_classes", all_classes),
            seed=checks.integer("seed", seed, least=0),
        )
        linear_layers(model)  # refuses a model without any
        self._last: nn.Linear | None = None
        self._mean: Tensor | None = None

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """Return the SHAP values of the penultimate neurons, (N, K·D), or (N, D) of the predicted class."""
        return self.values(*self._activations(images)[:2]).numpy()

    def values(self, activations: Tensor, logits: Tensor) -> Tensor:
        """Return the features of activations (N, D) float64 and logits (N, K), differentiable."""
        weights = self._known(self._last).weight.detach().to(activations)
        apart = activations - self._known(self._mean).to(activations)
        if self._settings["all_classes"]:
            return (apart[:, None] * weights).flatten(1)
        return apart * weights[logits.argmax(1)]

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        activations, _, self._last = self._activations(clean)
        self._mean = activations.mean(0)
        super()._learn(clean, calibration, adversarial)

    def _activations(self, images: Tensor) -> tuple[Tensor, Tensor, nn.Linear]:
        """Return what enters the layer that gives the logits (N, D) float64, the logits (N, K), and the layer."""
        activations, logits, layer = entering(self.model, lambda: self._logits(images))
        return activations.cpu(), logits.cpu(), layer


@differentiable_score.register
def _(detector: ShapSignature, images: Tensor) -> Tensor:
    """The machine's decision value written out: the kernel with each support vector, weighed and added up."""
    scaler, machine = detector._known(detector._machine)
    found = detector.values(*entering(detector.model, lambda: detector.model(images.clone()))[:2])
    mean, scale, vectors, weights = (
        torch.from_numpy(each).to(found)
        for each in (scaler.mean_, scaler.scale_, machine.support_vectors_, machine.dual_coef_[0])
    )
    apart = (((found - mean) / scale)[:, None] - vectors).square().sum(2)
    return (-machine._gamma * apart).exp() @ weights + float(machine.intercept_[0])
