"""What chapter 5 looks at: digits and the network that is trained on them, photographs and the patch that fools another.

What both take: ``params`` has sets, sizes, network and seed; ``store`` keeps what is computed; ``run`` records data,
weights and how many images there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xaicore import data, models
from xaicore.attacks import AttackResult
from xaicore.core.errors import UserError
from xaicore.studies import steps
from xaicore.studies.subjects import trained_on_sets

if TYPE_CHECKING:
    from xaicore.run.engine import Engine
    from xaicore.run.params.chapter5 import P5Parameters
    from xaicore.run.records import Run
    from xaicore.run.store import Store


@dataclass(frozen=True)
class Digits:
    """Digits and the network trained on them.

    Attributes:
        network: trained.
        training: (N, C, H, W), clean images to learn from.
        validation: (M, C, H, W), clean images for thresholds.
        right: (T,) bool, which test images the network classifies correctly.
        chosen: (n,) numbers of test images, among these, in an order that is the same for every seed.
        images: (n, C, H, W), those.
        labels: (n,) int64.
    """

    network: models.Classifier
    training: Tensor
    validation: Tensor
    right: Tensor
    chosen: Tensor
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Photographs:
    """Photographs that a network classifies correctly, with an adversarial patch and with a disc of random colours.

    Attributes:
        network: with published weights.
        classes: names of its classes.
        count: how many photographs there were.
        index: (P,) numbers of those it classifies correctly and that do not show the patch's class already.
        images: (P, 3, H, W), these.
        labels: (P,) int64.
        patched: what the patch makes of them.
        with_disc: (P, 3, H, W), the same place filled with random colours.
        disc_kept: (P,) bool, where the answer stays right with these.
    """

    network: models.Classifier
    classes: tuple[str, ...]
    count: int
    index: NDArray[np.int64]
    images: Tensor
    labels: Tensor
    patched: AttackResult
    with_disc: Tensor
    disc_kept: Tensor


def digits(params: P5Parameters, store: Store, run: Run) -> Digits:
    """Return digits and network, trained or from the store.

    Raises:
        UserError: the network gets fewer than four test images right.
    """
    recipe = models.Recipe(
        epochs=params.epochs, learning_rate=2e-3, precision="float32", seed=params.seed, small_maps=True
    )
    found = trained_on_sets(params, store, run, recipe)
    (images, labels), taken = found.test, found.taken
    # The paper calls its test images validation.
    for part, of in (("train", found.train), ("validation", found.test)):
        run.value(f"p5.count.mnist.{part}", len(of[1]), unit="images")
    return Digits(
        found.network, found.train[0], found.validation[0], found.right, taken, images[taken], labels[taken]
    )


def photographs(params: P5Parameters, engine: Engine, run: Run) -> Photographs:
    """Return photographs, each with a patch of its own at one place in the lower right.

    Raises:
        UserError: the network gets none of them right.
    """
    pictures = data.load(
        params.photographs,
        params.other_root,
        split="all",
        n=params.n_photographs,
        size=params.photograph_size,
    )
    network = models.load(
        params.photograph_model, weights=params.photograph_weights, classes=pictures.classes
    ).to(params.torch_device)
    run.data(pictures)
    run.model("photographs", network)
    stack, truth = pictures.stack()
    right = models.predict(network, stack, batch_size=32).argmax(1) == truth
    right &= truth != params.patch_class
    if not right.any():
        raise UserError(
            f"{params.photograph_model} classifies none of the {len(truth)} photographs correctly"
        )
    images, labels = stack[right], truth[right]
    rows = min(len(images), 16)
    patched = steps.attacked(
        engine,
        "patch",
        network,
        images,
        labels,
        step="patch",
        batch_size=rows,
        rows=rows,
        size=params.patch_size,
        steps=params.scaled(params.patch_steps),
        samples=1,
        trials=1,
        scale=(1.0, 1.0),
        rotation=0.0,
        location=(0.75, 0.75),
        learning_rate=0.5,
        target=params.patch_class,
        seed=0,  # the network is published and the patch stays where it is: nothing is drawn
    )
    colours = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    with_disc = torch.where(patched.info["mask"][:, None], colours.to(images), images)
    kept = models.predict(network, with_disc, batch_size=32).argmax(1) == labels
    index = np.flatnonzero(right.numpy())
    classes = tuple(pictures.classes)
    return Photographs(network, classes, len(truth), index, images, labels, patched, with_disc, kept)
