"""Suspicious and unsuspicious images told apart without labels, as Su et al. (2022, Sec. Introduction) announce.

Their paper names no clustering and shows none. Two clusters of the scores, or of the two entropies, are looked for here
by k-means (Lloyd 1982) or as a mixture of two normal distributions; the one with the higher mean score is taken to be
the adversarial one.
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch import Tensor

from xaicore.core import checks
from xaicore.core.errors import UserError

METHODS = ("kmeans", "gmm")


def clustered(
    values: Tensor, method: str = "kmeans", *, scores: Tensor | None = None, seed: int = 0
) -> Tensor:
    """Return which of two clusters each image belongs to, (N,) bool, true for the one with the higher mean score.

    Args:
        values: (N,) scores, or (N, D) features, such as the two entropies of :meth:`Explainer.entropies`; finite.
        method: ``"kmeans"``, or ``"gmm"``, a mixture of two normal distributions with any covariances.
        scores: (N,) scores that name the clusters; None: ``values`` if (N,), else the last column minus the first.
        seed: of the starting points, of which ten are tried.

    Raises:
        UserError: also where there are fewer than two different values.
    """
    checks.one_of("method", method, METHODS)
    for name, given in (("values", values), ("scores", scores)):
        if given is not None:
            checks.tensor(name, given)
    if values.ndim not in (1, 2) or not bool(values.isfinite().all()):
        raise UserError(f"values must be finite, (N,) or (N, D), not {tuple(values.shape)}")
    points = values.detach().double().cpu().reshape(len(values), -1).numpy()
    if len(np.unique(points, axis=0)) < 2:
        raise UserError("values must hold at least two different points")
    if scores is None:
        ranked = points[:, -1] - points[:, 0] if points.shape[1] > 1 else points[:, 0]
    else:
        ranked = scores.detach().double().cpu().numpy()
    if ranked.shape != (len(points),):
        raise UserError(f"scores must be (N,), one for each image, not {ranked.shape}")
    if method == "kmeans":
        labels = KMeans(2, n_init=10, random_state=seed).fit_predict(points)
    else:
        labels = GaussianMixture(2, n_init=10, random_state=seed).fit_predict(points)
    if labels.min() == labels.max():
        return torch.zeros(len(points), dtype=torch.bool)
    means = [ranked[labels == cluster].mean() for cluster in (0, 1)]
    return torch.from_numpy(labels == int(means[1] > means[0]))
