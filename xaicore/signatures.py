"""Signatures: one explanation as one vector, and what a whole set of them looks like.

Fidel et al. (2019, arXiv:1909.03418) call the vector of SHAP values of a layer the signature of an image and train a
detector on it; Klawikowska et al. (2020, Sec. 3.2) take the relevance that propagation returns from the last layer's
decision instead, and project it to the plane with UMAP (McInnes et al. 2018). Here a signature is the relevance map of
the predicted class, channels summed, flattened, and scaled to unit length, so that it tells where the relevance lies and
not how large the logit was.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

FEW = 4096
"""Below so many points UMAP looks for exact neighbours, above for approximate ones."""
AT_ONCE = 4096
"""Signatures classified at once, so that memory does not grow with those held out."""


def signatures(relevance: Tensor) -> NDArray[np.float32]:
    """Return relevance maps (N, C, H, W) or (N, H, W) as unit vectors (N, H·W); a zero map stays zero.

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    if relevance.ndim not in (3, 4):
        raise ValueError(f"relevance must be (N, C, H, W) or (N, H, W), got {tuple(relevance.shape)}")
    if not torch.isfinite(relevance).all():
        raise ValueError("relevance must be finite")
    maps = relevance.sum(dim=1) if relevance.ndim == 4 else relevance
    flat = maps.flatten(start_dim=1).double()
    lengths = flat.norm(dim=1, keepdim=True)
    return (flat / torch.where(lengths > 0, lengths, 1.0)).float().cpu().numpy()


def embed(points: NDArray[np.float32], *, neighbors: int = 15, seed: int = 0) -> NDArray[np.float32]:
    """Project points (N, D) to the plane (N, 2) with UMAP, Euclidean metric; the same seed gives the same map.

    Args:
        points: (N, D), N ≥ 4.
        neighbors: neighbours that the map tries to keep; at most N − 1 are used.
        seed: seed of the layout.

    Raises:
        ValueError: too few points.
    """
    if points.ndim != 2 or len(points) < 4:
        raise ValueError(f"points must be (N, D) with N of at least 4, got {points.shape}")
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        # Importing umap warns of missing widgets in a notebook; on tiny or disconnected graphs its eigenvalue
        # solver warns and falls back to a random start by itself.
        warnings.simplefilter("ignore")
        import umap

        neighbors = min(neighbors, len(points) - 1)
        known = _nearest(points, neighbors) if len(points) < FEW else (None, None, None)
        layout = umap.UMAP(n_neighbors=neighbors, random_state=seed, n_jobs=1, precomputed_knn=known)
        try:
            return np.asarray(layout.fit_transform(points), dtype=np.float32)
        finally:
            torch.set_num_threads(threads)  # numba, below UMAP, sets it to the number of cores


def _nearest(points: NDArray[np.float32], neighbors: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the nearest points of each point, itself first, and their distances, each (N, neighbors).

    UMAP would take the same from the matrix of distances, in code that takes longer to compile than all else.
    """
    distances = pairwise_distances(points)
    nearest = distances.argsort(axis=1, kind="stable")[:, :neighbors]
    return nearest, np.take_along_axis(distances, nearest, axis=1)


def classify(
    points: NDArray[np.float32], labels: NDArray[np.int64], held_out: NDArray[np.float32], *, seed: int = 0
) -> NDArray[np.int64]:
    """Predict the labels of held-out signatures with a support vector machine (RBF kernel) fitted on others.

    Classes weigh equally, whatever their counts, and features are standardised; nothing is tuned. The machine is
    scikit-learn's with its default width. But matrix products give the whole kernel at once, where libsvm would compute
    its rows one by one, again and again.

    Args:
        points: (N, D) to fit on.
        labels: (N,) their classes, at least two different ones. Memory grows with 8 N² bytes.
        held_out: (M, D) to predict.
        seed: seed of the solver.

    Returns:
        (M,) predicted classes.
    """
    scale = StandardScaler().fit(points)
    known = scale.transform(points).astype(np.float64)
    gamma = 1 / (known.shape[1] * (known.var() or 1.0))
    machine = SVC(kernel="precomputed", class_weight="balanced", random_state=seed)
    machine.fit(rbf_kernel(known, gamma=gamma), labels)
    guesses = []
    for start in range(0, len(held_out), AT_ONCE):
        part = scale.transform(held_out[start : start + AT_ONCE]).astype(np.float64)
        guesses.append(machine.predict(rbf_kernel(part, known, gamma=gamma)))
    return np.concatenate(guesses)
