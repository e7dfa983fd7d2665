"""An architecture with a fraction of its channels: the layers and their connections stay, each layer is narrower.

For pages that show a method in minutes; the width of a VGG is a parameter of :func:`xaicore.models.load` already.
"""

import copy
from fractions import Fraction

import torch
from torch import nn

from xaicore.core.errors import UserError
from xaicore.models import REGISTRY, Classifier


def narrowed(model: Classifier, width: float, *, seed: int = 0) -> Classifier:
    """Return a freshly initialised copy of ``model`` in which every layer has ``width`` times its channels.

    Channels of images and classes stay. Counts of channels that are joined add up as before, since each is an exact
    multiple; a network whose counts are not all multiples is refused.

    Args:
        model: built of convolutions, batch normalisations and dense layers; its own weights do not matter.
        width: above 0 and at most 1; 1 returns ``model`` itself.
        seed: of the weights: He's initialisation, fan-out, of convolutions, torch's own of the others.

    Raises:
        UserError: a layer has no whole number of channels at this width, or has parameters and is none of these.
    """
    if width == 1:
        return model
    factor, copied = Fraction(width).limit_denominator(64), copy.deepcopy(model)
    layers = [(name, each) for name, each in copied.network.named_modules() if not list(each.children())]
    first = next(name for name, each in layers if isinstance(each, nn.Conv2d))
    head = REGISTRY[model.name].head

    def scaled(count: int, where: str) -> int:
        if (count * factor).denominator > 1:
            raise UserError(f"width {width:g} leaves no whole number of the {count} channels of {where}")
        return int(count * factor)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, layer in layers:
            new: nn.Module
            if isinstance(layer, nn.Conv2d):
                fan_in = layer.in_channels if name == first else scaled(layer.in_channels, name)
                options = {
                    each: getattr(layer, each) for each in ("kernel_size", "stride", "padding", "dilation")
                }
                groups = layer.groups if layer.groups == 1 else scaled(layer.groups, name)
                bias = layer.bias is not None
                new = nn.Conv2d(fan_in, scaled(layer.out_channels, name), groups=groups, bias=bias, **options)
                nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, nn.BatchNorm2d):
                new = nn.BatchNorm2d(scaled(layer.num_features, name), eps=layer.eps, momentum=layer.momentum)
            elif isinstance(layer, nn.Linear):
                last = f"{name}.".startswith(head) and layer.out_features == len(model.classes)
                fan_out = layer.out_features if last else scaled(layer.out_features, name)
                new = nn.Linear(scaled(layer.in_features, name), fan_out, bias=layer.bias is not None)
            elif any(True for _ in layer.parameters()):
                raise UserError(f"a {type(layer).__name__} ({name}) has no width")
            else:
                continue
            copied.network.set_submodule(name, new)
    return copied.to(model.device)
