"""What all detectors share: fitted on clean images, they give each image a suspicion, and a threshold for a rate.

A threshold comes from clean images alone, so that no detector is tuned on the attacks it is measured against. Those
that learn from adversarial examples too say so by :attr:`Detector.supervised`. Nor does it come from images that a
detector has learned from, which score lower than new ones (split conformal prediction, Papadopoulos, Proedrou, Vovk and
Gammerman, ECML 2002): where none are given for it, some of the clean images are held out.

Images are everywhere (N, C, H, W) float32 in [0, 1]. What is no tensor, or a model that is no module, raises TypeError;
another shape, type or range, a setting out of range, or a detector that was not fitted where it must be, UserError.
"""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.batched_model import BatchedModel
from xaicore.core.errors import UserError
from xaicore.core.fingerprint import code_digest, digest, module_fingerprint
from xaicore.core.randomness import stream

PARTS = 5
"""One in so many clean images is held out for the thresholds where no others are given."""


class Detector(abc.ABC):
    """Tells adversarial images from clean ones by a score; higher is more suspicious.

    Args:
        model: the classifier that the attacks are aimed at; used as it is and left as it was.
        fpr: the share of clean images that :meth:`flagged` may flag, in [0, 1], for detectors without a rule of
            their own.
        settings: what else the score depends on, by name.

    Attributes:
        model: the classifier.
        fpr: as given.
        supervised: whether fitting takes adversarial examples too.
        differentiable: whether scores have a slope as they stand, which attacks on the detector follow.
    """

    supervised: ClassVar[bool] = False
    differentiable: ClassVar[bool] = False

    def __init__(self, model: nn.Module, *, fpr: float = 0.05, **settings: Any) -> None:
        self.model = checks.model(model)
        self.fpr = checks.not_negative("fpr", fpr, most=1)
        self._settings = settings
        self._fitted: str | None = None
        self._calibration: Tensor | None = None

    @property
    def learns(self) -> bool:
        """Whether scores depend on the clean images of :meth:`fit`, as those of each detector with a ``_learn`` do."""
        return type(self)._learn is not Detector._learn

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of model, settings, code and the images it was fitted on: all that a score depends on."""
        inner = module_fingerprint(self.model)
        return digest("detector", code_digest(type(self)), inner, self.fpr, self._settings, self._fitted)

    def fit(
        self, clean: Tensor, calibration: Tensor | None = None, adversarial: Tensor | None = None
    ) -> Self:
        """Learn what clean images look like, and what scores they get.

        Args:
            clean: clean images.
            calibration: clean images, held out, from whose scores the thresholds come; None: ``clean``, of which a
                detector that :attr:`learns` holds out one in five, or more where :attr:`fpr` needs them, drawn by a
                fixed seed, and learns from the others.
            adversarial: adversarial examples, for a detector that is ``supervised`` and no other.

        Returns:
            The detector itself.

        Raises:
            UserError: also where the images are too few to hold out half of them, or for what the detector learns.
        """
        clean = checks.images(clean, "clean").detach()
        calibration = None if calibration is None else checks.images(calibration, "calibration").detach()
        if self.supervised != (adversarial is not None):
            need = "needs" if self.supervised else "takes no"
            raise UserError(f"{type(self).__name__} {need} adversarial examples to be fitted")
        if adversarial is not None:
            adversarial = checks.images(adversarial, "adversarial").detach()
        self._fitted = self._calibration = None
        if calibration is None:
            clean, calibration = self._split(clean) if self.learns else (clean, clean)
        self._learn(clean, calibration, adversarial)
        self._fitted = digest(clean, calibration, adversarial)
        self._calibration = self.score(calibration).double().cpu().sort().values
        return self

    def score(self, images: Tensor) -> Tensor:
        """Return how suspicious each image is, (N,) float64 on the CPU; higher is more."""
        return self._score(checks.images(images).detach())

    def threshold(self, fpr: float) -> float:
        """Return the threshold above which at most a share ``fpr``, in [0, 1], of the calibration images score.

        With n of them, floor(fpr·n) may; where scores tie with the threshold, fewer do.
        """
        return threshold_of(self._known(self._calibration), checks.not_negative("fpr", fpr, most=1))

    @property
    def limit(self) -> float:
        """The score above which the detector's own rule flags an image: the threshold for :attr:`fpr`."""
        return self.threshold(self.fpr)

    def flagged(self, images: Tensor) -> Tensor:
        """Return which images are called adversarial by the detector's own rule, (N,) bool: score above :attr:`limit`."""
        return self.score(images) > self.limit

    def _split(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images to learn from, and those held out.

        A new clean image is above the highest of n held-out ones at a rate of 1 / (n + 1), which may be ``fpr`` at most.
        """
        least = max(1, math.ceil(1 / self.fpr - 1e-9) - 1) if self.fpr else 1
        if len(clean) < 2 * least:
            raise UserError(
                f"{type(self).__name__} needs at least {2 * least} clean images, not {len(clean)}, to hold out "
                f"enough for fpr = {self.fpr:g}; or give calibration images"
            )
        held = torch.zeros(len(clean), dtype=torch.bool)
        held[stream(0, 0).permutation(len(clean))[: max(len(clean) // PARTS - 1, least)]] = True
        return clean[~held], clean[held]

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:  # noqa: B027
        """Learn from checked images; nothing is learned but the threshold unless a detector says otherwise."""

    @abc.abstractmethod
    def _score(self, images: Tensor) -> Tensor:
        """Return the scores of checked images."""

    def _logits(self, images: Tensor, batch_size: int | None = None) -> Tensor:
        """Return the classifier's logits (N, K) of checked images, on its device, in batches of one fixed shape.

        For images that require a slope it is one pass of all, with the model in eval mode already.
        """
        if images.requires_grad:
            return self.model(images.clone())  # type: ignore[no-any-return]
        with BatchedModel.of(self.model, images, batch_size) as batched:
            return batched.logits(images)

    def _known(self, learned: Any) -> Any:
        """Return what fitting learns; raise UserError where it has not happened."""
        if learned is None:
            raise UserError(f"fit this {type(self).__name__} on clean images first")
        return learned


def threshold_of(scores: Tensor, fpr: float) -> float:
    """Return the threshold above which floor(fpr·n) of ``scores`` (n,), in ascending order, lie at most."""
    allowed = math.floor(fpr * len(scores) + 1e-9)  # 0.29 * 100 is a little less than 29
    return -math.inf if allowed >= len(scores) else float(scores[len(scores) - 1 - allowed])


def in_batches(function: Callable[..., Tensor], rows: int, *tensors: Tensor) -> Tensor:
    """Return what ``function`` makes of ``tensors`` (N, …) in batches of exactly ``rows``, the last filled up with zeros.

    Convolutions of another number of rows differ in the last bits. With equal batches, what comes out for an image
    does not depend on how many stand beside it.
    """
    count = len(tensors[0])
    filled = [
        torch.cat([each, each.new_zeros(-count % rows, *each.shape[1:])]).split(rows) for each in tensors
    ]
    return torch.cat([function(*parts) for parts in zip(*filled, strict=True)])[:count]
