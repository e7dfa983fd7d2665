"""The rule of paper 5 in every reading that its text allows: which denoising, which map, which histogram.

The paper names non-local means without a strength, several explanations, and scikit-image's Shannon entropy without bins
(Sec. Image Noise Reduction and Shannon Entropy). A reading is a choice of each; its score is the entropy of the denoised
image's map minus that of the image's, and it flags an image where that is not negative. The paper's Fig. 3 takes the
entropy of maps, its section on Shannon entropy that of the images themselves: ``image`` stands for that among the maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import shannon_entropy as entropy_of_values
from skimage.restoration import denoise_nl_means
from torch import Tensor

from xaicore.attribution.titles import TITLES
from xaicore.detectors import Explainer, exact_means, non_local_means
from xaicore.metrics import Estimate, shannon_entropy

if TYPE_CHECKING:
    from xaicore.run.engine import Engine
    from xaicore.run.records import Run

Flags = NDArray[np.bool_]
QUIET = 0.1
"""Share of clean images that a reading with few false alarms may flag."""


def _as_scikit_image(images: Tensor) -> Tensor:
    layout = images.cpu().permute(0, 2, 3, 1).numpy()
    found = np.stack([denoise_nl_means(each, channel_axis=-1).reshape(each.shape) for each in layout])
    return torch.from_numpy(found).permute(0, 3, 1, 2).to(images)


LIBRARIES: dict[str, Callable[[Tensor], Tensor]] = {
    "scikit_image": _as_scikit_image,
    "opencv": lambda images: exact_means(images * 255, 21, 7, 3.0) / 255,
}
"""Non-local means as two libraries do it by default: h = 0.1, and h = 3 of 255."""


def _signed(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).where(high > low, 1)


def _distinct(maps: Tensor, decimals: int | None = None) -> Tensor:
    values = maps.cpu().numpy()
    values = values if decimals is None else values.round(decimals)
    return torch.tensor([entropy_of_values(each) for each in values], dtype=torch.float64)


QUANTISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "absolute_256": shannon_entropy,
    "absolute_16": partial(shannon_entropy, bins=16),
    "signed_256": lambda maps: shannon_entropy(_signed(maps)),
    "decimals_3": partial(_distinct, decimals=3),
    "raw": _distinct,
}
"""The entropy (N,) of maps (N, H, W), in bits: of absolute values over the largest in 256 or 16 bins, of signed values
between least and largest in 256 bins, of values rounded to three decimals, of floats as they are."""


def denoised(images: Tensor, *, strengths: Sequence[float], libraries: Sequence[str]) -> dict[str, Tensor]:
    """Return images (n, C, H, W) in [0, 1] after non-local means of each kind.

    Args:
        images: as they are.
        strengths: h over the noise level of the image, at least 0.1 apart: ``nlm_08`` is that of 0.8.
        libraries: names of :data:`LIBRARIES`.

    Returns:
        Name of the denoising → (n, C, H, W).
    """
    found = {f"nlm_{round(10 * each):02d}": non_local_means(images, strength=each) for each in strengths}
    found |= {name: LIBRARIES[name](images) for name in libraries}
    return {name: each.clamp(0, 1) for name, each in found.items()}


def reading_scores(
    images: Tensor, *, detector: Explainer | None, quantisations: Sequence[str], **cleaned: Tensor
) -> dict[str, Tensor]:
    """Return the scores of images (n, C, H, W) in [0, 1] by the readings with the detector's map.

    Args:
        images: as they are.
        detector: whose maps are meant; None: the images themselves, channels added up.
        quantisations: names of :data:`QUANTISATIONS`.
        cleaned: what :func:`denoised` gives.

    Returns:
        ``"denoiser.quantisation"`` → (n,) bits.
    """

    def maps(of: Tensor) -> Tensor:
        return (of.sum(1) if detector is None else detector.maps(of)).cpu()

    before, found = maps(images), {}
    for denoiser, given in cleaned.items():
        after = maps(given)
        for name in quantisations:
            found[f"{denoiser}.{name}"] = (QUANTISATIONS[name](after) - QUANTISATIONS[name](before)).cpu()
    return found


class Reading(NamedTuple):
    """What a reading of the rule does.

    Attributes:
        name: ``"explanation.denoiser.quantisation"``, the explanation ``image`` where none is made.
        false_alarms: share of clean images flagged, in [0, 1].
        rates: attack → share of attacked images flagged.
    """

    name: str
    false_alarms: float
    rates: Mapping[str, float]

    def weakest(self, attacks: Sequence[str], needed: int) -> tuple[float, str]:
        """Return the excess over the false alarms, in [-1, 1], and the attack, of the ``needed``-th best rate."""
        ranked = sorted(((self.rates[name], name) for name in attacks), reverse=True)
        rate, name = ranked[needed - 1]
        return rate - self.false_alarms, name


def readings_of(flags: Mapping[str, Mapping[str, Flags]]) -> list[Reading]:
    """Return the readings, name → group → (n,) bool, with the group ``clean`` and others, by rising false alarms."""
    found = [
        Reading(
            name,
            float(groups["clean"].mean()),
            {group: float(flagged.mean()) for group, flagged in groups.items() if group != "clean"},
        )
        for name, groups in flags.items()
    ]
    return sorted(found, key=lambda reading: reading.false_alarms)


def flagged(
    engine: Engine,
    explainers: Mapping[str, Explainer],
    groups: Mapping[str, Tensor],
    *,
    strengths: Sequence[float],
    libraries: Sequence[str],
    quantisations: Sequence[str],
) -> dict[str, dict[str, Flags]]:
    """Return what every reading flags, with the maps and with the images themselves.

    Args:
        engine: runs the batches and keeps them.
        explainers: explanation → detector, whose maps are meant.
        groups: name → images (n, C, H, W).
        strengths: and ``libraries``, of :func:`denoised`.
        quantisations: names of :data:`QUANTISATIONS`.

    Returns:
        ``"explanation.denoiser.quantisation"`` → group → (n,) bool; ``image`` is one of the explanations.
    """
    found: dict[str, dict[str, Flags]] = {}
    maps: dict[str, Explainer | None] = {**explainers, "image": None}
    for group, images in groups.items():
        step, chosen = (
            f"readings, denoising, {group}",
            {"strengths": list(strengths), "libraries": list(libraries)},
        )
        cleaned = engine.map(step, denoised, {"images": images}, constants=chosen, batch_size=100)
        for name, detector in maps.items():
            constants = {"detector": detector, "quantisations": list(quantisations)}
            step, arrays = f"readings, {TITLES.get(name, name)}, {group}", {"images": images, **cleaned}
            scores = engine.map(step, reading_scores, arrays, constants=constants, batch_size=100)
            for reading, values in scores.items():
                found.setdefault(f"{name}.{reading}", {})[group] = values.numpy() >= 0
    return found


def record_best(
    run: Run,
    family: str,
    flags: Mapping[str, Mapping[str, Flags]],
    attacks: Sequence[str],
    *,
    needed: int,
    noise: str,
    images: Mapping[str, NDArray[np.int64]],
) -> tuple[str, dict[str, Estimate | None]]:
    """Record the best reading that a user could have chosen before seeing attacks; return its name and numbers.

    It is, of those with at most :data:`QUIET` false alarms, or with the fewest where all have more, the one with the
    largest excess over them; recorded as ``p5.family.…``. Of several its result chooses it, which favours the rule, and
    its interval is that of a reading not chosen. ``…_any`` is the largest excess of all readings.

    Args:
        run: that records.
        family: in the ids, for these attacks.
        flags: what :func:`flagged` gives.
        attacks: their names.
        needed: how many of them the reading has to find: the excess is that of the ``needed``-th best.
        noise: group of harmless noise, whose excess by the same reading is recorded beside it.
        images: of each group, the number of each image in its set; the first ones are meant.
    """
    readings = readings_of(flags)
    most = max(QUIET, readings[0].false_alarms)
    quiet = [reading for reading in readings if reading.false_alarms <= most]
    best = max(quiet, key=lambda reading: reading.weakest(attacks, needed)[0])
    attack, of = best.weakest(attacks, needed)[1], flags[best.name]
    those = {group: images[group][: len(flagged)] for group, flagged in of.items()}
    found = {
        "clean flagged (%)": run.share(
            f"p5.family.{family}_false_alarms", of["clean"], images=those["clean"]
        ),
        "attacked flagged (%)": run.share(f"p5.family.{family}_found", of[attack], images=those[attack]),
    }
    for column, group, id in (("excess (points)", attack, family), ("of noise", noise, f"{family}_noise")):
        if len(of.get(group, ())) > 1:
            pair = those[group], those["clean"]
            found[column] = run.difference(f"p5.family.{id}", of[group], of["clean"], "points", images=pair)
    largest = max(reading.weakest(attacks, needed)[0] for reading in readings)
    run.value(f"p5.family.{family}_any", 100 * largest, n=len(of["clean"]), unit="points")
    return best.name.replace("_", " ").replace(".", ", "), found
