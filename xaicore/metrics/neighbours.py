"""How mixed the classes are around each point of a space: the signatures of images, or their UMAP."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from xaicore.core.errors import UserError
from xaicore.metrics.checks import as_array


def neighbour_mixing(points: ArrayLike | Tensor, labels: ArrayLike | Tensor, *, k: int = 10) -> Tensor:
    """Return the share of the k nearest other points (Euclidean) that bear another label than a point itself.

    Args:
        points: (N, D) finite coordinates.
        labels: (N,) labels of the points.
        k: number of neighbours, 1 to N − 1.

    Returns:
        (N,) float64 in [0, 1]: 0 only its own kind around, 1 only others.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or k out of range.
    """
    from sklearn.neighbors import NearestNeighbors  # a second to import

    space, names = as_array(points), as_array(labels)
    if space.ndim != 2:
        raise UserError(f"points must have the shape (N, D), not {space.shape}")
    if not np.isfinite(space).all():
        raise UserError("points must be finite: NaN or infinity found")
    if names.shape != (len(space),):
        raise UserError(f"labels must have the shape ({len(space)},), not {names.shape}")
    if not 1 <= k < len(space):
        raise UserError(f"k must lie in 1..{len(space) - 1}, the number of neighbours there are, not {k}")
    finder = NearestNeighbors(n_neighbors=k).fit(space.astype(np.float64))
    nearest = finder.kneighbors(return_distance=False)
    return torch.from_numpy((names[nearest] != names[:, None]).mean(1))
