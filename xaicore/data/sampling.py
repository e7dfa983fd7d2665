"""Which image goes where: class-balanced subsets and stratified splits that depend on nothing but a seed.

Images are ranked within their class by sha256(seed, class, position), so a choice needs no random generator,
is the same in every process and on every machine, and the subsets of one seed are nested: the first n images
of the balanced order are also the first n of every larger subset.
"""

import hashlib
from collections.abc import Callable, Sequence

from torch import Tensor

from xaicore.core.errors import UserError


def _rank(*key: object) -> bytes:
    return hashlib.sha256(":".join(map(str, key)).encode()).digest()


def _ranked_by_class(labels: Tensor, seed: int) -> dict[int, list[int]]:
    ranked: dict[int, list[int]] = {}
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten().tolist()
        ranks = [_rank("image", seed, label, number) for number in range(len(members))]
        ranked[label] = [position for _, position in sorted(zip(ranks, members, strict=True))]
    return ranked


def balanced_order(labels: Tensor, seed: int) -> list[int]:
    """Order all positions so that every prefix is as evenly spread over the classes as the classes allow.

    One image of each class, in shuffled class order, then a second one of each class, and so on; classes that
    run out are skipped. From (N,) integer labels, a permutation of 0..N-1; another seed gives another order.
    """
    ranked = _ranked_by_class(labels, seed)
    rounds = [
        (turn, _rank("class", seed, turn, label), position)
        for label, positions in ranked.items()
        for turn, position in enumerate(positions)
    ]
    return [position for _, _, position in sorted(rounds)]


def stratified(
    labels: Tensor, fractions: Sequence[float], seed: int, called: Callable[[int], str] = "class {}".format
) -> list[list[int]]:
    """Cut every class into disjoint parts of the given fractions.

    The parts of a class with m images have round(m·fraction) images; the first part takes what rounding
    leaves when the fractions sum to one. Every part of a positive fraction gets at least one image of every
    class.

    From (N,) integer labels and non-negative fractions with a sum of at most 1, one ascending list of positions per
    fraction; a message calls a class what ``called`` says.

    Raises:
        ValueError: the fractions do not fit.
        UserError: a class has too few images to give one to every part.
    """
    if not fractions or min(fractions) < 0 or sum(fractions) > 1 + 1e-9:
        raise ValueError(f"fractions must be non-negative with a sum of at most 1, got {tuple(fractions)}")
    parts: list[list[int]] = [[] for _ in fractions]
    whole = sum(fractions) > 1 - 1e-9
    for label, positions in _ranked_by_class(labels, seed).items():
        counts = [max(1, round(len(positions) * fraction)) if fraction > 0 else 0 for fraction in fractions]
        largest = max(range(len(fractions)), key=lambda part: fractions[part])
        excess = sum(counts) - len(positions)
        if whole or excess > 0:
            counts[largest] -= excess
        if counts[largest] < 1:
            needed = sum(fraction > 0 for fraction in fractions)
            raise UserError(
                f"{called(label)} has {len(positions)} images, but a split needs at least {needed}: "
                "add images or leave the class out"
            )
        start = 0
        for part, count in zip(parts, counts, strict=True):
            part.extend(positions[start : start + count])
            start += count
    return [sorted(part) for part in parts]
