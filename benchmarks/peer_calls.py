"""How each library is asked to attack: one function per library, all with the same arguments.

Each prepares what the library needs and returns the attack itself as a call without arguments, so that only
the attack is timed. What comes back are the adversarial images (N, C, H, W); whether they fool the model is
judged elsewhere.
"""

import importlib
import inspect
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import benchmarks.plain

Call = Callable[[], Any]


def foolbox(
    attack: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | None = None,
    **parameters: Any,
) -> Call:
    """``foolbox.attacks.<attack>``; ``eps`` is the budget, None for attacks that minimise the distance."""
    library = importlib.import_module("foolbox")
    wrapped = library.PyTorchModel(model, bounds=(0, 1), device="cpu")
    criterion = library.criteria.Misclassification(labels)
    starts = parameters.pop("starts", None)
    extra = {} if starts is None else {"starting_points": starts}
    built = getattr(library.attacks, attack)(**parameters)
    return lambda: built(wrapped, images, criterion, epsilons=eps, **extra)[1]


def torchattacks(attack: str, model: nn.Module, images: Tensor, labels: Tensor, **parameters: Any) -> Call:
    """``torchattacks.<attack>``; one that seeds itself is given the seed of the draw."""
    library = importlib.import_module("torchattacks")
    built = getattr(library, attack)(model, **parameters)

    def call() -> Tensor:
        if hasattr(built, "seed"):
            built.seed = torch.initial_seed()
        adversarial: Tensor = built(images, labels)
        return adversarial

    return call


def art(attack: str, model: nn.Module, images: Tensor, labels: Tensor, **parameters: Any) -> Call:
    """``art.attacks.evasion.<attack>``, all images in one batch where it knows batches.

    A patch is trained on the images and then put on them once, at random places and at ``scale`` times the
    image, give or take a fifth.
    """
    estimators = importlib.import_module("art.estimators.classification")
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    classifier = estimators.PyTorchClassifier(
        model=SinglePrecision(model),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    kind = getattr(importlib.import_module("art.attacks.evasion"), attack)
    starts = parameters.pop("starts", None)
    extra = {} if starts is None else {"x_adv_init": starts.numpy()}
    accepted = inspect.signature(kind.__init__).parameters
    if "batch_size" in accepted:
        parameters.setdefault("batch_size", len(images))
    if "verbose" in accepted:
        parameters["verbose"] = False
    if parameters.get("norm") == "linf":
        parameters["norm"] = np.inf
    x, y = images.numpy(), labels.numpy()
    if attack == "AdversarialPatchPyTorch":
        scale = parameters.pop("scale")
        placed = {"scale_min": 0.8 * scale, "scale_max": 1.2 * scale, "patch_shape": tuple(images.shape[1:])}
        return partial(_patched, kind(classifier, **placed, **parameters), x, y, scale)
    built = kind(classifier, **parameters)
    return lambda: built.generate(x, y, **extra)


def plain(attack: str, model: nn.Module, images: Tensor, labels: Tensor, **parameters: Any) -> Call:
    """A function of :mod:`benchmarks.plain`."""
    return partial(getattr(benchmarks.plain, attack), model, images, labels, **parameters)


def pytorch_grad_cam(
    model: nn.Module, images: Tensor, targets: Tensor, layers: Sequence[str]
) -> tuple[dict[str, Tensor], float]:
    """Return pytorch-grad-cam's maps of layers of a classifier's network, one call each, and the seconds they took.

    Its result is enlarged and scaled to [0, 1]; for comparison, the maps come as they are before that, which
    is not timed.
    """
    library = importlib.import_module("pytorch_grad_cam")
    target = importlib.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    chosen = [target(number) for number in targets.tolist()]
    maps, seconds = {}, 0.0
    for name in layers:
        layer = model.get_submodule(f"network.{name}")
        started = time.perf_counter()
        with library.GradCAM(model=model, target_layers=[layer]) as explainer:
            explainer(input_tensor=images, targets=chosen)
            seconds += time.perf_counter() - started
            kept = explainer.activations_and_grads
            values, slopes = kept.activations[0].numpy(), kept.gradients[0].numpy()
            signed = explainer.get_cam_image(images, layer, chosen, values, slopes, eigen_smooth=False)
        maps[name] = torch.from_numpy(np.maximum(signed, 0)).contiguous()
    return maps, seconds


class SinglePrecision(nn.Module):
    """A model that takes the float64 images that parts of ART make under NumPy 2."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.float())
        return logits


def _patched(attack: Any, x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    attack.generate(x, y)
    patched: np.ndarray = attack.apply_patch(x, scale)
    return patched


LIBRARIES: dict[str, Callable[..., Call]] = {
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    "art": art,
    "plain": plain,
}
SEPARATE = ("torchattacks", "art")
"""Those that run in an environment of their own."""


def seed(number: int = 0) -> None:
    """Make the libraries' draws, which come from global generators, those of one seed."""
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002
    random.seed(number)
