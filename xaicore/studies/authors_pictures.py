"""The pictures and coverage files that the authors of paper 3 left in their public repository's history.

JustusRen/Exploring-Adversarial-Attacks-on-Neural-Networks, commits 0eaf804 (Grad-CAM pictures of VGG16 with ImageNet
weights: 20 clean seeds and 25 adversarial examples of 7 of them) and d1d2443 (the neuron coverage of Fig. 2). There is no
Gaussian side. Examples of one seed are not independent, so intervals draw seeds, each with all of its examples.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from xaicore.core.errors import UserError
from xaicore.metrics import Estimate, row_bootstraps
from xaicore.studies.layer_counts import with_width
from xaicore.studies.layer_findings import depth_correlation, lowest_layers, mean_of_known, ranks

Array = NDArray[np.float64]
FOLDER = "p3-authors"
LAYER = re.compile(r"_(block\d_conv\d)_heatmap\.\w+$")
STEP = 4
"""Every fourth pixel of a picture is inverted: most maps were enlarged by as much or more."""
SEQUENCE = 20
"""Images in a sequence of the coverage files, one strength each."""


class Authors(NamedTuple):
    """What the folder holds.

    Attributes:
        layers: 13 names, in order.
        seeds: (E,) number of the seed of each adversarial example.
        pictures: (E, 13) cosine of the pictures with those of the clean seed.
        maps: (E, 13) cosine of the maps inverted from the colours, approximately.
        coverage: strength to (adversarial (20,), random (100,)), shares of neurons after each image.
    """

    layers: tuple[str, ...]
    seeds: NDArray[np.int64]
    pictures: Array
    maps: Array
    coverage: dict[str, tuple[Array, Array]]


def read(root: str | Path | None) -> Authors:
    """Read the folder ``p3-authors`` of ``root`` (None: ``$XAICORE_DATA``).

    Raises:
        UserError: there is none, or a picture is missing.
    """
    folder = Path(root or os.environ.get("XAICORE_DATA") or ".") / FOLDER
    if not (folder / "heatmaps" / "clean").is_dir():
        raise UserError(
            f"there is no folder {FOLDER}/heatmaps in the data root: set authors_pictures to false"
        )
    clean = {_number(each.name): _layers(each) for each in sorted((folder / "heatmaps" / "clean").iterdir())}
    examples = [each for each in sorted((folder / "heatmaps").iterdir()) if each.name != "clean"]
    names = tuple(sorted(next(iter(clean.values()))))
    tree = cKDTree(255 * mpl.colormaps["jet"](np.arange(256))[:, :3])
    seeds, pictures, maps = [], [], []
    for example in examples:
        files = _layers(example)
        seed = _number(next(iter(files.values())).name)
        if seed not in clean or set(files) != set(names):
            raise UserError(f"the pictures of example {example.name} or of its seed are incomplete")
        pairs = [_alike(clean[seed][name], files[name]) for name in names]
        seeds.append(seed)
        pictures.append([_cosine(*pair) for pair in pairs])
        maps.append([_cosine(*(_inverted(tree, picture) for picture in pair)) for pair in pairs])
    sides = [
        json.loads((folder / "coverage" / f"dlfuzz_{side}.json").read_text()) for side in ("normal", "random")
    ]
    coverage = {name: (np.array(sides[0][name]), np.array(sides[1][name])) for name in sides[0]}
    return Authors(names, np.array(seeds), np.array(pictures), np.array(maps), coverage)


def by_seed(seeds: NDArray[np.int64], similarity: Array) -> Array:
    """Return similarities (E, L) as (seeds, most examples of a seed, L), NaN where a seed has fewer."""
    unique, counts = np.unique(seeds, return_counts=True)
    found = np.full((len(unique), counts.max(), similarity.shape[1]), np.nan)
    for row, seed in enumerate(unique):
        found[row, : counts[row]] = similarity[seeds == seed]
    return found


def quantities(
    authors: Authors, similarity: Array, *, n_resamples: int = 2000, seed: int = 0
) -> tuple[Estimate, list[Estimate], list[Estimate]]:
    """Return the correlation of depth and mean similarity, and each layer's rank and share of lowest similarity.

    Args:
        authors: whose seeds the examples are of.
        similarity: (E, 13), ``authors.pictures`` or ``authors.maps``.
        n_resamples: draws of seeds, each with its examples.
        seed: of the draws.

    Returns:
        Spearman's correlation; for each layer its rank, 1 the lowest mean similarity; and the share of examples where it
        is the lowest, with Wilson's interval where that is none or all. ``n`` counts seeds.
    """

    def all_of(drawn: Array) -> Array:
        flat = drawn.reshape(-1, drawn.shape[-1])
        curve = mean_of_known(flat, 0)
        return np.hstack([depth_correlation(curve), ranks(1 - curve), lowest_layers(flat[:, None])])

    found = row_bootstraps(all_of, by_seed(authors.seeds, similarity), n_resamples=n_resamples, seed=seed)
    count = similarity.shape[1]
    return found[0], found[1 : count + 1], [with_width(each, each.n) for each in found[count + 1 :]]


def coverage_gaps(coverage: dict[str, tuple[Array, Array]]) -> tuple[float, float, float]:
    """Return how much more the adversarial side of the coverage files covers, in points, in three comparisons.

    The random file holds one list for all strengths: 20 entries a strength, each on top of all before.

    Returns:
        The mean distance of the curves of Fig. 2a, strength 1 against the first 20 entries, which are those of the lowest
        strength; the same of the lowest strength against these; and at the end the adversarial side of strength 1, after
        20 images, minus the random one after all of its strengths up to 1.
    """
    lowest, random = min(coverage, key=float), next(iter(coverage.values()))[1]
    first = random[:SEQUENCE]
    published, weakest = (float((coverage[name][0][:SEQUENCE] - first).mean()) for name in ("1", lowest))
    up_to_one = SEQUENCE * sum(float(name) <= 1 for name in coverage)
    beyond = float(coverage["1"][0][SEQUENCE - 1] - random[up_to_one - 1])
    return 100 * published, 100 * weakest, 100 * beyond


def _number(name: str) -> int:
    found = re.search(r"(\d{8})", name)
    if found is None:
        raise UserError(f"{name} names no seed")
    return int(found[1])


def _layers(folder: Path) -> dict[str, Path]:
    found = {match[1]: each for each in sorted(folder.iterdir()) if (match := LAYER.search(each.name))}
    return found


def _alike(clean: Path, example: Path) -> tuple[Array, Array]:
    """Return two pictures, the clean one resized to the other as ``experiment.py`` does."""
    with Image.open(clean) as before, Image.open(example) as after:
        pair = before.convert("RGB").resize(after.size), after.convert("RGB")
    first, second = (np.asarray(each, dtype=np.float64) for each in pair)
    return first, second


def _inverted(tree: cKDTree, picture: Array) -> Array:
    """Return the level, 0 to 1, whose colour is nearest to each (fourth) pixel's."""
    return tree.query(picture[::STEP, ::STEP].reshape(-1, 3))[1] / 255


def _cosine(first: Array, second: Array) -> float:
    a, b = first.ravel(), second.ravel()
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length else float("nan")
