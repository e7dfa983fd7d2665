r"""Uncertainty of a network whose dropout stays on: Monte Carlo dropout (Gal and Ghahramani 2016).

With the answers :math:`p_t` under T random masks and their mean :math:`\bar p`, the predictive entropy is
:math:`H(\bar p)` and the mutual information :math:`H(\bar p) - \frac1T \sum_t H(p_t)` (Smith and Gal, UAI 2018, Eq. 1 to
3): how unsure the network is, and how much the masks disagree. The T masks are the same for all images, so that a score
does not depend on what stands beside an image.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.core.randomness import stream
from xaicore.detectors.base import Detector

MEASURES = ("mutual_information", "entropy")


class MCDropout(Detector):
    """The uncertainty of a network with dropout, in bits.

    Args:
        model: the classifier, with ``nn.Dropout`` layers; a rate of 0 drops nothing, so one must be above it.
        measure: ``"mutual_information"`` or ``"entropy"``, that of the mean answer.
        n_samples: masks, at least 2.
        fpr: the share of calibration images that :meth:`flagged` flags at most.
        seed: of the masks.

    References:
        Gal and Ghahramani, Dropout as a Bayesian Approximation, ICML 2016. Smith and Gal, Understanding Measures of
        Uncertainty for Adversarial Example Detection, UAI 2018.
    """

    differentiable = True

    def __init__(
        self,
        model: nn.Module,
        *,
        measure: str = "mutual_information",
        n_samples: int = 32,
        fpr: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model,
            fpr=fpr,
            measure=checks.one_of("measure", measure, MEASURES),
            n_samples=checks.integer("n_samples", n_samples, least=2),
            seed=checks.integer("seed", seed, least=0),
        )
        self._layers = [
            module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0
        ]
        if not self._layers:
            raise UserError("model must have a dropout layer with a rate above 0 for Monte Carlo dropout")

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the answers under each mask, (N, n_samples, K) float64 on the CPU."""
        return self._probabilities(checks.images(images).detach())

    def _probabilities(self, images: Tensor) -> Tensor:
        answers = []
        for sample in range(self._settings["n_samples"]):
            with self._dropping(sample):
                answers.append(self._logits(images).double().softmax(1).cpu())
        return torch.stack(answers, dim=1)

    def _score(self, images: Tensor) -> Tensor:
        answers = self._probabilities(images)
        predictive = _bits(answers.mean(1))
        if self._settings["measure"] == "entropy":
            return predictive
        return (predictive - _bits(answers).mean(1)).clamp(min=0)

    @contextmanager
    def _dropping(self, sample: int) -> Iterator[None]:
        """Let every dropout layer drop, in eval mode, by the mask of ``sample`` within the block."""
        handles = [
            layer.register_forward_hook(self._mask(sample, place, layer.p))
            for place, layer in enumerate(self._layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _mask(
        self, sample: int, place: int, rate: float
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def drop(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            drawn = stream(self._settings["seed"], place, sample).random(
                tuple(output.shape[1:]), dtype=np.float32
            )
            kept = torch.from_numpy(drawn >= rate).to(output) / max(1 - rate, 1e-12)
            return output * kept

        return drop


def _bits(answers: Tensor) -> Tensor:
    return torch.special.entr(answers).sum(-1) / float(np.log(2))
