"""Heat and Blur: keep the pixels that a heatmap marks, blur all others, classify again.

Brama and Grinshpoun (2020), Alg. 1. The defence is a classifier of its own here, so that any attack can be aimed at
it as a whole. Two gradients can be had through it. What the heatmap marks is a matter of yes or no, so the mask is
constant around nearly every image, and the derivative of the whole defence is that of blur and network with the mask
held. The other is the straight-through gradient of BPDA (Athalye, Carlini and Wagner 2018, Sec. 4.1): the image is
cleaned on the way up, and on the way down the cleaning counts as if it did nothing.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.attribution import PRESETS, lrp
from xaicore.core import checks
from xaicore.core.batches import even_batch
from xaicore.core.errors import UserError
from xaicore.core.fingerprint import code_digest, digest, module_fingerprint
from xaicore.defenses.base import Defended
from xaicore.defenses.blur import gaussian_blur
from xaicore.metrics.masks import relevance_mask

GRADIENTS = ("held-mask", "straight-through")
MASKS = ("heat", "random", "none")
ROWS = 32
"""Small images in one pass of relevance at most; of large ones fewer, see :func:`xaicore.core.batches.even_batch`."""


def restore(images: Tensor, masks: Tensor, sigma: float) -> Tensor:
    """Return blurred images with the pixels under their masks as they were (Alg. 1, steps 4 and 5).

    Args:
        images: (N, C, H, W) in [0, 1].
        masks: (N, H, W) or (H, W) booleans, true where a pixel is kept, on the device of ``images``.
        sigma: of the blur, in pixels, finite and at least 0.

    Returns:
        (N, C, H, W) in [0, 1]; differentiable with respect to ``images``, the mask held.
    """
    checks.floating("images", images)
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        raise TypeError("masks must be a boolean tensor (N, H, W) or (H, W)")
    checks.not_negative("sigma", sigma)
    size = images.shape[2:]
    if masks.shape not in (size, (len(images), *size)):
        raise UserError(
            f"masks must have the shape {(len(images), *size)} or {tuple(size)} of the images, "
            f"not {tuple(masks.shape)}"
        )
    blurred = gaussian_blur(images, sigma)
    cleaned = torch.where(masks.expand(len(images), *size)[:, None], images, blurred)
    # A sum of weights may miss 1 by the last bit; cutting that off must not cost the gradient at white pixels.
    return cleaned + (cleaned.clamp(0, 1) - cleaned).detach()


class HeatAndBlur(Defended):
    """A classifier behind the Heat-and-Blur defence; itself a classifier of images in [0, 1].

    A pass takes two forward passes and one backward pass of the network (Sec. 3): the prediction and its relevance,
    the mask of Eq. 2, and the answer for the image that is blurred outside the mask. Nothing in it is random. It is
    used, saved in the store and attacked as a :class:`~xaicore.models.Classifier` is. An explanation of the defended
    model is refused: its forward pass is no stack of layers.

    Args:
        model: the classifier to defend; used as it is, its weights are shared.
        sigma: σ of the blur in pixels, finite and at least 0 (the paper has 0.8 to 1.2). With several, the logits are
            the mean over them, with one mask: what to attack when a defender draws σ at random (expectation over
            transformation, Athalye et al. 2018, Sec. 4.2).
        preset: of :func:`xaicore.attribution.lrp`; the paper has deep Taylor decomposition.
        k_std: standard deviations above the mean from which on a pixel is kept (Eq. 2).
        mask: which pixels are kept: ``"heat"``, those of the heatmap; ``"random"``, as many at places drawn once by
            ``seed``, the same for every image; ``"none"``, blur everywhere, and no heatmap is computed; or a boolean
            tensor (H, W), given for all images.
        gradient: ``"held-mask"``, the derivative with the mask held, or ``"straight-through"``, that of the
            network at the cleaned image, handed to the image as it is (BPDA with the identity).
        seed: of the random mask.

    References:
        Brama and Grinshpoun, Heat and Blur: An Interpretability Based Defense Against Adversarial Examples, 2020,
        Alg. 1. Athalye, Carlini and Wagner, Obfuscated Gradients Give a False Sense of Security, ICML 2018.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sigma: float | Sequence[float] = 1.0,
        preset: str = "deep-taylor-bounded",
        k_std: float = 2.0,
        mask: str | Tensor = "heat",
        gradient: str = "held-mask",
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        sigmas = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,)
        if not sigmas:
            raise UserError("sigma must be a number or at least one of them")
        if isinstance(mask, Tensor):
            if mask.dtype != torch.bool or mask.ndim != 2:
                raise TypeError("mask must be a boolean tensor (H, W) or a name")
        else:
            checks.one_of("mask", mask, MASKS)
        self._settings: dict[str, Any] = {
            "sigma": tuple(checks.not_negative("sigma", value) for value in sigmas),
            "preset": checks.one_of("preset", preset, PRESETS),
            "k_std": checks.number("k_std", k_std),
            "mask": mask,
            "gradient": checks.one_of("gradient", gradient, GRADIENTS),
            "seed": checks.integer("seed", seed, least=0),
        }
        self.eval()

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the classifier, the settings and the code of the defence."""
        inner = module_fingerprint(self.model)
        return digest("heat-and-blur", code_digest(HeatAndBlur), inner, self._settings)

    def variant(self, **changes: Any) -> "HeatAndBlur":
        """Return the same defence of the same classifier with some settings changed: a control, another gradient."""
        return HeatAndBlur(self.model, **{**self._settings, **changes})

    def masks(self, images: Tensor) -> Tensor:
        """Return which pixels are kept, (N, H, W) booleans (Alg. 1, steps 1 to 3).

        A network that is not made of layers that relevance knows raises UserError.
        """
        images = checks.floating("images", images)
        checks.within("images", images, 1)
        count, size = len(images), images.shape[2:]
        mask = self._settings["mask"]
        if isinstance(mask, Tensor):
            if mask.shape != size:
                raise UserError(
                    f"images must be of the size of the mask, {tuple(mask.shape)}, not {tuple(size)}"
                )
            return mask.to(images.device).expand(count, *size)
        if mask == "none" or count == 0:
            return torch.zeros(count, *size, dtype=torch.bool, device=images.device)
        preset = self._settings["preset"]
        low, high = (0.0, 1.0) if PRESETS[preset].uses("bounded") else (None, None)
        rows = even_batch(images, ROWS, images.device)
        maps = lrp(self.model, images, preset=preset, low=low, high=high, batch_size=rows)
        kept = relevance_mask(maps, k_std=self._settings["k_std"])
        return kept if mask == "heat" else scattered(kept, self._settings["seed"])

    def clean(self, images: Tensor) -> Tensor:
        """Return the images blurred outside their masks, the output of Alg. 1, without a gradient.

        With several σ, the first of them counts; raises as :meth:`masks` does.
        """
        masks = self.masks(images)
        return restore(images.detach(), masks, self._settings["sigma"][0])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of the cleaned images; raises as :meth:`masks` and the classifier do."""
        masks = self.masks(images)
        logits = []
        for sigma in self._settings["sigma"]:
            cleaned = restore(images, masks, sigma)
            if self._settings["gradient"] == "straight-through":
                cleaned = images + (cleaned - images).detach()
            logits.append(self.model(cleaned))
        return torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]


def scattered(masks: Tensor, seed: int = 0) -> Tensor:
    """Return masks (N, H, W) with as many pixels as the given ones, the first of one random order of all places.

    The order is the same for all images.
    """
    generator = torch.Generator().manual_seed(seed)
    place = torch.randperm(masks[0].numel(), generator=generator).to(masks.device)
    return (place < masks.flatten(1).sum(1, keepdim=True)).view_as(masks)
