"""Adversarial retraining as paper 1 does it: go on training on the clean set plus what fooled the model.

Klawikowska, Mikołajczyk & Grochowski (2020), Sec. 4.1: the extended set is the clean set followed by the
*successfully* attacked images under their true labels; training starts from the trained weights. The attack
is made once, against the model before retraining, unlike adversarial training (Madry et al. 2018), which
attacks anew in each step.
"""

import torch
from torch import Tensor

from xaicore.attacks.result import AttackResult
from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.models import Classifier, Recipe, TrainingResult, train


def extended_set(images: Tensor, labels: Tensor, result: AttackResult) -> tuple[Tensor, Tensor]:
    """Return the clean images followed by the successfully attacked ones, with the true labels of both.

    An image that the model misclassified before the attack was not attacked and is not repeated.

    Args:
        images: the images that were attacked.
        labels: their true classes.
        result: the attack on all of them, in the same order.

    Returns:
        Images (N + S, C, H, W) and labels (N + S,), S being the number of successes.
    """
    checks.same_shape("images and those of the attack, result,", images, result.adversarial)
    checks.integers("labels", labels, len(images))
    fooled = (result.success & ~result.info["initially_wrong"]).to(images.device)
    return torch.cat([images, result.adversarial.to(images.device)[fooled]]), torch.cat(
        [labels, labels[fooled.to(labels.device)]]
    )


def adversarial_retraining(
    model: Classifier,
    train_images: Tensor,
    train_labels: Tensor,
    adversarial_images: Tensor,
    adversarial_labels: Tensor,
    *,
    validation: tuple[Tensor, Tensor] | None,
    recipe: Recipe,
) -> TrainingResult:
    """Train ``model`` further on the clean and the adversarial images together, starting from its weights.

    Args:
        model: the trained classifier; it is not changed.
        train_images: the clean images.
        train_labels: their classes.
        adversarial_images: (M, C, H, W), M of at least 1.
        adversarial_labels: (M,), the *true* classes.
        validation: images and labels by which the best epoch is chosen. With clean images alone, an epoch is
            chosen that may have forgotten the adversarial ones; give an extended set.
        recipe: how to train.

    Returns:
        What :func:`xaicore.models.train` returns; its ``model`` is the immune one.
    """
    checks.integers("train_labels", train_labels, len(train_images))
    checks.integers("adversarial_labels", adversarial_labels, len(adversarial_images))
    if not len(adversarial_images):
        raise UserError("adversarial_images must hold at least one image: the attack never succeeded")
    if adversarial_images.shape[1:] != train_images.shape[1:]:
        raise UserError(
            f"adversarial_images must be of the size of train_images, {tuple(train_images.shape[1:])}, "
            f"not {tuple(adversarial_images.shape[1:])}"
        )
    images = torch.cat([train_images, adversarial_images])
    labels = torch.cat([train_labels, adversarial_labels])
    return train(model, images, labels, validation=validation, recipe=recipe)
