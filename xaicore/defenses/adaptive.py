"""Attacks that know the defence: the paper's own, which changes marked pixels only, and what other attacks achieve.

Brama and Grinshpoun (2020), Alg. 2, attack the undefended network and keep of each attempt what lies under the mask,
as those pixels are not blurred. :class:`MarkedPixels` is the same idea with the defence's own gradient. What today's
standard asks for beside that (Athalye et al. 2018; Tramèr et al. 2020) needs no function of its own: a
:class:`~xaicore.defenses.HeatAndBlur` is attacked by any attack as it is, with either of its gradients.
:func:`shown_to` measures attacks that were made on another model, which is transfer.
"""

import dataclasses
import inspect
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.attacks.balls import bound, no_further, project
from xaicore.attacks.goal import Goal
from xaicore.attacks.iterated_sign import NORMS, pgd
from xaicore.attacks.result import AttackResult, perturbation_norms
from xaicore.core import checks
from xaicore.core.batched_model import BatchedModel
from xaicore.core.fingerprint import code_digest, digest
from xaicore.core.undisturbed import exact_arithmetic
from xaicore.defenses.heat_and_blur import HeatAndBlur, restore


class MarkedPixels(HeatAndBlur):
    """The defence for an attacker who changes marked pixels only: its answer, with no gradient at all other pixels.

    A gradient attack on it that starts from the image itself moves, in each step, the pixels that the image marks then.
    Arguments and references as for :class:`~xaicore.defenses.HeatAndBlur`; the first σ counts, the mask is held.
    """

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the defence and of what hides its gradient."""
        return digest("marked-pixels", code_digest(MarkedPixels), super().fingerprint)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of the cleaned images, as the defence does."""
        masks = self.masks(images)
        marked = torch.where(masks[:, None], images, images.detach())
        logits: Tensor = self.model(restore(marked, masks, self._settings["sigma"][0]))
        return logits


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
    norm: str = "linf",
    eps: float = 8 / 255,
    bounded: bool = True,
    iterations: int = 10,
    bits: int | None = None,
    index: Tensor | None = None,
    batch_size: int | None = None,
    **parameters: Any,
) -> AttackResult:
    """Attack the pixels that the defence leaves as they are: Alg. 2 of the paper.

    Each round attacks the undefended network from the image as it is, takes over what the attack changed under the
    image's own mask, and cuts it to [0, 1] and to the ball of radius ``eps`` around the original, by projection in an L2
    ball. It ends for an image
    as soon as the network, undefended, is wrong about it; without that, after ``iterations`` rounds. The mask is
    computed anew for the changed image in each round, as the defence will do.

    Args:
        defended: the defended classifier; its heatmap is used, its network attacked.
        images: the clean images.
        labels: the true classes.
        attack: the Att(·) of the paper, a function of :mod:`xaicore.attacks`, untargeted, on the whole image.
        norm: "linf" or "l2", of the ball; that of the attack, where it has several.
        eps: radius of the ball, at most 1 with "linf"; that of the attack in each round, where it takes one.
        bounded: False leaves the attack its ``eps`` in each round, and sets all rounds together no bound but [0, 1].
        iterations: most rounds.
        bits: with which the image is stored that a round or the last one leaves, 1 to 8, rounded to the nearest after the
            cut; None leaves it as it is. The next round goes on from the image before that.
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
    checks.one_of("norm", norm, NORMS)
    eps = checks.positive("eps", eps, most=1 if norm == "linf" else torch.inf)
    levels = None if bits is None else 2 ** checks.integer("bits", bits, least=1, most=8) - 1
    iterations, bounded = checks.integer("iterations", iterations, least=1), checks.flag("bounded", bounded)
    index = torch.arange(len(images)) if index is None else checks.integers("index", index, len(images))
    accepted = inspect.signature(attack).parameters
    parameters |= {name: value for name, value in (("eps", eps), ("norm", norm)) if name in accepted}
    current, network = images.clone(), defended.model

    def stored(points: Tensor) -> Tensor:
        return points if levels is None else (points * levels).round() / levels

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
        current[active] = _within(moved, images[active], norm, eps) if bounded else moved.clamp(0, 1)
        queries[active] += found.queries.to(queries.device) + 2
        rounds[active] += 1
        active = active[_right(network, stored(current[active]), own, batch_size)]
    current = stored(current)
    l0, l2, linf = perturbation_norms(images, current)
    zeros = torch.zeros_like(labels)
    result = AttackResult(current, zeros.bool(), l0, l2, linf, queries, 0.0)
    bare, behind = (
        shown_to(model, images, labels, result, batch_size=batch_size) for model in (network, defended)
    )
    right = ~behind.info["initially_wrong"]
    info = {**bare.info, "rounds": rounds, "defence_right": right, "defence_fooled": right & behind.success}
    return dataclasses.replace(bare, seconds=time.perf_counter() - started, info=info)


def _within(points: Tensor, images: Tensor, norm: str, eps: float) -> Tensor:
    """Return ``points`` (n, C, H, W) in the ball around ``images`` and in [0, 1]."""
    low, high = (bound(images, sign * eps) if norm == "linf" else None for sign in (-1, 1))
    inside = project(points.clone(), images, eps, low, high)
    return inside if norm == "linf" else no_further(inside, images, eps)


def _right(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int | None) -> Tensor:
    """Return where ``model`` gives the label, (n,) bool."""
    with BatchedModel.of(model, images, batch_size) as batched:
        return batched.logits(images).argmax(1).to(images.device) == labels
