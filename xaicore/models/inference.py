"""Running a classifier over many images, without gradients and without leaving a trace on the model.

It asks the model itself, in its own precision and layout, where :class:`~xaicore.core.batched_model.BatchedModel` asks a
float32 view of it in passes that are always full: with that one image would cost as much as a pass, half precision would
be refused, and soft labels would round otherwise, so that the student of a distillation would end elsewhere.
"""

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.devices import device_of
from xaicore.core.errors import UserError
from xaicore.core.outputs import checked_logits
from xaicore.core.undisturbed import evaluation_mode, exact_arithmetic
from xaicore.data import ImageSet


def predict(model: nn.Module, images: Tensor | ImageSet, batch_size: int = 256) -> Tensor:
    """Return the logits (N, K) of images, float32 on the CPU, computed in batches, in eval mode and plain float32.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits; its mode is as before afterwards.
        images: (N, C, H, W) in [0, 1] on any device, or an image set, which is decoded batch by batch.
        batch_size: images per forward pass.

    Raises:
        ValueError: ``batch_size`` is not positive, there are no images, or the model does not return logits.
    """
    checks.integer("batch_size", batch_size, least=1)
    if len(images) == 0:
        raise UserError("images must hold at least one image")
    outputs, device = [], device_of(model)
    with exact_arithmetic(device), evaluation_mode(model):
        for start in range(0, len(images), batch_size):
            batch = take(images, torch.arange(start, min(start + batch_size, len(images))))
            outputs.append(checked_logits(model(batch.to(device)), len(batch)).float().cpu())
    return torch.cat(outputs)


def accuracy(
    model: nn.Module, images: Tensor | ImageSet, labels: Tensor | None = None, batch_size: int = 256
) -> float:
    """Return the share of images, 0..1, whose largest logit is that of their label.

    The arguments are those of :func:`predict`, and ``labels`` (N,) integers, those of the image set when None.
    """
    truth = labels_of(images, labels)
    return float((predict(model, images, batch_size).argmax(1) == truth.cpu()).double().mean())


def take(images: Tensor | ImageSet, indices: Tensor) -> Tensor:
    """Return the images with the given numbers, decoded if need be."""
    return images.stack(indices)[0] if isinstance(images, ImageSet) else images[indices]


def labels_of(images: Tensor | ImageSet, labels: Tensor | None) -> Tensor:
    """Return the labels that go with ``images``: ``labels``, or those of an image set.

    Raises:
        ValueError: there are none, or their number does not fit.
    """
    if labels is None:
        if not isinstance(images, ImageSet):
            raise UserError("labels must be given with a tensor of images")
        return images.labels
    if labels.shape != (len(images),) or labels.is_floating_point():
        raise UserError(f"labels must be {len(images)} integers, got {tuple(labels.shape)} of {labels.dtype}")
    return labels
