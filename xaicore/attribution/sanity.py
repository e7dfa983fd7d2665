"""Material for two sanity checks of explanations: networks that know nothing, and images whose answer is known.

:func:`randomised` destroys what a network has learned, layer by layer (Adebayo et al., NeurIPS 2018, Sec. 3.1 and
3.2): an explanation that stays the same does not explain the network. :func:`planted_marks` makes images whose
class depends on nothing but a small mark at a random place: an explanation should lie on it.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from xaicore.attribution.inputs import network_of
from xaicore.core import checks
from xaicore.core.errors import UserError
from xaicore.core.randomness import stream


def randomised(model: nn.Module, *, cascading: bool = True, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Yield copies of ``model`` with the weights of layers drawn anew, from the logits down.

    A parameter is drawn from the normal distribution with the mean and standard deviation that it has, so the
    network's values stay of their size. The order is the reverse of that in which modules are registered.

    Args:
        model: a :class:`~xaicore.models.Classifier` or another module; it stays as it is.
        cascading: whether the layers drawn before stay so (Sec. 3.1), or one at a time is drawn (Sec. 3.2).
        seed: of all draws, at least 0; a layer's draws are the same either way.

    Yields:
        Name of the layer, within a classifier's network, and the copy.

    Raises:
        ValueError: ``seed`` is negative.
    """
    checks.integer("seed", seed, least=0)
    names = [
        name for name, module in network_of(model).named_modules() if list(module.parameters(recurse=False))
    ]
    changed = copy.deepcopy(model)
    for number, name in enumerate(reversed(names)):
        if not cascading:
            changed = copy.deepcopy(model)
        draws = stream(seed, number)
        with torch.no_grad():
            for parameter in network_of(changed).get_submodule(name).parameters(recurse=False):
                drawn = torch.from_numpy(draws.standard_normal(tuple(parameter.shape))).to(parameter)
                parameter.copy_(parameter.mean() + parameter.std(correction=0) * drawn)
        yield name, copy.deepcopy(changed) if cascading else changed


def planted_marks(images: Tensor, *, side: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return images with a striped square each, whose class is the direction of the stripes.

    Stripes are one pixel wide, black and white, beginning with either; where the square lies and which class
    an image gets is drawn evenly and independently of the image, so nothing but the mark tells the class.

    Args:
        images: (N, C, H, W) in [0, 1]; they stay as they are.
        side: of the square in pixels, even, at least 2.
        seed: of the draws, at least 0.

    Returns:
        The images (N, C, H, W); labels (N,), 0 for horizontal stripes and 1 for vertical ones; and masks
        (N, H, W), true on the mark.

    Raises:
        ValueError: an argument is out of range, or the mark does not fit into the images.
    """
    checks.integer("side", side, least=2)
    checks.integer("seed", seed, least=0)
    checks.floating("images", images)
    height, width = images.shape[2:]
    if side % 2 or side > min(height, width):
        raise UserError(f"side must be even and at most {min(height, width)}, not {side}")
    marked = images.detach().clone()
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    masks = torch.zeros(len(images), height, width, dtype=torch.bool, device=images.device)
    stripes = (torch.arange(side, device=images.device) % 2).to(images).expand(side, side)
    for number in range(len(images)):
        draws = stream(seed, number)
        label, first, top, left = draws.integers((2, 2, height - side + 1, width - side + 1)).tolist()
        square = (slice(top, top + side), slice(left, left + side))
        mark = stripes if label else stripes.T
        marked[number][:, *square] = 1 - mark if first else mark
        masks[number][square] = True
        labels[number] = label
    return marked, labels, masks
