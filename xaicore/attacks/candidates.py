"""Attacks that aim at one wrong class after the other, as APGD-T and FAB-T do.

Most images fall to the wrong class of highest logit. It is tried alone; what withstands it is attacked towards all
other candidates side by side, so that passes of the model stay full although few images are left.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from xaicore.attacks.base import Attempt
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import Aim
from xaicore.attacks.objectives import rivals
from xaicore.attacks.victim import Victim


def one_by_one(
    attack: Callable[..., Attempt],
    victim: Victim,
    images: Tensor,
    goal: Goal,
    index: Tensor,
    *,
    candidates: int,
    enough: float,
) -> Attempt:
    """Attack images towards each of several wrong classes, and keep the best of each image.

    Args:
        attack: takes ``aim``; its ``info`` has ``cost`` (n,), how good what it found is: the lower, the better,
            infinite where it found nothing. It is taken out.
        victim, images, goal, index: as an attack gets them.
        candidates: wrong classes, those of highest logit on the clean image.
        enough: an image of at most this ``cost`` after the first class is done.

    Returns:
        Of each image the attempt of lowest cost, of the earliest class among equals, and of the last one where nothing
        was found. ``queries`` counts those of all classes, and the pass that orders them.
    """
    classes = rivals(victim.logits(images), goal.labels, candidates)
    best = attack(victim, images, goal, index, aim=Aim(classes[:, 0], torch.zeros_like(index)))
    best.queries.add_(1)
    others = torch.arange(1, classes.shape[1], device=classes.device)
    cost = best.info.pop("cost")
    for left in (~(cost <= enough)).nonzero().squeeze(1).split(victim.batch_size) if len(others) else ():
        each = left.repeat_interleave(len(others))
        aim = Aim(classes[left, 1:].flatten(), others.repeat(len(left)))
        found = attack(victim, images[each], goal[each], index[each], aim=aim)
        costs = torch.cat([cost[left, None], found.info.pop("cost").view(-1, len(others))], dim=1)
        turn = torch.where(costs.isfinite().any(dim=1), costs.argmin(dim=1), len(others))
        place = torch.arange(len(left), device=left.device) * len(others) + turn - 1
        later, chosen = left[turn > 0], place[turn > 0]
        best.adversarial[later] = found.adversarial[chosen]
        best.queries[left] += found.queries.view(-1, len(others)).sum(dim=1)
        for name, values in found.info.items():
            if values.dtype == torch.bool:
                best.info[name][left] |= values.view(-1, len(others)).any(dim=1)
            else:
                best.info[name][later] = values[chosen]
    return best
