"""Adversarial training: every step learns from the attack on the network as it is then (Madry et al. 2018).

Their Eq. 2.1 asks for the weights whose *worst* loss in the ball is least; the inner maximum is approximated by PGD.
Unlike in adversarial retraining (:mod:`xaicore.defenses.retraining`), no clean image is learned from, and no attack is
made once and for all.
"""

import copy
import math
import warnings
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from xaicore.attacks.base import AttackWarning
from xaicore.attacks.iterated_sign import pgd
from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.core.small_maps import SmallMaps
from xaicore.core.undisturbed import exact_arithmetic
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
    network, device = copy.deepcopy(model), model.device
    generator = torch.Generator().manual_seed(checks.integer("seed", seed, least=0))
    batches = math.ceil(len(images) / batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=epochs * batches + 1, cycle_momentum=False
    )
    cards = [device] if device.type == "cuda" else []
    products = SmallMaps() if device.type == "cpu" else nullcontext()
    with (
        torch.random.fork_rng(cards),
        exact_arithmetic(device),
        torch.enable_grad(),
        products,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter(
            "ignore", AttackWarning
        )  # of an image without a gradient, from which others are learned
        torch.manual_seed(seed)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator)
            for chosen in order.tensor_split(batches):
                given, wanted = images[chosen], labels[chosen]
                attacked = pgd(
                    network.eval(),
                    given,
                    wanted,
                    eps=eps,
                    steps=steps,
                    early_stop=False,
                    seed=seed,
                    index=epoch * len(images) + chosen,
                    batch_size=len(given),
                ).adversarial
                loss = nn.functional.cross_entropy(
                    network.train()(attacked.to(device).contiguous(memory_format=torch.channels_last)),
                    wanted.to(device),
                )
                if not math.isfinite(float(loss.detach())):
                    raise UserError(f"training diverged; lower learning_rate ({learning_rate:g})")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.eval()
