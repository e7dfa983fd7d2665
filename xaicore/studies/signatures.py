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
from torch import Tensor
from torch.nn import functional

from xaicore.attribution import signatures

FEW = 4096
"""Below so many points UMAP looks for exact neighbours, above for approximate ones."""
LEVELS = 64
"""Quantiles of a map's values that :func:`placeless` keeps."""
PEAKS = 16
"""Local peaks of a map that it keeps."""
AT_ONCE = 4096
"""Signatures classified at once, so that memory does not grow with those held out."""


def evened(values: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return numbers (N,), one of each image, whose mean is the mean over the classes of the means within them.

    Each is that mean plus the deviation from its own class, so that their spread is that of a mean stratified by class.

    Args:
        values: (N,) finite, N at least 1.
        classes: (N,) whole numbers.
    """
    _, of, counts = np.unique(classes, return_inverse=True, return_counts=True)
    means = np.bincount(of, values) / counts
    weights: NDArray[np.float64] = len(values) / (len(means) * counts[of])
    return means.mean() + weights * (values - means[of])


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


def placeless(relevance: Tensor) -> NDArray[np.float32]:
    """Return features of maps (N, C, H, W) or (N, H, W) that do not say where in the image anything lies.

    Of the map at unit length (:func:`xaicore.attribution.signatures`): :data:`LEVELS` quantiles of its values, and the
    :data:`PEAKS` largest of its local peaks, pixels whose absolute relevance is the largest of their 3 x 3 neighbours;
    0 where there are fewer. A bright pixel has the same features wherever it lies.

    Returns:
        (N, LEVELS + PEAKS).
    """
    height, width = relevance.shape[-2:]
    points = torch.from_numpy(signatures(relevance))
    size = points.abs().view(-1, 1, height, width)
    around = functional.max_pool2d(size, 3, stride=1, padding=1)
    peaks = torch.where(size == around, size, 0.0).flatten(1)
    largest = peaks.topk(min(PEAKS, peaks.shape[1]), dim=1).values
    levels = points.quantile(torch.linspace(0, 1, LEVELS), dim=1).T
    return torch.cat([levels, largest], 1).numpy()


def balanced(
    guesses: NDArray[np.int64], kinds: NDArray[np.int64], images: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return balanced accuracy, the mean over kinds of the share told rightly, as a ratio over images.

    Each map counts by the inverse of how many there are of its kind. The sum of the first array divided by that of the
    second is balanced accuracy, and so is the mean of the first; an image and its attacked versions come and go together
    where images are drawn (:func:`xaicore.metrics.ratio`).

    Args:
        guesses: (M,) kinds that were guessed.
        kinds: (M,) true kinds.
        images: (M,) the image that each map is of, from 0 to N - 1, each at least once.

    Returns:
        Numerators and denominators, (N,) each.
    """
    names, places, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    count = int(images.max()) + 1
    weights = count / len(names) / counts[places]
    right = np.bincount(images, weights * (guesses == kinds), minlength=count)
    return right.astype(np.float64), np.bincount(images, weights, minlength=count).astype(np.float64)
