r"""How unequally the pixels of an image matter, where leaving each one out tells how much it does (ML-LOO).

The attribution of a value :math:`x_j` of an image, one channel of one pixel, to an output f of the network is

.. math:: \phi_j(x) = f(x) - f(x \mid x_j = 0),

and the score is how widely :math:`\phi_j` is dispersed over all j: wider in attacked images, as Yang et al. find. f is
the probability of the predicted class, or each of many neurons of several layers. A value that is 0 already has an
attribution of exactly 0 and costs no pass of the network.

The authors' dispersion is the interquartile range. It is exactly 0 where fewer than one value in four differs from 0, as
in most clean digits on black, and above 0 as soon as the background is not black, whoever made it so.
"""

import abc
from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from xaicore.attribution.layers import KINDS
from xaicore.core import checks
from xaicore.core.batched_model import BatchedModel
from xaicore.core.batches import fixed_batch
from xaicore.core.errors import UserError
from xaicore.core.outputs import checked_logits
from xaicore.detectors.base import Detector
from xaicore.detectors.surrogates import differentiable_score

ACTIVATIONS = tuple(kind for kind, name in KINDS.items() if name.endswith("activation"))


def _range(values: Tensor) -> Tensor:
    low, high = values.quantile(values.new_tensor([0.25, 0.75]), dim=0)
    return high - low


def _median_deviation(values: Tensor) -> Tensor:
    return (values - values.quantile(0.5, dim=0)).abs().quantile(0.5, dim=0)


DISPERSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "iqr": _range,
    "mad": _median_deviation,
    "std": lambda values: values.std(0, correction=0),
}
"""Interquartile range, median absolute deviation from the median, and standard deviation of each column."""


class _Outputs(nn.Module):
    """The logits of a model, and with ``hidden`` its neurons beside them: channel means of what each activation gives."""

    def __init__(self, model: nn.Module, hidden: bool) -> None:
        super().__init__()
        self.model, self.classes, self.hidden = model, 0, hidden

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) and neurons (N, D) of images (N, C, H, W) side by side."""
        neurons: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            tokens = output.ndim == 3
            neurons.append(output.mean(1) if tokens else output.reshape(*output.shape[:2], -1).mean(2))

        watched = [each for each in self.model.modules() if self.hidden and isinstance(each, ACTIVATIONS)]
        handles = [module.register_forward_hook(keep) for module in watched]
        try:
            logits = checked_logits(self.model(images), len(images))
        finally:
            for handle in handles:
                handle.remove()
        if self.hidden and not neurons:
            raise UserError(
                "model must have its activations as modules (nn.ReLU, …), not as functions, for its neurons to be found"
            )
        self.classes = logits.shape[1]
        return torch.cat([logits, *neurons], 1)

    def probable(self, rows: Tensor) -> Tensor:
        """Return the columns of what ``forward`` gave that count: of the logits the probabilities, without ``hidden``
        that of the first row's class alone.
        """
        rows = rows.double()
        answers = rows[:, : self.classes].softmax(1)
        chosen = answers if self.hidden else answers[:, answers[0].argmax(), None]
        return torch.cat([chosen, rows[:, self.classes :]], 1)


def _without(image: Tensor, values: Tensor) -> Tensor:
    """Return copies of an image (C, H, W), in each of which the value of that number is 0; of -1 the image itself."""
    kept = torch.arange(image.numel(), device=image.device) != values[:, None]
    return (image.flatten() * kept).view(-1, *image.shape)


class Ablation(Detector):
    """A score of the attributions by leaving one value out.

    Args:
        model: the classifier.
        dispersion: one of :data:`DISPERSIONS`.
        hidden: whether neurons count beside the answer.
        fpr: the share of calibration images that :meth:`flagged` flags at most.
    """

    def __init__(self, model: nn.Module, *, dispersion: str, hidden: bool, fpr: float) -> None:
        super().__init__(model, fpr=fpr, dispersion=checks.one_of("dispersion", dispersion, DISPERSIONS))
        self._outputs = _Outputs(model, hidden)

    @abc.abstractmethod
    def of(self, attributions: Tensor) -> Tensor:
        """Return the score () of an image's attributions (C·H·W, D) float64."""

    def attributions(self, image: Tensor) -> Tensor:
        """Return the attributions (C·H·W, D) float64 of an image (C, H, W), on the model's device.

        They take as many passes of one image as it has values that are not 0, and one more.
        """
        with BatchedModel.of(self._outputs, image[None]) as batched:
            image = image.detach().to(batched.device)
            values = image.flatten().nonzero()[:, 0]
            numbers = torch.cat([values.new_tensor([-1]), values])
            rows = batched.logits_of(len(numbers), image.shape, lambda part: _without(image, numbers[part]))
        rows = self._outputs.probable(rows)
        found = rows.new_zeros(image.numel(), rows.shape[1])
        found[values] = rows[0] - rows[1:]
        return found

    def spread(self, attributions: Tensor) -> Tensor:
        """Return the dispersion (D,) of attributions (C·H·W, D)."""
        return DISPERSIONS[self._settings["dispersion"]](attributions)

    def _score(self, images: Tensor) -> Tensor:
        return torch.stack([self.of(self.attributions(image)) for image in images]).cpu()


class LeaveOneOut(Ablation):
    """How widely the attributions to the predicted class's probability are dispersed; nothing is learned.

    Args:
        model: the classifier.
        dispersion: ``"iqr"``, the interquartile range, ``"mad"``, the median absolute deviation, or ``"std"``.
        fpr: the share of calibration images that :meth:`flagged` flags at most.

    References:
        Yang, Chen, Hsieh, Wang and Jordan, ML-LOO: Detecting Adversarial Examples with Feature Attribution, AAAI 2020;
        https://github.com/Jianbo-Lab/ML-LOO.
    """

    def __init__(self, model: nn.Module, *, dispersion: str = "iqr", fpr: float = 0.05) -> None:
        super().__init__(model, dispersion=dispersion, hidden=False, fpr=fpr)

    def of(self, attributions: Tensor) -> Tensor:
        """Return the dispersion () of attributions (C·H·W, 1)."""
        return self.spread(attributions)[0]


class MultiLayerLeaveOneOut(Ablation):
    """ML-LOO: a logistic regression on the dispersions for the probability of every class and all neurons.

    A neuron is a channel of what an activation module gives, its mean over the map; the authors' code takes the channels
    of a residual network's blocks so, all of them. It chooses the regularisation by cross-validation; here the features
    are standardised and it is scikit-learn's default, as few examples may be all there are.

    Args:
        model: the classifier, its activations modules.
        dispersion: as for :class:`LeaveOneOut`.
        fpr: the share of calibration images that :meth:`flagged` flags at most.

    References:
        See :class:`LeaveOneOut`.
    """

    supervised = True
    _regression: tuple[Tensor, Tensor] | None = None

    def __init__(self, model: nn.Module, *, dispersion: str = "iqr", fpr: float = 0.05) -> None:
        super().__init__(model, dispersion=dispersion, hidden=True, fpr=fpr)

    def of(self, attributions: Tensor) -> Tensor:
        """Return the decision value () of the regression for attributions (C·H·W, D)."""
        weights, bias = (each.to(attributions.device) for each in self._known(self._regression))
        return self.spread(attributions) @ weights + bias

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        assert adversarial is not None
        spreads = [self.spread(self.attributions(image)) for image in [*clean, *adversarial]]
        points = torch.stack(spreads).cpu().numpy()
        scaler = StandardScaler().fit(points)
        found = LogisticRegression(class_weight="balanced", max_iter=1000)
        found.fit(scaler.transform(points), np.repeat([0, 1], [len(clean), len(adversarial)]))
        weights = found.coef_[0] / scaler.scale_
        bias = found.intercept_[0] - scaler.mean_ @ weights
        self._regression = torch.from_numpy(weights), torch.tensor(bias)


@differentiable_score.register
def _(detector: LeaveOneOut, images: Tensor) -> Tensor:
    """The score with its own slope, image by image, through those attributions that the dispersion has a slope in.

    Of the interquartile range these are four, two beside each quartile. Of ML-LOO they would be four for each neuron, and
    a step of an attack as many passes backwards: it has no surrogate.
    """
    rows = fixed_batch(images.shape, images.device)
    scores = []
    for image in images:
        found = detector.attributions(image).requires_grad_()
        score = detector.of(found)
        (weights,) = torch.autograd.grad(score, found)
        slope = torch.zeros_like(image)
        for values in weights[:, 0].nonzero()[:, 0].split(rows):
            point = image.detach().requires_grad_()
            copies = _without(point, torch.cat([values.new_tensor([-1]), values]))
            outputs = detector._outputs.probable(detector._outputs(copies))
            total = (weights[values] * (outputs[0] - outputs[1:])).sum()
            slope += torch.autograd.grad(total, point)[0]
        scores.append(score.detach() + ((image - image.detach()) * slope).sum())
    return torch.stack(scores)
