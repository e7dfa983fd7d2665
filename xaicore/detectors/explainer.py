r"""EXPLAINER: the entropy of an image's explanation against that of its denoised version (Su et al. 2022).

An image is denoised by non-local means; the network's decision is explained for both; of each map the Shannon entropy
:math:`H` of its histogram is taken. "If the entropy decreases after denoising, the image will be classified as a normal
image. Otherwise, it will be considered as an adversarial image" (Sec. Implementation Details):

.. math:: s(x) = H(M(\mathrm{NLM}(x))) - H(M(x)), \qquad x \text{ is adversarial where } s(x) \ge 0
"""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from xaicore.attribution import METHODS
from xaicore.attribution.integrated import Points, path_integral, quadrature
from xaicore.core import checks
from xaicore.core.batched_model import BatchedModel
from xaicore.core.batches import fixed_batch
from xaicore.core.devices import device_of
from xaicore.core.randomness import stream
from xaicore.detectors.base import Detector, in_batches
from xaicore.detectors.non_local_means import non_local_means
from xaicore.metrics import shannon_entropy

EXPLANATIONS = (
    "smooth_ig",
    "integrated_gradients",
    "deep_lift",
    "shap",
    "grad_cam",
    "guided_grad_cam",
    "gradient",
)
"""The paper's explanations: IG with SmoothGrad, IG, DeepLIFT, SHAP, Grad-CAM, Guided Grad-CAM, plain gradient."""
NOISE, ORDER, PLACE = range(3)
"""Purposes of random draws."""
PATHS = ("smooth_ig", "integrated_gradients", "shap")
"""Those that are integrals along ways to the image; the others are entries of METHODS."""


class Explainer(Detector):
    """The detector of paper 5: it flags an image whose map's entropy does not fall by denoising.

    A tie is flagged, as an entropy that stays the same has not decreased. Nothing needs to be fitted for :meth:`score`
    and :meth:`flagged`, but ``explanation="shap"`` takes its baselines from the clean images; :meth:`fit` gives a
    :meth:`threshold` for a false-positive rate beside the paper's rule.

    Args:
        model: the classifier.
        explanation: one of :data:`EXPLANATIONS`.
        strength: of the denoising, h over the noise level estimated in each image.
        patch_size: of the denoising, in pixels.
        patch_distance: likewise.
        bins: of the histogram of the absolute map over its maximum.
        n_points: gradients in a map of ``smooth_ig`` (a noisy copy for each), ``integrated_gradients`` and ``shap``.
        std: standard deviation of the noise of ``smooth_ig`` and ``shap``, in the units of the images.
        hold_class: whether the map of the denoised image explains the class of the image; otherwise its own.
        batch_size: rows of a pass of the network; None: what suits the size of the images.
        seed: of the noise, which is the same for all images.

    References:
        Su, Yang, Ren and Jin, Explanation-based Adversarial Detection with Noise Reduction, 2022.
    """

    def __init__(
        self,
        model: nn.Module,
        explanation: str = "smooth_ig",
        *,
        strength: float = 0.8,
        patch_size: int = 5,
        patch_distance: int = 6,
        bins: int = 256,
        n_points: int = 8,
        std: float = 0.15,
        hold_class: bool = False,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model,
            explanation=checks.one_of("explanation", explanation, EXPLANATIONS),
            strength=checks.positive("strength", strength),
            patch_size=checks.integer("patch_size", patch_size, least=1),
            patch_distance=checks.integer("patch_distance", patch_distance, least=1),
            bins=checks.integer("bins", bins, least=2),
            n_points=checks.integer("n_points", n_points, least=1),
            std=checks.not_negative("std", std),
            hold_class=checks.flag("hold_class", hold_class),
            batch_size=None if batch_size is None else checks.integer("batch_size", batch_size, least=1),
            seed=checks.integer("seed", seed, least=0),
        )
        self._baselines: Tensor | None = None

    @property
    def explanation(self) -> str:
        """Which explanation the maps are."""
        return str(self._settings["explanation"])

    def denoised(self, images: Tensor) -> Tensor:
        """Return the images after non-local means, (N, C, H, W) in [0, 1]."""
        chosen = {name: self._settings[name] for name in ("strength", "patch_size", "patch_distance")}
        return non_local_means(checks.images(images), **chosen).clamp_(0, 1)

    def maps(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the explanation of each image, channels added up, (N, H, W).

        Args:
            images: as everywhere; ``shap`` must have been fitted.
            targets: (N,) int64 classes to explain; None: the predicted ones.
        """
        images = checks.images(images).detach()
        rows = self._settings["batch_size"] or fixed_batch(images.shape, device_of(self.model))
        if targets is None:
            targets = self._logits(images, rows).argmax(1)
        targets = checks.integers("targets", targets, len(images))
        if self.explanation not in PATHS:
            explain = partial(METHODS[self.explanation], self.model, batch_size=rows)
            return in_batches(explain, rows, images, targets).sum(1)
        count, clean = self._settings["n_points"], images.cpu()
        starts, noise, places, weights = self.ways(images.shape[1:])

        def points(number: Tensor, sample: Tensor) -> Points:
            ends = clean[number] + noise[sample]
            ways = ends - starts[sample]
            return Points(ends - (1 - places[sample]) * ways, ways, weights[sample])

        with BatchedModel.of(self.model, images, rows) as batched:
            wanted = targets.to(batched.device)

            def gradient(inputs: Tensor, number: Tensor) -> Tensor:
                chosen = wanted[number.to(batched.device), None]
                return batched.differentiate(
                    inputs.to(batched.device), lambda logits, part: logits.gather(1, chosen[part])[:, 0]
                )[1].cpu()

            return path_integral(gradient, points, len(images), count, rows).to(images.device).sum(1)

    def entropies(self, images: Tensor) -> Tensor:
        """Return the entropies of the map of each image and of its denoised version, (N, 2) float64, in bits."""
        images = checks.images(images).detach()
        cleaned, count = self.denoised(images), len(images)
        targets = None
        if self._settings["hold_class"]:
            targets = self._logits(images, self._settings["batch_size"]).argmax(1).repeat(2)
        maps = self.maps(torch.cat([images, cleaned]), targets)
        found = shannon_entropy(maps, bins=self._settings["bins"]).cpu()
        return torch.stack([found[:count], found[count:]], dim=1)

    @property
    def limit(self) -> float:
        """The paper's rule as a limit: just below 0, as an entropy that stays the same has not decreased."""
        return math.nextafter(0.0, -1.0)

    def _score(self, images: Tensor) -> Tensor:
        before, after = self.entropies(images).unbind(1)
        return after - before

    @property
    def learns(self) -> bool:
        """False: of the clean images ``shap`` takes single points of its ways, as a setting, and others take none."""
        return False

    def _learn(self, clean: Tensor, calibration: Tensor, adversarial: Tensor | None) -> None:
        self._baselines = clean.cpu() if self.explanation == "shap" else None

    def ways(self, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return where the ways to any image begin, what is added to it, the places on the ways and their weights.

        ``integrated_gradients`` takes the points of a quadrature of the way from black (Sundararajan et al., ICML 2017,
        Eq. 1). ``smooth_ig`` takes each of them on the way to a noisy copy of its own: the expectation over the noise of
        integrated gradients, which SmoothGrad (Smilkov et al. 2017) estimates by a full quadrature for each copy, at a
        fraction of the passes. ``shap`` takes random ones, one in each of as many equal parts of the way, between random
        clean images, each as often as another as far as the number allows, and the noisy image (Lundberg and Lee,
        NeurIPS 2017). The noise is the same for all images, so that an image and its denoised version are compared at the
        same points, and what comes out for an image does not depend on its number.
        """
        count, std, seed = (self._settings[name] for name in ("n_points", "std", "seed"))
        places, weights = (each.float() for each in quadrature(count))
        starts, noise = torch.zeros(count, *shape), torch.zeros(count, *shape)
        if self.explanation != "integrated_gradients":
            for number in range(count):
                draws = stream(seed, 0, number, purpose=NOISE)
                noise[number] = std * torch.from_numpy(draws.standard_normal(tuple(shape), dtype=np.float32))
        if self.explanation == "shap":
            baselines = self._known(self._baselines)
            order = stream(seed, 0, purpose=ORDER).permutation(len(baselines))
            starts = baselines[order[np.arange(count) % len(baselines)]]
            drawn = (np.arange(count) + stream(seed, 0, purpose=PLACE).random(count)) / count
            places = torch.from_numpy(drawn).float().view(-1, 1, 1, 1)
            weights = torch.full_like(places, 1 / count)
        return starts, noise, places, weights
