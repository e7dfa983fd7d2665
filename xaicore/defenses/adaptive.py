"""Attacks that know the defence: the paper's own, which changes marked pixels only, and what other attacks achieve.

Brama and Grinshpoun (2020), Alg. 2, attack the undefended network and keep of each attempt what lies under the mask,
as those pixels are not blurred. What today's standard asks for beside that (Athalye et al. 2018; Tramèr et al. 2020)
needs no function of its own: a :class:`~xaicore.defenses.HeatAndBlur` is attacked by any attack as it is, with either
of its gradients. :func:`shown_to` measures attacks that were made on another model, which is transfer.
"""

import dataclasses
import inspect
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.attacks.balls import bound
from xaicore.attacks.goal import Goal
from xaicore.attacks.iterated_sign import pgd
from xaicore.attacks.result import AttackResult, perturbation_norms
from xaicore.core import checks
from xaicore.core.batched_model import BatchedModel
from xaicore.core.undisturbed import exact_arithmetic
from xaicore.defenses.heat_and_blur import HeatAndBlur


def shown_to(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    result: AttackResult,
    *,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Return what ``result``, an attack on some model, achieves on another: success and clean answers measured anew.

    Args:
        model: (N, C, H, W) images in [0, 1] to (N, K) logits, the one to show the images to.
        images: the clean images of the attack.
        labels: the true classes.
        result: the attack.
        target: as in the attack.
        batch_size: images in one pass of the model; None: what suits their size and the device.

    Returns:
        The result with ``success``, ``info["initially_wrong"]``, ``info["margin"]`` and ``info["nonfinite"]`` of this
        model; images, norms, queries and seconds are those of the attack. Other ``info`` is left out.
    """
    checks.model(model)
    images = checks.images(images).detach()
    checks.same_shape("images and those of the attack, result,", images, result.adversarial)
    goal = Goal.of(labels, target, images)
    with BatchedModel.of(model, images, batch_size) as batched:
        clean, final = (batched.logits(each).to(images.device) for each in (images, result.adversarial))
    goal.check_classes(clean.shape[1])
    info = {
        "initially_wrong": clean.argmax(1) != goal.labels,
        "nonfinite": ~(clean.isfinite().all(1) & final.isfinite().all(1)),
        "margin": goal.margin(final),
    }
    return dataclasses.replace(result, success=goal.reached(final), info=info)


def masked_attack(
    defended: HeatAndBlur,
    images: Tensor,
    labels: Tensor,
    *,
    attack: Callable[..., AttackResult] = pgd,
    eps: float = 8 / 255,
    iterations: int = 10,
    index: Tensor | None = None,
    batch_size: int | None = None,
    **parameters: Any,
) -> AttackResult:
    """Attack the pixels that the defence leaves as they are: Alg. 2 of the paper.

    Each round attacks the undefended network from the image as it is, takes over what the attack changed under the
    image's own mask, and cuts it to [0, 1] and to the ball of radius ``eps`` around the original. It ends for an image
    as soon as the network, undefended, is wrong about it; without that, after ``iterations`` rounds. The mask is
    computed anew for the changed image in each round, as the defence will do.

    Args:
        defended: the defended classifier; its heatmap is used, its network attacked.
        images: the clean images.
        labels: the true classes.
        attack: the Att(·) of the paper, a function of :mod:`xaicore.attacks`, untargeted, on the whole image.
        eps: largest change of a value over all rounds, in (0, 1]; that of the attack in each round, where it takes one.
        iterations: most rounds.
        index: (N,) int64, number of each image in its set; None counts from 0.
        batch_size: images in one pass of the network; None: what suits their size and the device.
        parameters: passed to ``attack``.

    Returns:
        The result for the *undefended* network, which is the paper's criterion: ``success`` is where Alg. 2 returns an
        image, ``info["initially_wrong"]`` where the network is wrong about the clean one. ``queries`` adds the attack's
        and two passes a round, mask and check. In ``info``: ``rounds`` (N,) int64; ``defence_right`` (N,) bool, where
        the defence classifies the clean image correctly; ``defence_fooled`` (N,) bool, where besides it is wrong about
        the result.

    References:
        Brama and Grinshpoun, Heat and Blur, 2020, Sec. 5.2 and Alg. 2.
    """
    started = time.perf_counter()
    if not isinstance(defended, HeatAndBlur):
        raise TypeError(f"defended must be a HeatAndBlur, not {type(defended).__name__}")
    images = checks.images(images).detach()
    labels = checks.integers("labels", labels, len(images)).to(images.device)
    eps, iterations = checks.positive("eps", eps, most=1), checks.integer("iterations", iterations, least=1)
    index = torch.arange(len(images)) if index is None else checks.integers("index", index, len(images))
    accepted = inspect.signature(attack).parameters
    if "eps" in accepted:
        parameters["eps"] = eps
    low, high = bound(images, -eps), bound(images, eps)
    current, network = images.clone(), defended.model
    queries, rounds = torch.zeros_like(labels), torch.zeros_like(labels)
    active = _right(network, images, labels, batch_size).nonzero()[:, 0]
    for _ in range(iterations):
        if not len(active):
            break
        now, own = current[active], labels[active]
        if "index" in accepted:
            parameters["index"] = index[active.cpu()]
        found = attack(network, now, own, batch_size=batch_size, **parameters)
        with exact_arithmetic(defended.device):
            masks = defended.masks(now.to(defended.device)).to(images.device)
        moved = torch.where(masks[:, None], found.adversarial, now)
        current[active] = moved.clamp(low[active], high[active]).clamp(0, 1)
        queries[active] += found.queries.to(queries.device) + 2
        rounds[active] += 1
        active = active[_right(network, current[active], own, batch_size)]
    l0, l2, linf = perturbation_norms(images, current)
    zeros = torch.zeros_like(labels)
    result = AttackResult(current, zeros.bool(), l0, l2, linf, queries, 0.0)
    bare, behind = (
        shown_to(model, images, labels, result, batch_size=batch_size) for model in (network, defended)
    )
    right = ~behind.info["initially_wrong"]
    info = {**bare.info, "rounds": rounds, "defence_right": right, "defence_fooled": right & behind.success}
    return dataclasses.replace(bare, seconds=time.perf_counter() - started, info=info)


def _right(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int | None) -> Tensor:
    """Return where ``model`` gives the label, (n,) bool."""
    with BatchedModel.of(model, images, batch_size) as batched:
        return batched.logits(images).argmax(1).to(images.device) == labels
