"""What each notebook needs: how often images go through which network, and how many it holds, from its parameters.

The formulas follow the notebooks' cells and take the largest number where an attack may stop early. So these are
estimates from above of what networks do; decoding of images, statistics, UMAP and figures are not in them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, log
from typing import Any

from xaicore import data, models
from xaicore.book.operations import CONTRAST, GRADIENT, RELEVANCE, Network, Work
from xaicore.run.params import NotebookParameters

SIZES: Mapping[str, Mapping[str, int]] = {
    "cats-vs-dogs": {"train": 7200, "validation": 800, "test": 2000},
    "faces": {"train": 2368, "validation": 296, "test": 296},
    "imagenet": {"test": 50_000},
    "mnist": {"train": 54_000, "validation": 6000, "test": 10_000},
}
"""Images of the sets that lie in folders: the split of paper 1; the 80/10/10 split of paper 2, whose accuracies are
multiples of 1/296; the validation photographs of ImageNet; and MNIST."""


@dataclass(frozen=True)
class Need:
    """Work of a notebook, and the values (floats) of the arrays of images that it holds."""

    work: tuple[Work, ...]
    values: float
    trained: tuple[Network, ...] = ()


def count(dataset: str, split: str, wanted: int | None = None) -> int:
    """Return how many images a notebook gets that wants so many, None for all."""
    there = SIZES[dataset].get(split, 0) if dataset in SIZES else len(data.load(dataset, split=split))
    return there if wanted is None else min(there, wanted)


def _values(network: Network) -> int:
    return network.channels * network.size**2


def _first(p: Any, classes: int) -> Network:
    channels = getattr(p, "channels", None) or data.SETS[p.dataset].channels
    return Network(p.model, p.size, channels, classes, getattr(p, "width", 1.0))


def _people(p: Any) -> int:
    return 50 if p.dataset == "faces" else 40


def _p1(p: Any) -> Need:
    network = _first(p, 2)
    share = 1.0 if p.classes is None else len(p.classes) / 10
    train, validation, test = (
        round(share * count(p.dataset, split, None)) if wanted is None else wanted
        for split, wanted in (("train", p.n_train), ("validation", p.n_validation), ("test", p.n_images))
    )
    everything = train + validation + test
    training = GRADIENT * train * (p.epochs + 2 * 2 * p.immune_epochs)
    fgsm = everything * (GRADIENT + p.eps_steps) + 3 * test * (GRADIENT + p.eps_steps)
    pixel = test * p.population * (p.generations + 1)
    pixel += (train + validation) * p.population * (p.training_generations + 1)
    maps = RELEVANCE * (11 * test + 3 * (train + test))
    values = _values(network) * (3 * everything + 11 * test)
    return Need((Work(network, training + fgsm + pixel + maps),), values, (network,) * 3)


def _faces(p: Any) -> tuple[int, int]:
    """Return the numbers of images for training, and of test images."""
    if p.shares is None:
        train = count(p.dataset, "train") + count(p.dataset, "validation")
        return train, count(p.dataset, "test", p.n_images)
    whole = count(p.dataset, "all") if p.dataset not in SIZES else sum(SIZES[p.dataset].values())
    test = round(whole * p.shares[2])
    return round(whole * (p.shares[0] + p.shares[1])), min(test, p.n_images or test)


def _face_training(p: Any, name: str, train: int) -> float:
    """Return the passes of training one network on faces prepared in both ways, the head again on one of them."""
    if p.weights is not None:
        return 2 * train
    return 2 * train * (GRADIENT * models.face_recipe(name, epochs=p.epochs).epochs + 1)


def _p2(p: Any) -> Need:
    train, test = _faces(p)
    channels = 3 if p.weights is not None else data.SETS[p.dataset].channels
    networks = [Network(name, p.size, channels, _people(p)) for name in p.models]
    levels = 1 + len(p.eps)
    # FGSM in black and white boxes on images prepared in two ways, answers to all of it, and maps of three kinds.
    attack = 4 * (GRADIENT + 1 + levels) * test
    maps = GRADIENT * 3 * levels * test + GRADIENT * 2 * levels * min(test, p.n_layer_images)
    work = tuple(
        Work(network, _face_training(p, network.name, train) + attack + maps) for network in networks
    )
    kept = 2 * (train + test) + test * levels * (2 * (1 + len(networks)) + 1)
    return Need(work, kept * _values(networks[0]), tuple(networks))


def _p3(p: Any) -> Need:
    strengths = len(p.strengths)
    fuzz = GRADIENT * p.iterations + 2
    versions = 1 + 4 * strengths  # corrected and as published, adversarial and Gaussian
    similar = GRADIENT * 2  # maps of the answer, from logits and from their softmax
    others = {"cw_l2": GRADIENT * 50 * 6, "cw_linf": GRADIENT * 200 * 10, "pgd": GRADIENT * 40}
    train, seeds = (
        _faces(p) if p.dataset in ("orl-faces", "faces") else (0, count(p.dataset, "test", p.n_images))
    )
    classes = _people(p) if train else 1000
    network = _first(p, classes)
    passes = seeds * (fuzz + similar * (versions + 2) + 1 + 2 * strengths)
    passes += _face_training(p, p.model, train) if train else 0
    for name in p.other_attacks:
        passes += min(seeds, p.n_other) * (others.get(name, GRADIENT * 10) + similar * (1 + 2 * strengths))
    work = [Work(network, passes)]
    values = _values(network) * (2 * train + seeds * (4 + 1 + 2 * strengths))
    if p.second_dataset is not None:
        second = Network(p.second_model, p.second_size)
        seconds = count(p.second_dataset, "test", p.n_second)
        work.append(Work(second, seconds * (fuzz + similar * (1 + 2 * strengths))))
        values += _values(second) * seconds * 4
    return Need(tuple(work), values, (network,) if train else ())


def _p4(p: Any) -> Need:
    network = Network(p.model, p.size)
    images = count(p.dataset, "test", p.n_images)
    costly, adaptive = min(images, p.n_costly), min(images, p.n_adaptive)

    def steps(base: int) -> int:
        return max(1, round(base * p.effort))

    attack = images * GRADIENT * 2 * (steps(10) + steps(15))
    attack += costly * (GRADIENT * 2 * steps(8) * 1.25 + steps(100))
    groups = 3 * images + 2 * costly
    maps = groups * (RELEVANCE + 1) + 2 * 2 * 3 * CONTRAST * images
    methods = (
        5 * images * GRADIENT * 20
    )  # masks of other explanations; those that average take twenty gradients
    sweep = len(p.sigmas) * groups
    defence = images * steps(6) * GRADIENT * len(p.eps)  # the bare network
    defence += images * steps(6) * (GRADIENT + RELEVANCE) * 2 * len(p.eps)
    defence += images * (steps(5) * (steps(5) * GRADIENT + RELEVANCE) + 3 * GRADIENT * steps(6))
    defence += adaptive * 2 * steps(8) * (GRADIENT + RELEVANCE)
    work = Work(network, attack + maps + methods + sweep + defence)
    return Need((work,), _values(network) * (groups * 3 + 12 * images))


def _points(names: list[str], points: int) -> int:
    """Return the passes of one map of each explanation."""
    averaging = {"smooth_ig", "integrated_gradients", "shap", "deep_lift"}
    return sum(GRADIENT * (points if name in averaging else 1) for name in names)


def _cw_l0(steps: int) -> int:
    return GRADIENT * 2 * steps * 20  # two attempts for each of about twenty sets of pixels


def _cw_linf(steps: int, factor: float) -> int:
    return GRADIENT * steps * ceil(log(0.05) / log(factor))


def _digits(p: Any) -> tuple[Network, int, int, int]:
    network = _first(p, 10)
    train = count(p.dataset, "train", p.n_train)
    images = count(p.dataset, "test", p.n_images)
    return network, train, images, min(images, p.n_attacked)


def _p5(p: Any) -> Need:
    network, train, images, several = _digits(p)
    few = min(images, p.n_costly)

    def steps(base: int) -> int:
        return max(1, round(base * p.effort))

    passes = GRADIENT * train * p.epochs + several * GRADIENT * (2 * p.steps + 3 * steps(25))
    passes += few * (_cw_l0(steps(20)) + _cw_linf(steps(15), 0.8))
    groups = images + 3 * several + 2 * few + 2 * several
    passes += groups * _points(p.explanations, p.points)
    sweep = len(p.strengths) * 6 * min(p.n_strength, images)
    passes += sweep * _points([p.explanation], p.points) + groups * 6
    passes += min(p.n_adaptive, several) * p.steps * GRADIENT * 3 * p.points
    eye = Network(p.photograph_model, p.photograph_size)
    photographs = count(p.photographs, "test", p.n_photographs)
    seen = photographs * (GRADIENT * steps(p.patch_steps) + 4 * GRADIENT * p.photograph_points + 4 * 4)
    values = _values(network) * (train + 3 * groups) + _values(eye) * 9 * photographs
    return Need((Work(network, passes), Work(eye, seen)), values, (network,))


def _arena(p: Any) -> Need:
    network, train, images, several = _digits(p)
    few, learned = min(images, p.n_costly), min(train, p.n_learned)

    def steps(base: int) -> int:
        return max(1, round(base * p.effort))

    training = GRADIENT * train * (p.epochs + 2 * p.epochs + p.retraining_epochs)
    four = GRADIENT * (1 + 3 * p.steps)
    wagner = GRADIENT * 3 * steps(25)
    attack = several * (four + wagner) + learned * GRADIENT * p.steps
    attack += few * (_cw_l0(steps(20)) + _cw_linf(steps(12), 0.75) + steps(300))
    groups = images + 7 * several + 3 * few
    seen = groups * (_points(p.explanations, p.points) + p.masks + 2 * RELEVANCE + 4 * GRADIENT + 10)
    seen += learned * 2 * (2 * RELEVANCE + _points(["shap"], p.points))
    defended, costly = min(several, p.n_defended), min(several, p.n_defended_costly)
    behind = 6 * defended * (four + GRADIENT * p.steps) + 6 * costly * (wagner + steps(50))
    behind += (defended * four + costly * wagner) * RELEVANCE  # Heat and Blur explains what it is shown
    values = _values(network) * (3 * train + 4 * groups)
    return Need((Work(network, training + attack + seen + behind),), values, (network,) * 3)


def _atlas(p: Any) -> Need:
    network, train, _, several = _digits(p)

    def steps(base: int) -> int:
        return max(1, round(base * p.effort))

    cost = {"fgsm": GRADIENT, "cw_l2": GRADIENT * 3 * steps(25)}
    photo_cost = {"fgsm": GRADIENT, "cw_l2": GRADIENT * 2 * steps(10)}
    passes = GRADIENT * train * p.epochs
    maps = _points(p.explanations, p.samples) + RELEVANCE
    passes += several * sum(cost.get(name, GRADIENT * p.steps) + 3 * maps for name in p.attacks)
    eye = Network("efficientnet_lite0", p.photograph_size)
    there = count(p.photographs, "test", p.n_photographs and 10 * p.n_photographs)
    photographs = min(there, p.n_photographs or there)
    maps = _points(p.photograph_explanations, p.samples) + RELEVANCE
    seen = there + photographs * sum(
        photo_cost.get(name, GRADIENT * p.steps) + 3 * maps for name in p.photograph_attacks
    )
    values = _values(network) * (train + 3 * several * len(p.attacks))
    values += _values(eye) * (there + photographs * (1 + 3 * len(p.photograph_attacks)))
    return Need((Work(network, passes), Work(eye, seen)), values, (network,))


def _explorer(p: Any) -> Need:
    network = _first(p, 10)
    train = count(p.dataset, "train", p.n_train)
    eye = Network("efficientnet_lite0", p.photograph_size)

    def passes(images: int, attacks: list[str], eps: list[float], explanations: list[str]) -> float:
        attack = sum(
            GRADIENT * (p.cw_steps * p.cw_searches if name == "cw_l2" else p.iterations * len(eps))
            for name in attacks
        )
        cases = 1 + 2 * len(attacks) * len(eps)
        return images * (attack + cases * 2 * len(explanations) * max(RELEVANCE, GRADIENT * p.samples))

    digits = passes(p.n_images or 100, p.attacks, p.eps, p.explanations)
    photographs = passes(p.n_photographs, p.photograph_attacks, p.photograph_eps, p.photograph_explanations)
    values = _values(network) * train + _values(eye) * (20 + 60 * p.n_photographs)
    work = (Work(network, GRADIENT * train * p.epochs + digits), Work(eye, photographs))
    return Need(work, values, (network,))


NEEDS: dict[str, Callable[[NotebookParameters], Need]] = {
    "p1_inspecting_attacks": _p1,
    "p2_gradcam_shift": _p2,
    "p3_layer_by_layer": _p3,
    "p4_heat_and_blur": _p4,
    "p5_explainer": _p5,
    "arena": _arena,
    "atlas": _atlas,
    "explorer": _explorer,
}
