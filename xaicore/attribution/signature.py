"""Signatures: one explanation as one vector.

Fidel et al. (2019, arXiv:1909.03418) call the vector of SHAP values of a layer the signature of an image; Klawikowska et
al. (2020, Sec. 3.2) take the relevance that propagation returns from the last layer's decision instead. Here a signature
is the relevance map of the predicted class, channels summed, flattened, and scaled to unit length, so that it tells where
the relevance lies and not how large the logit was.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xaicore.core import checks


def signatures(relevance: Tensor) -> NDArray[np.float32]:
    """Return relevance maps (N, C, H, W) or (N, H, W) as unit vectors (N, H·W); a zero map stays zero.

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    relevance = checks.finite("relevance", relevance, checks.MAPS)
    maps = relevance.sum(dim=1) if relevance.ndim == 4 else relevance
    flat = maps.flatten(start_dim=1).double()
    lengths = flat.norm(dim=1, keepdim=True)
    return (flat / torch.where(lengths > 0, lengths, 1.0)).float().cpu().numpy()
