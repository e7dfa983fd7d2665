r"""Defensive distillation: train a network on the soft answers of another, both at a high temperature.

Papernot et al. (2016), Sec. IV. With logits z and temperature T the answers are

.. math:: F_i(x) = \frac{e^{z_i(x)/T}}{\sum_k e^{z_k(x)/T}} .

A teacher is trained at T on the labels, a student of the same architecture at T on the teacher's answers. In use T is 1,
so that the student's logits are several times as large as those of a usual network and the probability of its answer
tends to be 1 to the last bit of float32. The gradient of the cross-entropy then loses the part of the true class, or is
zero altogether: attacks that follow it stop, while the border between classes is where it was (Carlini and Wagner 2017,
Sec. VIII). Attacks that use the logits, as all of :mod:`xaicore.attacks` do, are unmoved.
"""

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from xaicore.core import checks
from xaicore.defenses.fitting import fitted
from xaicore.models import Classifier, predict


class Distillation(NamedTuple):
    """Both networks of a distillation, in eval mode.

    Attributes:
        teacher: trained on the labels.
        student: trained on the teacher's answers; the defence, to be used at temperature 1, that is as it is.
    """

    teacher: Classifier
    student: Classifier


def distill(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    temperature: float = 20.0,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> Distillation:
    """Train a teacher on labels and a student on the teacher's answers, both at ``temperature``.

    Args:
        model: the untrained network both start from; it is not changed.
        images: to learn from.
        labels: their classes.
        temperature: T, at least 1; the paper has 20 for MNIST, up to 100 elsewhere.
        epochs: passes over the images, for each of the two.
        batch_size: images in an update.
        learning_rate: the greatest of a one-cycle schedule of AdamW.
        seed: of the order of the images and of dropout.

    Raises:
        UserError: also where the loss is no longer finite.

    References:
        Papernot, McDaniel, Wu, Jha and Swami, Distillation as a Defense to Adversarial Perturbations against Deep Neural
        Networks, IEEE S&P 2016.
    """
    checks.images(images)
    checks.integers("labels", labels, len(images))
    checks.number("temperature", temperature, least=1)
    hard = nn.functional.one_hot(labels, len(model.classes)).float()
    train = partial(
        fitted,
        model,
        images,
        temperature=temperature,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    teacher = train(hard)
    return Distillation(teacher, train(soft_labels(teacher, images, temperature)))


def soft_labels(model: Classifier, images: Tensor, temperature: float) -> Tensor:
    """Return the answers of ``model``, in eval mode, at a temperature greater than 0, (N, K), each row of sum 1."""
    return (predict(model, images) / temperature).softmax(dim=1)
