"""What chapter 5 measures batch by batch: an image's map before and after denoising.

Each function takes images (n, C, H, W) in [0, 1] and ``detector``, the :class:`~xaicore.detectors.Explainer` whose
denoising and maps are meant, and returns arrays with an entry for each image, as :meth:`xaicore.run.engine.Engine.map`
asks.
"""

import torch
from torch import Tensor

from xaicore.detectors import Explainer
from xaicore.metrics import cosine_similarity, shannon_entropy
from xaicore.models import predict


def denoised(images: Tensor, *, detector: Explainer) -> dict[str, Tensor]:
    """Return the denoised ``images``."""
    return {"images": detector.denoised(images)}


def entropies(images: Tensor, cleaned: Tensor, *, detector: Explainer) -> dict[str, Tensor]:
    """Return entropies before and after, (n, 2): of the ``map``, of the ``image`` itself; and the ``cosine`` (n,) of the
    two maps, NaN of a zero one.
    """
    both = torch.cat([images, cleaned])
    maps = detector.maps(both).cpu()
    found = {"map": shannon_entropy(maps), "image": shannon_entropy(both).cpu()}
    pairs = {kind: torch.stack(values.chunk(2), 1) for kind, values in found.items()}
    return {**pairs, "cosine": cosine_similarity(*(each[:, None] for each in maps.chunk(2)))}


def class_held(images: Tensor, cleaned: Tensor, *, detector: Explainer) -> dict[str, Tensor]:
    """Return the entropy of the denoised image's ``map`` for the image's class, its ``cosine`` to the image's, (n,) each,
    and whether the class ``changed``.
    """
    before, after = predict(detector.model, torch.cat([images, cleaned])).argmax(1).chunk(2)  # type: ignore[arg-type]
    own, held = (detector.maps(each, before).cpu() for each in (images, cleaned))
    alike = cosine_similarity(own[:, None], held[:, None])
    return {"map": shannon_entropy(held), "cosine": alike, "changed": (before != after).double()}
