"""What a whole set of signatures looks like: in the plane, and to a classifier.

Fidel et al. (2019, arXiv:1909.03418) train a detector on signatures; Klawikowska et al. (2020, Sec. 3.2) project them to
the plane with UMAP (McInnes et al. 2018). What a signature is here: :func:`xaicore.attribution.signatures`.
"""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

FEW = 4096
"""Below so many points UMAP looks for exact neighbours, above for approximate ones."""
AT_ONCE = 4096
"""Signatures classified at once, so that memory does not grow with those held out."""


def embed(points: NDArray[np.float32], *, neighbors: int = 15, seed: int = 0) -> NDArray[np.float32]:
    """Project points (N, D), N ≥ 4, to the plane (N, 2) with UMAP, Euclidean metric; the same seed gives the same map.

    The map tries to keep so many ``neighbors`` of a point; at most N − 1 are used.

    Raises:
        ValueError: too few points.
    """
    if points.ndim != 2 or len(points) < 4:
        raise ValueError(f"points must be (N, D) with N of at least 4, got {points.shape}")
    threads, neighbors = torch.get_num_threads(), min(neighbors, len(points) - 1)
    known: tuple[Any, ...] = (None, None, None)
    if len(points) < FEW:  # UMAP would take the same, in code that takes longer to compile than all else
        distances = pairwise_distances(points)
        nearest = distances.argsort(axis=1, kind="stable")[:, :neighbors]
        known = nearest, np.take_along_axis(distances, nearest, axis=1)
    with warnings.catch_warnings():
        # Importing umap warns of missing widgets in a notebook; on tiny or disconnected graphs its eigenvalue
        # solver warns and falls back to a random start by itself.
        warnings.simplefilter("ignore")
        import umap

        layout = umap.UMAP(n_neighbors=neighbors, random_state=seed, n_jobs=1, precomputed_knn=known)
        try:
            return np.asarray(layout.fit_transform(points), dtype=np.float32)
        finally:
            torch.set_num_threads(threads)  # numba, below UMAP, sets it to the number of cores


def classify(
    points: NDArray[np.float32], labels: NDArray[np.int64], held_out: NDArray[np.float32], *, seed: int = 0
) -> NDArray[np.int64]:
    """Predict the labels of held-out signatures with a support vector machine (RBF kernel) fitted on others.

    Classes weigh equally, whatever their counts, and features are standardised; nothing is tuned. The machine is
    scikit-learn's with its default width. But matrix products give the whole kernel at once, where libsvm would compute
    its rows one by one, again and again.

    From ``points`` (N, D) and their labels (N,), at least two different ones, and those held out (M, D), the predicted
    classes (M,). Memory grows with 8 N² bytes.
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
