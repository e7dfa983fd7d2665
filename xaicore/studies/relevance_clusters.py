"""Spectral relevance analysis: what kinds of explanations a set holds (Lapuschkin et al. 2019).

Relevance maps are made small and of unit length; spectral clustering on the graph of nearest neighbours gives groups of
like explanations, and a gap in the eigenvalues of the graph's Laplacian their number. Here the question to the clusters
is whether they hold attacked images apart from clean ones: the adjusted Rand index, with a permutation null that respects
pairs.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.csgraph import laplacian
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import kneighbors_graph
from torch import Tensor, nn

from xaicore.attribution import signatures


class RelevanceClusters(NamedTuple):
    """The groups of a set of maps.

    Attributes:
        labels: (N,) int64, the cluster of each map.
        number: of clusters, that with the largest gap behind it.
        eigenvalues: the smallest eigenvalues of the normalised Laplacian, ascending.
    """

    labels: NDArray[np.int64]
    number: int
    eigenvalues: NDArray[np.float64]


def relevance_clusters(maps: Tensor, *, side: int = 7, most: int = 10, seed: int = 0) -> RelevanceClusters:
    """Cluster relevance maps (N, C, H, W) or (N, H, W) by their look; N is at least 4.

    Maps are averaged down to ``side`` x ``side``. The graph joins each to its log N nearest ones, rounded up, as the
    paper has it, and to at least 3. There are 2 clusters to ``most``; ``seed`` is that of k-means on the eigenvectors.

    Raises:
        ValueError: too few maps, or a number is out of range.
    """
    if maps.ndim not in (3, 4) or len(maps) < 4:
        raise ValueError(f"maps must be (N, C, H, W) or (N, H, W), N of at least 4, not {tuple(maps.shape)}")
    if side < 1 or most < 2:
        raise ValueError(f"side must be at least 1 and most at least 2, not {side} and {most}")
    flat = maps.sum(1) if maps.ndim == 4 else maps
    points = signatures(nn.functional.adaptive_avg_pool2d(flat[:, None].float(), side)).astype(np.float64)
    near = min(max(3, int(np.ceil(np.log(len(points))))), len(points) - 1)
    directed = kneighbors_graph(points, near).toarray()
    graph = np.maximum(directed, directed.T)
    most = min(most, len(points) - 2)
    values = eigh(laplacian(graph, normed=True), eigvals_only=True, subset_by_index=[0, most])
    count = 2 + int(np.argmax(np.diff(values)[1:]))
    clustering = SpectralClustering(count, affinity="precomputed", random_state=seed, assign_labels="kmeans")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a graph in several parts, which are clusters of their own
        labels = clustering.fit_predict(graph).astype(np.int64)
    return RelevanceClusters(labels, count, values)


class PairedAgreement(NamedTuple):
    """How well clusters match two versions of the same images.

    Attributes:
        rand: the adjusted Rand index: 1 for equal groupings, 0 on average for independent ones.
        p_value: share of permutations, the observed order among them, with an index at least as large.
        largest: the 95th percentile of the permutations' index.
    """

    rand: float
    p_value: float
    largest: float


def paired_agreement(
    clusters: NDArray[np.int64], second: NDArray[np.bool_], *, permutations: int = 999, seed: int = 0
) -> PairedAgreement:
    """Compare clusters (2N,) of N images, then of another version of each, with which version an image is.

    The null exchanges the two versions of an image at random, for every image on its own: what both versions share, such
    as their class, then cannot make clusters look as if they told them apart. There are so many ``permutations``, drawn
    by ``seed``; ``second`` (2N,) is N times false, then N times true.

    Raises:
        ValueError: the groups are not of that form.
    """
    half = len(clusters) // 2
    if len(clusters) % 2 or second.shape != clusters.shape or second[:half].any() or not second[half:].all():
        raise ValueError("second must be false for the first half of clusters and true for the second")
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, not {permutations}")
    generator = np.random.default_rng(seed)
    swapped = generator.random((permutations, half)) < 0.5
    groups = np.concatenate([second[None], np.concatenate([swapped, ~swapped], axis=1)])
    indices = rand_indices(clusters, groups)
    observed, null = float(indices[0]), indices[1:]
    reached = 1 + int((null >= observed - 1e-12).sum())
    return PairedAgreement(observed, reached / (1 + permutations), float(np.quantile(null, 0.95)))


def rand_indices(clusters: NDArray[np.int64], groups: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the adjusted Rand index (P,) of clusters (N,) from 0 with each of several divisions in two (P, N).

    References:
        Hubert and Arabie, Comparing Partitions, Journal of Classification 2, 1985.
    """

    def pairs(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        return counts * (counts - 1) / 2

    members = np.eye(int(clusters.max()) + 1)[clusters]
    inside = groups.astype(np.float64) @ members
    sizes, chosen = members.sum(0), groups.sum(1).astype(np.float64)
    common = (pairs(inside) + pairs(sizes - inside)).sum(1)
    by_group = pairs(chosen) + pairs(len(clusters) - chosen)
    by_cluster = pairs(sizes).sum()
    expected = by_group * by_cluster / (len(clusters) * (len(clusters) - 1) / 2)
    return np.asarray((common - expected) / ((by_group + by_cluster) / 2 - expected))
