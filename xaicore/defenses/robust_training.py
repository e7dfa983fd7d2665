"""Adversarial training: every step learns from the attack on the network as it is then (Madry et al. 2018).

Their Eq. 2.1 asks for the weights whose *worst* loss in the ball is least; the inner maximum is approximated by PGD.
Unlike in adversarial retraining (:mod:`xaicore.defenses.retraining`), no clean image is learned from, and no attack is
made once and for all.
"""

import warnings

from torch import Tensor

from xaicore.attacks.base import AttackWarning
from xaicore.attacks.iterated_sign import pgd
from xaicore.core import checks
from xaicore.defenses.fitting import fitted
from xaicore.models import Classifier


def adversarial_training(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 0.2,
    steps: int = 7,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> Classifier:
    """Return a copy of ``model`` trained on images that PGD makes, from a random start, in each update; in eval mode.

    The attack sees the network in eval mode, the update in train mode, with dropout.

    Args:
        model: where training starts; it is not changed.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, their classes.
        eps: radius of the L-infinity ball, in (0, 1].
        steps: of PGD; the paper has 40 for MNIST at ε = 0.3.
        epochs: passes over the images.
        batch_size: images in an update.
        learning_rate: the greatest of a one-cycle schedule of AdamW.
        seed: of the order of the images, of dropout and of PGD.

    Raises:
        UserError: also where the loss is no longer finite.

    References:
        Madry, Makelov, Schmidt, Tsipras and Vladu, Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR
        2018, Sec. 2 and 4.
    """
    checks.images(images)
    checks.integers("labels", labels, len(images))

    def attacked(network: Classifier, chosen: Tensor, epoch: int) -> Tensor:
        with warnings.catch_warnings():  # of an image without a gradient, from which others are learned
            warnings.simplefilter("ignore", AttackWarning)
            return pgd(
                network.eval(),
                images[chosen],
                labels[chosen],
                eps=eps,
                steps=steps,
                early_stop=False,
                seed=seed,
                index=epoch * len(images) + chosen,
                batch_size=len(chosen),
            ).adversarial

    return fitted(
        model,
        images,
        labels,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        attack=attacked,
    )
