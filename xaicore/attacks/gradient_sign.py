"""Fast gradient sign attacks: one step of size eps along the sign of the input gradient.

Goodfellow, Shlens & Szegedy (2015), Sec. 4::

    x' = clip(x + eps * sign(grad_x J(x, y)), 0, 1)

``fgsm`` takes one step, ``fgsm_direction`` says where to; ``fgsm_search`` follows the same direction and stops at
the smallest step of a grid that works, as paper 1 raises the gain until the label changes. J is the cross-entropy;
its gradient is taken through the log-odds, which have the same sign and do not vanish (:mod:`xaicore.attacks.goal`).
"""

import torch
from torch import Tensor, nn

from xaicore.attacks.balls import bound
from xaicore.attacks.base import Attempt, Opening, run
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import rows
from xaicore.attacks.result import AttackResult
from xaicore.attacks.victim import Victim
from xaicore.core import checks


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    target: int | Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> AttackResult:
    """Take one step of size ``eps`` along the sign of the gradient.

    The untargeted step uses the true label (not the predicted one; for the images attacked they agree), so a
    model trained on such images can read the label from the perturbation (Kurakin et al. 2017, "label
    leaking").

    Args:
        model, images, labels, target, batch_size: as in :mod:`xaicore.attacks`.
        eps: largest change of a value, in (0, 1].
        seed: at least 0, as every attack's that draws at random; nothing is drawn here.

    Returns:
        The result. ``queries`` is 1 per image attacked; ``info["zero_gradient"]`` (N,) bool marks images with
        no usable gradient (zero or not finite everywhere), which stay as they are.

    References:
        Goodfellow, Shlens & Szegedy (2015), Explaining and harnessing adversarial examples, Sec. 4.
    """
    eps = checks.positive("eps", eps, most=1)
    checks.integer("seed", seed, least=0)

    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor, opening: Opening) -> Attempt:
        direction, nothing = _direction(opening.gradient)
        return Attempt(
            bound(images, eps * direction), torch.ones_like(goal.labels), {"zero_gradient": nothing}
        )

    return run(step, model, images, labels, target=target, batch_size=batch_size, opening=True)


def fgsm_search(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps_max: float = 0.5,
    steps: int = 200,
    target: int | Tensor | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Find the smallest step along the sign of the gradient that reaches the goal.

    Tries eps = eps_max * i / steps for i = 1 … steps in ascending order, each from the clean image and along
    the one direction computed there, and keeps the first that works. Success need not be monotone in eps
    (clipping, curvature), so this is the smallest of the grid; bisection might miss it.

    Args:
        model, images, labels, target, batch_size: as in :mod:`xaicore.attacks`.
        eps_max: largest step, in (0, 1].
        steps: number of grid values.

    Returns:
        The result; a failed image is the one at ``eps_max``. ``info["eps"]`` (N,) float32 is the step found,
        inf where none works, NaN where the image was not attacked; ``info["zero_gradient"]`` as in
        :func:`fgsm`. ``queries`` counts the gradient and each grid value up to the one that works. Passes
        that look ahead along the grid only fill places of a batch that would stay empty, and do not count.

    References:
        Klawikowska, Mikołajczyk & Grochowski (2020), Sec. 2.1; Goodfellow, Shlens & Szegedy (2015), Sec. 4.
    """
    eps_max = checks.positive("eps_max", eps_max, most=1)
    steps = checks.integer("steps", steps, least=1)
    grid = torch.arange(1, steps + 1, dtype=torch.float64).mul(eps_max).div(steps).float()

    def step(victim: Victim, images: Tensor, goal: Goal, index: Tensor, opening: Opening) -> Attempt:
        direction, nothing = _direction(opening.gradient)
        values = grid.to(images.device)
        found = _first_on_grid(victim, images, direction, goal, values, (~nothing).nonzero().squeeze(1))
        works, last = found < steps, found.clamp(max=steps - 1)
        eps, tried = values[last], torch.where(nothing, 0, last + 1)
        adversarial = images + rows(eps, images) * direction
        info = {"eps": eps.where(works, torch.inf), "zero_gradient": nothing}
        return Attempt(adversarial, 1 + tried, info)

    return run(step, model, images, labels, target=target, batch_size=batch_size, opening=True)


def fgsm_direction(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int | None = None
) -> Tensor:
    """Return the direction of :func:`fgsm` for every image, also for those that the model gets wrong already.

    An attack of this package leaves a wrong image alone, since there is nothing to turn. Whoever shows the attacked
    images to *another* model, or measures what the step does beside turning the answer, steps from all of them (beyond
    ``eps`` by a rounding, which :func:`fgsm` takes back)::

        (images + eps * fgsm_direction(model, images, labels)).clamp(0, 1)

    Args:
        model, images, labels, batch_size: as in :mod:`xaicore.attacks`.

    Returns:
        (N, C, H, W) float32 of -1, 0 and 1, on the device of ``images``: the sign of the gradient of the cross-entropy;
        0 where that is zero or not finite.
    """
    checks.model(model)
    images = checks.images(images).detach()
    labels = checks.integers("labels", labels, len(images))
    with Victim.of(model, images, batch_size) as victim:
        classes = victim.logits(images[:1]).shape[1]
        checks.classes_in_range("labels", labels, classes)
        gradient = victim.gradient(images.to(victim.device), Goal(labels.to(victim.device), None))
    direction, _ = _direction(gradient)
    return direction.to(images.device)


def _direction(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sign of the gradient, and where it is zero or not finite everywhere, (n,) bool."""
    direction = gradient.nan_to_num(0, 0, 0).sign()
    return direction, (direction == 0).flatten(1).all(dim=1)


def _first_on_grid(
    victim: Victim, images: Tensor, direction: Tensor, goal: Goal, grid: Tensor, active: Tensor
) -> Tensor:
    """Return the place of the first value of ``grid`` that works for each image, (n,); len(grid) where none does.

    All active images advance together; when fewer than a batch are left, each tries several values at a time.
    """
    found = torch.full_like(goal.labels, len(grid))
    tried = 0
    while len(active) and tried < len(grid):
        ahead = min(max(1, victim.batch_size // len(active)), len(grid) - tried)
        who = active.repeat_interleave(ahead)
        eps = grid[tried : tried + ahead].repeat(len(active))

        def build(part: slice, who: Tensor = who, eps: Tensor = eps) -> Tensor:
            some = who[part]
            return (images[some] + rows(eps[part], images) * direction[some]).clamp(0, 1)

        logits = victim.logits_of(len(who), images.shape[1:], build)
        works = goal[who].reached(logits).view(len(active), ahead)
        any_works = works.any(dim=1)
        found[active[any_works]] = tried + works[any_works].int().argmax(dim=1)
        active = active[~any_works]
        tried += ahead
    return found
