"""What the literature calls the layers of a network: block1_conv1 … block5_conv3 for VGG16.

The published VGG code and paper 3 count convolutions within blocks, and a max-pool ends a block; PyTorch's modules are
numbered one after the other (``features.0`` … ``features.28``).
"""

from collections.abc import Sequence

from torch import nn

from xaicore.attribution.inputs import network_of
from xaicore.models.vgg import VGG


def literature_names(model: nn.Module) -> dict[str, str]:
    """Return the name of every convolution in the literature by its name as a module, of a classifier or its network.

    Returns:
        Module name, as :func:`~xaicore.attribution.grad_cam` gives it, to ``block<b>_conv<c>`` in a VGG network. In any
        other network each name stands for itself, since no second naming is in use.
    """
    network = network_of(model)
    names, block, position = {}, 1, 0
    for name, module in network.named_modules():
        if isinstance(module, nn.MaxPool2d):
            block, position = block + 1, 0
        elif isinstance(module, nn.Conv2d):
            position += 1
            names[name] = f"block{block}_conv{position}" if isinstance(network, VGG) else name
    return names


def short_names(layers: Sequence[str]) -> list[str]:
    """Return names that fit an axis: ``4-1`` for ``block4_conv1`` as in the paper's figures, else the layer's number."""
    if all(name.startswith("block") and "_conv" in name for name in layers):
        return [name.removeprefix("block").replace("_conv", "-") for name in layers]
    return [str(position) for position in range(1, len(layers) + 1)]
