"""What chapter 5 measures of its three detectors on one network: their answers, and who evades them.

A detector is fitted when it is first needed, and what it answers is kept in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xaicore.attacks import AttackResult
from xaicore.detectors import Detector, Explainer, adaptive_attack

if TYPE_CHECKING:
    from xaicore.run.store import Result, Store

TITLES = {"explainer": "EXPLAINER", "magnet": "MagNet", "squeezing": "squeezing"}
"""The detectors of Table 1 of the paper."""


class Answers(NamedTuple):
    """What a detector says of images.

    Attributes:
        score: (n,).
        flagged: (n,) bool, by its own rule.
        seconds: for all of them.
    """

    score: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    seconds: float


class ComparedDetectors:
    """EXPLAINER and detectors that are fitted on clean images.

    Args:
        store: keeps what is computed.
        explainer: needs no fitting.
        others: name of :data:`TITLES` → detector, not fitted yet.
        training: (N, C, H, W), clean images that the others learn from.
        validation: (M, C, H, W), clean images that their thresholds come from.
    """

    def __init__(
        self,
        store: Store,
        explainer: Explainer,
        others: Mapping[str, Detector],
        training: Tensor,
        validation: Tensor,
    ) -> None:
        self._store = store
        self._detectors: dict[str, Detector] = {"explainer": explainer, **others}
        self._unfitted = {name: detector.fingerprint for name, detector in self._detectors.items()}
        self._images = {"training": training, "validation": validation}
        self._fitted = {"explainer"}

    def fitted(self, name: str) -> Detector:
        """Return the detector ``name``, fitted."""
        detector = self._detectors[name]
        if name not in self._fitted:
            detector.fit(self._images["training"], self._images["validation"])
            self._fitted.add(name)
        return detector

    def answers(self, name: str, images: Tensor) -> Answers:
        """Return what the detector ``name`` says of images (n, C, H, W)."""

        def compute() -> dict[str, Tensor]:
            detector = self.fitted(name)
            score = detector.score(images)
            return {"score": score, "flagged": score > detector.limit}

        found = self._kept("scores", name, {"images": images}, compute, Detector.fit)
        return Answers(found["score"].numpy(), found["flagged"].numpy(), found.seconds)

    def evasion(
        self, name: str, images: Tensor, labels: Tensor, radii: Sequence[float], **options: Any
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Attack the network and the detector ``name`` at once, within growing balls.

        An image that evades within a ball is within all larger ones, so only the others are attacked there.

        Args:
            name: of the detector.
            images: (n, C, H, W) that the network has right.
            labels: (n,) int64.
            radii: of the balls, rising.
            options: of :func:`xaicore.detectors.adaptive_attack`.

        Returns:
            Two (n, radii) bool: where the network is fooled, and where the detector is silent as well.
        """
        fooled, evaded = (np.zeros((len(images), len(radii)), dtype=bool) for _ in range(2))
        for place, eps in enumerate(radii):
            left = torch.from_numpy(~evaded[:, :place].any(1)).nonzero()[:, 0]
            if len(left):
                given = {"images": images[left], "labels": labels[left], "index": left, "eps": eps, **options}

                def attack(given: dict[str, Any] = given) -> dict[str, Tensor]:
                    return adaptive_attack(self.fitted(name), **given).arrays()

                stored = self._kept("adaptive attack", name, given, attack, adaptive_attack)
                result = AttackResult.from_arrays(stored, seconds=stored.seconds)
                evades = result.success & result.info["evaded"]
                fooled[left.numpy(), place] = result.success.numpy()
                evaded[left.numpy(), place] = evades.numpy()
        return np.logical_or.accumulate(fooled, 1), np.logical_or.accumulate(evaded, 1)

    def _kept(
        self,
        step: str,
        name: str,
        inputs: Mapping[str, Any],
        compute: Callable[[], dict[str, Tensor]],
        code: Callable[..., Any],
    ) -> Result:
        address = {**self._images, **inputs, "detector": self._unfitted[name]}
        return self._store.get_or_compute(f"{TITLES[name]}, {step}", address, compute, code=code)
