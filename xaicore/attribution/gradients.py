r"""The gradient of a logit with respect to the input, alone and times the input.

.. math:: G = \frac{\partial z_t}{\partial x}, \qquad x \odot G

Simonyan et al., ICLR workshop 2014; input times gradient equals the z rule of LRP for ReLU networks, up
to the bias (Shrikumar et al., 2016).
"""

import torch
from torch import Tensor, nn

from xaicore.attribution.inputs import (
    check_batch_size,
    check_images,
    check_targets,
    chosen_logits,
    naming_images,
    network_input,
    network_of,
    undisturbed,
)


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
    return _gradient(model, images, targets, batch_size, times_input=False)


def input_times_gradient(
    model: nn.Module, images: Tensor, targets: Tensor | int | None = None, *, batch_size: int = 32
) -> Tensor:
    """Return the network's input times the gradient of the chosen logit with respect to it.

    Arguments, result and errors are those of :func:`gradient`. For a classifier the input is the
    normalised image.
    """
    return _gradient(model, images, targets, batch_size, times_input=True)


def _gradient(
    model: nn.Module, images: Tensor, targets: Tensor | int | None, batch_size: int, *, times_input: bool
) -> Tensor:
    check_images(images, model)
    indices = check_targets(targets, len(images))
    check_batch_size(batch_size)
    with undisturbed(model) as device:
        maps = torch.empty_like(images, requires_grad=False)
        network = network_of(model)
        for start in range(0, len(images), batch_size):
            batch = images.detach()[start : start + batch_size].to(device).clone()
            inputs = network_input(model, batch).detach().requires_grad_()
            with naming_images(inputs.shape):
                logits = network(inputs.clone())
            batch_targets = None if indices is None else indices[start : start + batch_size]
            _, values = chosen_logits(logits, batch_targets)
            (slopes,) = torch.autograd.grad(values.sum(), inputs)
            result = slopes * inputs.detach() if times_input else slopes
            maps[start : start + batch_size] = result.to(images.device)
    return maps
