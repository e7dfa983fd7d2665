"""How mixed the classes are around each point of a space: the signatures of images, or their UMAP."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from xaicore.metrics.checks import as_array


def neighbour_mixing(
    points: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    queries: ArrayLike | Tensor | None = None,
    query_labels: ArrayLike | Tensor | None = None,
    *,
    k: int = 10,
) -> Tensor:
    """Return the share of the k nearest points (Euclidean) that bear another label than the query.

    Args:
        points: (N, D) finite coordinates.
        labels: (N,) labels of the points.
        queries: (M, D) coordinates to ask for; None asks for every one of the points, which then does not
            count as its own neighbour.
        query_labels: (M,) labels of the queries; given with ``queries`` and only then.
        k: number of neighbours, at least 1 and at most N (N − 1 without queries).

    Returns:
        (M,) float64 in [0, 1]: 0 only its own kind around, 1 only others.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or k out of range.
    """
    space, names = _coordinates(points, "points"), _labels(labels, "labels", len(as_array(points)))
    if (queries is None) != (query_labels is None):
        raise ValueError("queries and query_labels must be given together")
    available = len(space) - (queries is None)
    if not 1 <= k <= available:
        raise ValueError(f"k must lie in 1..{available}, the number of neighbours there are, not {k}")
    finder = NearestNeighbors(n_neighbors=k).fit(space)
    if queries is None or query_labels is None:
        nearest, own = finder.kneighbors(return_distance=False), names
    else:
        asked = _coordinates(queries, "queries")
        if asked.shape[1] != space.shape[1]:
            raise ValueError(f"queries must have {space.shape[1]} coordinates, not {asked.shape[1]}")
        own = _labels(query_labels, "query_labels", len(asked))
        nearest = (
            finder.kneighbors(asked, return_distance=False) if len(asked) else np.empty((0, k), dtype=int)
        )
    return torch.from_numpy((names[nearest] != own[:, None]).mean(1))


def _coordinates(values: ArrayLike | Tensor, name: str) -> np.ndarray:
    array = as_array(values)
    if array.ndim != 2:
        raise ValueError(f"{name} must have the shape (N, D), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite: NaN or infinity found")
    return array.astype(np.float64)


def _labels(values: ArrayLike | Tensor, name: str, n: int) -> np.ndarray:
    array = as_array(values)
    if array.shape != (n,):
        raise ValueError(f"{name} must have the shape ({n},), not {array.shape}")
    return array
