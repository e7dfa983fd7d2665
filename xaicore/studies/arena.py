"""What the pages across the papers share: one network with dropout, its digits, and every attack on them.

Both notebooks call these with the same parameters, so that the second takes network and attacks from the store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from xaicore import data, models
from xaicore.attacks import ATTACKS, AttackResult
from xaicore.core.errors import UserError
from xaicore.studies import steps

if TYPE_CHECKING:
    from xaicore.run.engine import Engine
    from xaicore.run.params.arena import SharedParameters
    from xaicore.run.records import Run
    from xaicore.run.store import Store

ROWS = 10
"""Images in a batch and in a pass: the first batches are the same however many images there are."""

TITLES = {
    name: ATTACKS[name].title
    for name in ("fgsm", "bim", "pgd", "mim", "cw_l2", "cw_linf", "cw_l0", "boundary")
}
"""The attacks that the pages share, in their order."""


class Ring(NamedTuple):
    """A network and the images it meets.

    Attributes:
        untrained: the network before training.
        network: trained, with dropout layers.
        train: images (N, C, H, W) in [0, 1] and labels (N,), in random order.
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


def ring(params: SharedParameters, store: Store, run: Run) -> Ring:
    """Return the network, trained or from the store, and its images.

    Args:
        params: which set, network and how many images.
        store: keeps the trained network.
        run: its record names the data and the weights.

    Raises:
        UserError: the network gets fewer than four test images right, or has no dropout.
    """
    sets = {
        split: data.load(
            params.dataset,
            params.data_root,
            split=split,
            n=n,
            seed=params.seed,
            size=params.size,
            channels=params.channels,
        )
        for split, n in (("train", params.n_train), ("validation", None), ("test", None))
    }
    for images in sets.values():
        run.data(images)
    train, validation, test = (sets[split].stack() for split in ("train", "validation", "test"))
    untrained = models.load(
        params.model,
        classes=sets["train"].classes,
        weights=params.weights,
        channels=train[0].shape[1],
        input_size=params.size,
        width=params.width,
        dropout=params.dropout,
        seed=params.seed,
    ).to(params.torch_device)
    recipe = models.Recipe(
        epochs=params.epochs, learning_rate=3e-3, precision="float32", seed=params.seed, small_maps=True
    )
    trained = steps.trained(store, "digit", untrained, *train, validation=validation, recipe=recipe)
    network = trained.model
    run.model("digits", network)
    right = models.predict(network, test[0]).argmax(1) == test[1]
    order = torch.randperm(len(right), generator=torch.Generator().manual_seed(params.seed))
    taken = order[right[order]][: params.n_images]
    if len(taken) < 4:
        raise UserError(f"{params.model} classifies only {len(taken)} test images correctly: train it longer")
    mixed = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(params.seed + 1))
    shuffled = train[0][mixed], train[1][mixed]
    return Ring(untrained, network, shuffled, validation, test[0][taken], test[1][taken], right, test)


def options(params: SharedParameters, name: str) -> dict[str, Any]:
    """Return the parameters of an attack of :data:`TITLES`; the four with a given ball take all their steps."""

    def count(base: int) -> int:
        return max(1, round(base * params.effort))

    ball = {"eps": params.eps, "steps": params.steps, "early_stop": False}
    made: dict[str, Callable[[], dict[str, Any]]] = {
        "fgsm": lambda: {"eps": params.eps},
        "bim": lambda: ball,
        "mim": lambda: ball,
        "pgd": lambda: {**ball, "seed": params.seed},
        "cw_l2": lambda: {"steps": count(25), "search_steps": 3},
        "cw_linf": lambda: {"steps": count(12), "decrease_factor": 0.75},
        "cw_l0": lambda: {"steps": count(20), "attempts": 2},
        "boundary": lambda: {"steps": count(300), "seed": params.seed},
    }
    return made[name]()


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
    """Attack images by an attack of :data:`TITLES`, batch by batch, each kept in the store.

    Args:
        engine: where batches run.
        params: sizes and steps.
        name: of the attack.
        model: the classifier under attack, or a defence.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
        step: what the progress line says; None: the attack's name.
        changes: parameters of the attack that differ from :func:`options`.
    """
    given = {**options(params, name), **changes}
    return steps.attacked(
        engine,
        name,
        model,  # type: ignore[arg-type]
        images,
        labels,
        batch_size=ROWS,
        rows=ROWS,
        step=step or TITLES[name],
        **given,
    )


def noise_of(
    engine: Engine,
    params: SharedParameters,
    model: models.Classifier,
    images: Tensor,
    labels: Tensor,
    attacked: Tensor,
    *,
    scale: float = 1.0,
) -> AttackResult:
    """Return Gaussian noise with the mean and standard deviation of each image's perturbation, times ``scale``.

    Args:
        engine: where batches run.
        params: gives the seed.
        model: what the noise is shown to.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
        attacked: (N, C, H, W), the images under attack.
        scale: above 1 where clipping to [0, 1] is to be made up for.
    """
    return steps.attacked(
        engine,
        "gaussian",
        model,
        images,
        labels,
        batch_size=ROWS,
        rows=ROWS,
        per_image={"like": attacked - images},
        step="noise of equal size",
        seed=params.seed,
        scale=scale,
    )
