"""One network, three outputs: two logits, their difference, and the difference seen from the answer.

For training, two logits under a softmax and one under a sigmoid are the same: only the difference d = z1 - z0 enters the
loss and the decision. For relevance they are not, since propagation starts from a logit as it is (Klawikowska et al.
2020, Sec. 4.2, name the loss and not the output):

- ``two``: the map starts from the winner of two logits, and both may be of either sign;
- ``one``: it starts from d, above zero for class 1 and below for class 0, so that the sign of the map is the class, once
  d is larger than what the bias of the last layer takes of it;
- ``centred``: it starts from d/2 for class 1 and from -d/2 for class 0, the winner always above zero. It is the map of
  ``one`` times the sign of d, up to a factor. Where a sigmoid is left on the one output, relevance starts from a
  probability, which has this sign too.
"""

import copy

import torch
from torch import Tensor, nn

from xaicore.core.errors import UserError
from xaicore.models import Classifier

HEADS = ("two", "one", "centred")


def one_logit(model: Classifier) -> Classifier:
    """Return a copy of a classifier of two classes whose logits are (0, z1 - z0): the last layer collapsed to its
    difference.

    Its decisions are those of the model but for rounding, and the relevance of its class 1 is that of a single logit.

    Raises:
        UserError: the last layer with weights is not linear with two outputs.
    """
    collapsed = copy.deepcopy(model)
    weighted = [module for module in collapsed.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    last = weighted[-1] if weighted else None
    if not isinstance(last, nn.Linear) or last.out_features != 2:
        raise UserError(
            f"{model.name} does not end in a linear layer of two outputs, which one logit could be made of: "
            "take heads=['two']"
        )
    with torch.no_grad():
        for parameter in (last.weight, last.bias):
            if parameter is not None:
                parameter[1] -= parameter[0].clone()
                parameter[0] = 0
    return collapsed


def seen_from_answer(relevance: Tensor, answers: Tensor) -> Tensor:
    """Return maps of the one logit (N, ...) as the head ``centred`` has them: turned where the answer (N,) is class 0."""
    signs = torch.where(answers == 1, 1.0, -1.0).to(relevance)
    return relevance * signs.view(-1, *[1] * (relevance.ndim - 1))
