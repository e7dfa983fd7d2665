"""What chapter 5 measures of photographs with a patch, one at a time, so that the time of each is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xaicore.detectors import Explainer, FeatureSqueezing, SentiNet
from xaicore.metrics import shannon_entropy

if TYPE_CHECKING:
    from xaicore.models import Classifier
    from xaicore.run.store import Store

CARRIERS = 10
"""Photographs that SentiNet pastes on, at most."""


class Examined(NamedTuple):
    """Photographs as the detector sees them.

    Attributes:
        entropies: (n, 2) of the map, before and after denoising.
        maps: (n, 2, H, W).
        seconds: (n,) of each photograph.
    """

    entropies: NDArray[np.float64]
    maps: Tensor
    seconds: NDArray[np.float64]

    @property
    def change(self) -> NDArray[np.float64]:
        """The rule's score, (n,)."""
        return np.asarray(self.entropies[:, 1] - self.entropies[:, 0])


def examined(store: Store, detector: Explainer, images: Tensor, kind: str) -> Examined:
    """Return the entropies and maps of photographs (n, 3, H, W), n at least 1; ``kind`` is for the progress line."""
    found = []
    for image in images:

        def compute(image: Tensor = image[None]) -> dict[str, Tensor]:
            maps = detector.maps(torch.cat([image, detector.denoised(image)])).cpu()
            return {"map": shannon_entropy(maps), "maps": maps}

        inputs = {"detector": detector, "image": image}
        found.append(store.get_or_compute(f"photograph, {kind}", inputs, compute, code=Explainer.maps))
    return Examined(
        torch.stack([each["map"] for each in found]).numpy(),
        torch.stack([each["maps"] for each in found]),
        np.array([each.seconds for each in found]),
    )


def squeezing_scores(store: Store, detector: FeatureSqueezing, images: Tensor) -> NDArray[np.float64]:
    """Return the scores of feature squeezing for photographs (n, 3, H, W), (n,)."""
    return store.get_or_compute(
        "squeezing, photographs",
        {"detector": detector.fingerprint, "images": images},
        lambda: {"score": detector.score(images)},
        code=FeatureSqueezing,
    )["score"].numpy()


def sentinet_scores(
    store: Store, network: Classifier, photographs: Tensor, images: Tensor, which: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return SentiNet's scores, (n,), NaN where too few photographs are left to paste on.

    Every second photograph is pasted on those between, and the other way round: none meets itself.

    Args:
        store: keeps the scores.
        network: the classifier.
        photographs: (P, 3, H, W), clean.
        images: (n, 3, H, W), made from some of them.
        which: (n,) number of the photograph that each was made from, 0 to P - 1.
    """
    scores = np.full(len(images), np.nan)
    for half in (0, 1):
        carriers, those = photographs[1 - half :: 2][:CARRIERS], which % 2 == half
        if len(carriers) > 1 and those.any():
            detector = SentiNet(network)
            inputs = {"network": network, "carriers": carriers, "images": images[those]}
            scores[those] = store.get_or_compute(
                "SentiNet, photographs",
                inputs,
                lambda of=detector, on=carriers, given=images[those]: {"score": of.fit(on, on).score(given)},
                code=SentiNet,
            )["score"].numpy()
    return scores
