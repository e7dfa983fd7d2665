r"""The gradient of a logit with respect to the input, alone and times the input.

.. math:: G = \frac{\partial z_t}{\partial x}, \qquad x \odot G

Simonyan et al., ICLR workshop 2014; input times gradient equals the z rule of LRP for ReLU networks, up
to the bias (Shrikumar et al., 2016).
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.attribution.batches import UNWATCHED, Batch, explained, target_logits
from xaicore.attribution.inputs import network_of


def gradient(
    model: nn.Module, images: Tensor, targets: Tensor | int | None = None, *, batch_size: int = 32
) -> Tensor:
    """Return the gradient of the chosen logit with respect to the network's input.

    Args:
        model: a :class:`~xaicore.models.Classifier`, whose network is explained on its normalised input,
            or a module that takes ``images`` as they are. It is run in eval mode and left as it was.
        images: (N, C, H, W), finite, of the floating type of the model; in [0, 1] for a classifier.
        targets: the neurons to explain: one index for all, (N,) indices, or None for the arg max of the
            logits.
        batch_size: how many images are computed at once; memory grows with it and not with N.

    Returns:
        (N, C, H, W), on the device of ``images``.

    Raises:
        ValueError: an argument is out of range or does not fit the model.
        TypeError: ``images`` or ``targets`` is no tensor of the right kind.
    """
    network = network_of(model)
    return explained(
        lambda batch: slopes(network, batch.inputs, batch.targets), model, images, targets, batch_size
    )


def input_times_gradient(
    model: nn.Module, images: Tensor, targets: Tensor | int | None = None, *, batch_size: int = 32
) -> Tensor:
    """Return the network's input times the gradient of the chosen logit with respect to it.

    Arguments, result and errors are those of :func:`gradient`. For a classifier the input is the
    normalised image.
    """
    network = network_of(model)

    def explain(batch: Batch) -> Tensor:
        return slopes(network, batch.inputs, batch.targets) * batch.inputs

    return explained(explain, model, images, targets, batch_size)


def slopes(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor | None,
    watch: AbstractContextManager[Any] = UNWATCHED,
) -> Tensor:
    """Return the gradient of the chosen logits with respect to ``inputs``; the network runs within ``watch``."""
    leaf = inputs.detach().requires_grad_()
    _, values = target_logits(network, leaf, targets, watch)
    (result,) = torch.autograd.grad(values.sum(), leaf)
    return result
