"""The training that adversarial training and distillation share: AdamW in one cycle, repeatable to the last bit."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.core.small_maps import SmallMaps
from xaicore.core.undisturbed import exact_arithmetic
from xaicore.models import Classifier


def fitted(
    model: Classifier,
    images: Tensor,
    answers: Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    temperature: float = 1.0,
    attack: Callable[[Classifier, Tensor, int], Tensor] | None = None,
) -> Classifier:
    """Return a copy of ``model`` trained by the cross-entropy with ``answers``; in eval mode.

    Args:
        model, images, epochs, batch_size, learning_rate, seed: as in :func:`xaicore.defenses.distill`.
        answers: (N,) int64 classes, or (N, K) probabilities of them.
        temperature: what the logits are divided by.
        attack: (network, numbers (n,) of the images of an update, epoch from 0) -> images (n, C, H, W) to learn from.
    """
    network, device = copy.deepcopy(model), model.device
    generator = torch.Generator().manual_seed(checks.integer("seed", seed, least=0))
    batches = math.ceil(len(images) / batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=epochs * batches + 1, cycle_momentum=False
    )
    cards = [device] if device.type == "cuda" else []
    products = SmallMaps() if device.type == "cpu" else nullcontext()
    with torch.random.fork_rng(cards), exact_arithmetic(device), torch.enable_grad(), products:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all cards, of the caller too
        for card in cards:
            torch.cuda.default_generators[torch.cuda._utils._get_device_index(card)].manual_seed(seed)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator)
            for chosen in order.tensor_split(batches):
                given = images[chosen] if attack is None else attack(network, chosen, epoch)
                given = given.to(device).contiguous(memory_format=torch.channels_last)
                logits = network.train()(given) / temperature
                loss = nn.functional.cross_entropy(logits, answers[chosen].to(device))
                if not math.isfinite(float(loss.detach())):
                    raise UserError(f"training diverged; lower learning_rate ({learning_rate:g})")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.eval()
