"""What the pages across the papers share: one network with dropout, its digits, and every attack on them.

Both notebooks call these with the same parameters, so that the second takes network and attacks from the store. What
many of them take: ``engine`` runs the batches; ``store`` keeps what is computed; ``params`` has sizes and the seed;
``images`` are (N, C, H, W) in [0, 1]; ``labels`` (N,) int64; ``title`` is what the progress line says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xaicore import models
from xaicore.attacks import ATTACKS, AttackResult
from xaicore.detectors import Detector, Explainer, LeaveOneOut, adaptive_attack
from xaicore.detectors.base import threshold_of
from xaicore.detectors.explainer import PATHS
from xaicore.detectors.surrogates import differentiable_score
from xaicore.studies import steps
from xaicore.studies.subjects import shuffled, trained_on_sets

if TYPE_CHECKING:
    from xaicore.run.engine import Engine
    from xaicore.run.params.arena import SharedParameters
    from xaicore.run.records import Run
    from xaicore.run.store import Store

ROWS = 10
"""Images in a batch and in a pass: the first batches are the same however many images there are."""

TITLES = {
    name: ATTACKS[name].title
    for name in (
        "fgsm",
        "bim",
        "pgd",
        "mim",
        "autoattack",
        "deepfool",
        "cw_l2",
        "cw_linf",
        "cw_l0",
        "boundary",
    )
}
"""The attacks that the pages share, in their order."""


class Setting(NamedTuple):
    """A network and the images it meets.

    Attributes:
        untrained: the network before training.
        network: trained, with dropout layers.
        train: images and labels, in random order.
        validation: likewise.
        images: (N, C, H, W), test images that the network classifies correctly, in random order.
        labels: (N,) int64, their classes.
        right: (M,) bool, which of all test images the network classifies correctly.
        test: all test images and labels.
    """

    untrained: models.Classifier
    network: models.Classifier
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    images: Tensor
    labels: Tensor
    right: Tensor
    test: tuple[Tensor, Tensor]


def setting(params: SharedParameters, store: Store, run: Run) -> Setting:
    """Return the network, trained or from the store, and its images; the record of ``run`` names data and weights.

    Raises:
        UserError: the network gets fewer than four test images right, or has no dropout.
    """
    recipe = models.Recipe(epochs=params.epochs, learning_rate=3e-3, seed=params.seed, small_maps=True)
    digits = trained_on_sets(params, store, run, recipe, dropout=params.dropout)
    train, test, taken = digits.train, digits.test, digits.taken
    mixed = shuffled(len(train[1]), 1)
    return Setting(
        digits.untrained,
        digits.network,
        (train[0][mixed], train[1][mixed]),
        digits.validation,
        test[0][taken],
        test[1][taken],
        digits.right,
        test,
    )


def options(params: SharedParameters, name: str) -> dict[str, Any]:
    """Return the parameters of an attack of :data:`TITLES`; the four with a given ball take all their steps."""
    ball = {"eps": params.eps, "steps": params.steps, "early_stop": False}
    made: dict[str, dict[str, Any]] = {
        "fgsm": {"eps": params.eps},
        "bim": ball,
        "mim": ball,
        "pgd": {**ball, "seed": params.seed},
        "autoattack": {
            "eps": params.eps,
            "steps": params.scaled(20),
            "queries": params.scaled(500),
            "seed": params.seed,
        },
        "deepfool": {"steps": params.scaled(50)},
        "cw_l2": {"steps": params.scaled(25), "search_steps": 3},
        "cw_linf": {"steps": params.scaled(12), "decrease_factor": 0.75},
        "cw_l0": {"steps": params.scaled(20), "attempts": 2},
        "boundary": {"steps": params.scaled(300), "seed": params.seed},
    }
    return made[name]


def attacked(
    engine: Engine,
    params: SharedParameters,
    name: str,
    model: torch.nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    step: str | None = None,
    **changes: Any,
) -> AttackResult:
    """Attack images by the attack ``name`` of :data:`TITLES`, batch by batch, each kept in the store.

    The progress line says ``step``, or the attack's name; ``changes`` are parameters of the attack that differ from
    :func:`options`; ``model`` may be a defence.
    """
    given = {"step": step or TITLES[name], **options(params, name), **changes}
    return steps.attacked(engine, name, model, images, labels, batch_size=ROWS, rows=ROWS, **given)  # type: ignore[arg-type]


def scores(
    store: Store, title: str, detector: Detector, images: Mapping[str, Tensor]
) -> dict[str, NDArray[np.float64]]:
    """Return the scores of a fitted detector for groups of images, group → (N,), from the store where they lie there."""

    def score(given: Tensor) -> NDArray[np.float64]:
        inputs, compute = (
            {"detector": detector.fingerprint, "images": given},
            lambda: {"score": detector.score(given)},
        )
        kept = store.get_or_compute(f"scores, {title}", inputs, compute, code=type(detector))
        return kept["score"].numpy()

    return {group: score(given) for group, given in images.items()}


def limit(clean: NDArray[np.float64], fpr: float) -> float:
    """Return the score that at most a share ``fpr`` of the scores (N,) of clean images exceed, as in the tables."""
    return threshold_of(torch.from_numpy(np.sort(clean)), fpr)


def why_not(detector: Detector, limit: float | None = None) -> str:
    """Return why no attack here knows a detector that has to keep a ``limit``; empty where one does."""
    if isinstance(detector, Explainer) and detector.explanation not in PATHS:
        return "no slope: its map counts as constant"
    if isinstance(detector, LeaveOneOut) and limit == 0:
        return "its limit is 0, the least score there is"
    known = detector.differentiable or (
        differentiable_score.dispatch(type(detector)) is not differentiable_score.dispatch(object)
    )
    return "" if known else "no surrogate"


def known(
    store: Store,
    title: str,
    detector: Detector,
    images: Tensor,
    labels: Tensor,
    *,
    follow: bool = True,
    **options: Any,
) -> AttackResult:
    """Attack network and detector (:func:`xaicore.detectors.adaptive_attack`), or take it from the store.

    Args:
        store: and ``title``, ``images``, ``labels``: see above.
        detector: fitted as far as its score needs it.
        follow: the detector's gradient; False: the control, one who only asks.
        options: of the attack, with ``limit``, the score that it has to keep.

    Raises:
        UserError: the detector has no surrogate.
    """
    given = {"images": images, "labels": labels, "batch_size": ROWS, "follow": follow, **options}
    kept = store.get_or_compute(
        f"one who {'knows' if follow else 'asks'}, {title}",
        {"detector": detector.fingerprint, **given},
        lambda: adaptive_attack(detector, **given).arrays(),
        code=adaptive_attack,
    )
    return AttackResult.from_arrays(kept, seconds=kept.seconds)


def predictions(store: Store, title: str, model: models.Classifier, images: Tensor) -> Tensor:
    """Return the classes (N,) that a defence predicts, from the store where they lie there."""
    return store.get_or_compute(
        f"predictions, {title}",
        {"model": model.fingerprint, "images": images},
        lambda: {"class": models.predict(model, images).argmax(1)},
        code=models.predict,
    )["class"]
