"""How much the Grad-CAM map of each layer keeps of its clean self under a perturbation of any strength.

Renkhoff et al. 2022 (Sec. III-C, Eq. 5 to 7): the cosine between the map of an image S and that of S + N, layer by
layer, for an adversarial perturbation N_a and for Gaussian noise N_g of the same moments, each at several strengths. Here
for any model, any attack and any layers. Memory does not grow with the strengths, whose images are made one at a time;
:func:`xaicore.studies.steps.similar` takes the images in batches.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attribution import grad_cam
from xaicore.attribution.grad_cam import GradCams
from xaicore.core.errors import UserError
from xaicore.metrics import cosine_similarity
from xaicore.metrics.map_comparison import Measure, compare_maps
from xaicore.studies import as_published
from xaicore.studies.as_published import CORRECTED, Deviations

MEASURES = ("maps", "pictures", "overlays")
"""Measures of the published code beside the text's, all of which each analysis needs."""
INTERPOLATED = "interpolated"
HEADS = ("logits", "softmax")


class Version(NamedTuple):
    """One perturbed version of an image S, ``clip(S + adversarial N_a + gaussian N_g, 0, 1)``.

    What an image of nominal strength s really holds depends on the deviations of the published code
    (:mod:`xaicore.studies.as_published`), so a version is told by its multiples; analyses share most of theirs.

    Attributes:
        adversarial: multiple of the adversarial perturbation N_a.
        gaussian: multiple of the Gaussian noise N_g.
        truncated: stored with 8 bits, every value rounded down to a whole grey level.
    """

    adversarial: float = 0.0
    gaussian: float = 0.0
    truncated: bool = False

    def image(self, clean: Tensor, adversarial_noise: Tensor, gaussian_noise: Tensor) -> Tensor:
        """Return the version of images (N, C, H, W) in [0, 1] whose perturbations are given."""
        noise = self.adversarial * adversarial_noise + self.gaussian * gaussian_noise
        image = (clean + noise).clamp(0, 1)
        return as_published.truncate(image) if self.truncated else image


class Pair(NamedTuple):
    """The versions that one analysis compares, S each: those that stand for adversarial and for Gaussian noise."""

    adversarial: tuple[Version, ...]
    gaussian: tuple[Version, ...]


def versions_of(strengths: Sequence[float], deviations: Deviations = CORRECTED) -> Pair:
    """Return the versions of nominal ``strengths``, as the text has them or as the published code makes them."""
    held = (
        as_published.drifted(strengths) if deviations.drift else [(strength, 0.0) for strength in strengths]
    )
    stored = deviations.truncation
    return Pair(
        tuple(Version(multiple, 0.0, stored) for multiple, _ in held),
        tuple(Version(rest, s, stored) for (_, rest), s in zip(held, strengths, strict=True)),
    )


def needed(pairs: Iterable[Pair]) -> tuple[Version, ...]:
    """Return every version of several analyses, each once, in order of appearance."""
    return tuple(dict.fromkeys(v for pair in pairs for side in pair for v in side))


class LayerSimilarity(NamedTuple):
    """The similarity of all maps with the clean ones.

    Attributes:
        layers: L names, in order of execution.
        similarity: (N, V, L, R, M) float64 in [-1, 1], by version, layer, head of the clean map and measure; NaN where a
            map is zero everywhere, except for the coloured measures, which colour it all the same.
        valid: (N, V, L) bool, the version's map is not zero everywhere.
        clean_valid: (N, L, R) bool, the same of the clean maps.
        targets: (N,) int64, the classes that the clean maps explain: the predicted ones.
        targets_after: (N, V) int64, those of the versions' maps: the ones predicted for the version, or the clean ones
            where the class is held.
    """

    layers: tuple[str, ...]
    similarity: Tensor
    valid: Tensor
    clean_valid: Tensor
    targets: Tensor
    targets_after: Tensor


def similarity_to_others(model: nn.Module, images: Tensor, *, batch_size: int = 32) -> Tensor:
    """Return how similar the clean map of each image is to those of all the others, at every layer.

    It is what two maps of a layer have in common whatever they explain: the floor from which a similarity counts.

    Args:
        model: see :func:`xaicore.attribution.grad_cam`.
        images: (N, C, H, W) in [0, 1], at least two.
        batch_size: images in a pass.

    Returns:
        (N, L) float64, the mean cosine with the maps of the other images; NaN where a map is zero everywhere.
    """
    parts = [grad_cam(model, part, None, "all") for part in torch.split(images, batch_size)]
    columns = []
    for name in parts[0]:
        maps = torch.cat([part[name].flatten(1).double().cpu() for part in parts])
        there = maps.any(1)
        units = nn.functional.normalize(maps, dim=1)
        cosines = (units @ units.T).fill_diagonal_(0)
        count = there.sum() - 1
        columns.append(torch.where(there & (count > 0), cosines.sum(1) / count, torch.nan))
    return torch.stack(columns, 1)


def layer_similarity(
    model: nn.Module,
    clean: Tensor,
    adversarial_noise: Tensor,
    gaussian_noise: Tensor,
    versions: Sequence[Version],
    *,
    layers: str | Sequence[str] = "all",
    measures: Sequence[str] = ("maps",),
    heads: Sequence[str] = ("logits",),
    hold_class: bool = False,
) -> LayerSimilarity:
    """Return the similarity of the maps of perturbed versions of images with those of the clean images.

    Args:
        model: and ``layers``: see :func:`xaicore.attribution.grad_cam`.
        clean: (N, C, H, W) in [0, 1].
        adversarial_noise: (N, C, H, W), the perturbation N_a of each image by whatever attack.
        gaussian_noise: (N, C, H, W), as :func:`xaicore.attacks.noise_like` makes it of N_a.
        versions: V perturbed versions of each image.
        measures: ``"maps"``, the cosine of the maps, and those of :mod:`xaicore.studies.as_published`:
            ``"pictures"``, the cosine of the maps as coloured pictures, and ``"overlays"``, the same laid over the image;
            ``"interpolated"``, the cosine of the maps at the size of the image, bilinear (R of the paper's Eq. 4).
        heads: where the *clean* map's gradient starts, ``"logits"`` or ``"softmax"``. Other maps start at the logits.
        hold_class: whether the versions' maps explain the class predicted for the clean image.

    Raises:
        ValueError: shapes do not fit, there is no version, or as for :func:`~xaicore.attribution.grad_cam`.
        UserError: a layer, measure or head is unknown.
    """
    if clean.ndim != 4 or adversarial_noise.shape != clean.shape or gaussian_noise.shape != clean.shape:
        raise ValueError(
            f"adversarial_noise and gaussian_noise must have the shape of clean, {tuple(clean.shape)}, not "
            f"{tuple(adversarial_noise.shape)} and {tuple(gaussian_noise.shape)}"
        )
    if not versions:
        raise ValueError("versions must hold at least one")
    for name, given, known in (("measures", measures, (*MEASURES, INTERPOLATED)), ("heads", heads, HEADS)):
        if not given or isinstance(given, str) or set(given) - set(known):
            raise UserError(f"{name} must be among {', '.join(known)}, not {given!r}")
    logits = grad_cam(model, clean, None, layers)
    references = [
        logits if head == "logits" else as_published.softmax_grad_cam(model, clean, layers) for head in heads
    ]
    shown, valid = [clean], []

    def maps() -> Iterator[GradCams]:
        for version in versions:
            shown[0] = version.image(clean, adversarial_noise, gaussian_noise)
            found = grad_cam(model, shown[0], logits.targets if hold_class else None, layers)
            valid.append(torch.stack(list(found.valid.values()), 1).cpu())
            yield found

    def enlarged(heat: Tensor) -> Tensor:
        return nn.functional.interpolate(heat[:, None], clean.shape[-2:], mode="bilinear").squeeze(1)

    chosen = {
        "maps": Measure(lambda heat: heat, cosine_similarity),
        INTERPOLATED: Measure(enlarged, cosine_similarity),
        "pictures": as_published.coloured(lambda: shown[0], overlay=False),
        "overlays": as_published.coloured(lambda: shown[0], overlay=True),
    }
    values, targets = compare_maps(references, maps(), [chosen[name] for name in measures])
    clean_valid = torch.stack([torch.stack(list(each.valid.values()), 1).cpu() for each in references], 2)
    return LayerSimilarity(
        tuple(logits), values, torch.stack(valid, 1), clean_valid, logits.targets.cpu(), targets
    )
