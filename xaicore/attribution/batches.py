"""Images by batches as the network sees them, and the logits that are explained.

Explanations hook or trace the modules of the network itself and are made in any precision, so they do not ask the float32
view that is :class:`~xaicore.core.batched_model.BatchedModel`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xaicore.attribution.inputs import check_call, chosen_logits, network_input, network_of
from xaicore.core.devices import device_of
from xaicore.core.outputs import checked_logits, naming_images
from xaicore.core.undisturbed import undisturbed

UNWATCHED = nullcontext()


class Batch(NamedTuple):
    """Some of the images.

    Attributes:
        rows: which ones.
        inputs: (B, C, H, W) as the network sees them, on the model's device, in memory of their own.
        targets: (B,) the neurons to explain, or None for the arg max.
    """

    rows: slice
    inputs: Tensor
    targets: Tensor | None


def batches(model: nn.Module, images: Tensor, targets: Tensor | None, batch_size: int) -> Iterator[Batch]:
    """Yield ``images`` (N, C, H, W) by ``batch_size``, as the network of ``model`` sees them."""
    device = device_of(model)
    for start in range(0, len(images), batch_size):
        rows = slice(start, min(start + batch_size, len(images)))
        inputs = network_input(model, images.detach()[rows].to(device).clone()).detach()
        yield Batch(rows, inputs, None if targets is None else targets[rows])


def explained(
    explain: Callable[[Batch], Tensor],
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None,
    batch_size: int,
) -> Tensor:
    """Return what ``explain`` makes of each batch, (N, C, H, W) on the device of ``images``.

    The call is checked as by :func:`check_call`, and the model is undisturbed.
    """
    indices = check_call(model, images, targets, batch_size)
    with undisturbed(model):
        maps = torch.empty_like(images, requires_grad=False)
        for batch in batches(model, images, indices, batch_size):
            maps[batch.rows] = explain(batch).to(images.device)
    return maps


def logits_of(network: nn.Module, inputs: Tensor, watch: AbstractContextManager[Any] = UNWATCHED) -> Tensor:
    """Run ``network`` within ``watch`` and return its logits (N, K), also of K = 1; ``inputs`` stay as they are.

    Raises:
        UserError: the network returns no logits.
    """
    with naming_images(inputs.shape), watch:
        output = network(inputs.clone())
    return checked_logits(output, len(inputs), fewest=1)


def target_logits(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor | None,
    watch: AbstractContextManager[Any] = UNWATCHED,
) -> tuple[Tensor, Tensor]:
    """Return :func:`chosen_logits` of :func:`logits_of`."""
    return chosen_logits(logits_of(network, inputs, watch), targets)


def resolved_targets(model: nn.Module, images: Tensor, targets: Tensor | None, batch_size: int) -> Tensor:
    """Return ``targets``, where None the arg max of the logits of ``images``, (N,) on the model's device.

    Raises as :func:`chosen_logits` does. The model must be undisturbed.
    """
    if targets is not None:
        return targets.to(device_of(model))
    chosen = torch.empty(len(images), dtype=torch.int64, device=device_of(model))
    with torch.no_grad():
        for batch in batches(model, images, None, batch_size):
            chosen[batch.rows] = target_logits(network_of(model), batch.inputs, None)[0]
    return chosen
