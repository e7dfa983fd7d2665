"""Maps of many layers, before and after, compared layer by layer while they are there.

A map lives until it has been compared: what is kept of a batch is one number for each image, version and layer, so that
memory does not grow with the number of versions. Chapter 2 compares with SSIM, chapter 3 with the cosine.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from xaicore.attribution.grad_cam import GradCams
from xaicore.core.errors import UserError


class Measure(NamedTuple):
    """How two maps are compared.

    Attributes:
        prepare: maps (N, h, w) of a layer, at least 0, to what is compared, (N, ...); done once for each map.
        compare: what was made of the maps before and after to (N,) float64; NaN where it is undefined.
    """

    prepare: Callable[[Tensor], Tensor]
    compare: Callable[[Tensor, Tensor], Tensor]


class Compared(NamedTuple):
    """The numbers of one batch.

    Attributes:
        values: (N, V, L, R, M) float64 on the CPU, one for each image, version, layer, reference and measure.
        targets: (N, V) int64, the classes that the versions' maps explain.
    """

    values: Tensor
    targets: Tensor


def compare_maps(
    references: Sequence[GradCams], versions: Iterable[GradCams], measures: Sequence[Measure]
) -> Compared:
    """Compare the maps of V versions of N images with R references, by M measures.

    Args:
        references: R sets of maps of the images before, say of the clean ones, with the same L layers.
        versions: V sets of maps of the images after; each is taken when its turn comes and then dropped, so that they
            may be computed on the way.
        measures: M ways to compare.

    Returns:
        All numbers, and the classes explained.

    Raises:
        ValueError: no reference, version or measure, or the layers differ.
    """
    if not references or not measures:
        raise UserError("references and measures must hold at least one each")
    prepared = [
        [[measure.prepare(maps) for measure in measures] for maps in reference.values()]
        for reference in references
    ]
    rows, targets = [], []
    for version in versions:
        if any(list(version) != list(reference) for reference in references):
            raise UserError("versions must have the layers of the references, in the same order")
        numbers = []
        for position, maps in enumerate(version.values()):
            after = [measure.prepare(maps) for measure in measures]
            for reference in prepared:
                pairs = zip(measures, reference[position], after, strict=True)
                numbers += [measure.compare(before, now).double().cpu() for measure, before, now in pairs]
        rows.append(torch.stack(numbers, 1).unflatten(1, (len(version), len(references), len(measures))))
        targets.append(version.targets.cpu())
    if not rows:
        raise UserError("versions must hold at least one")
    return Compared(torch.stack(rows, 1), torch.stack(targets, 1))
