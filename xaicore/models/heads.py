"""Training the head of a network whose other layers stay as they are (transfer learning).

The layers before the head are run once on every image, in eval mode, so that their batch normalisation, too, stays as it
is; then the head alone is trained on what they gave. The cost of an epoch is that of the head.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from xaicore.core.devices import device_of
from xaicore.core.undisturbed import evaluation_mode, exact_arithmetic
from xaicore.models.classifier import Classifier
from xaicore.models.recipe import Recipe
from xaicore.models.registry import REGISTRY
from xaicore.models.training import TrainingResult, train


def train_head(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    validation: tuple[Tensor, Tensor] | None = None,
    recipe: Recipe | None = None,
    batch_size: int = 64,
) -> TrainingResult:
    """Train the head of a copy of ``model``, from the head's present weights; everything before it is frozen.

    The arguments are those of :func:`xaicore.models.train`; ``batch_size`` images are in one pass of the frozen layers.

    Raises:
        ValueError: the recipe augments, or labels do not fit the images or the classes.
    """
    recipe = recipe or Recipe()
    if recipe.augment != "none":
        raise ValueError(f"recipe must not augment, since the layers before the head are run once: {recipe}")
    name = REGISTRY[model.name].head.rstrip(".")
    head = model.network.get_submodule(name)
    held_out = validation and (features(model, head, validation[0], batch_size), validation[1])
    inputs, recipe = features(model, head, images, batch_size), replace(recipe, precision="float32")
    result = train(_Head(copy.deepcopy(head), model), inputs, labels, held_out, recipe)  # type: ignore[arg-type]
    whole = copy.deepcopy(model).eval()
    whole.network.set_submodule(name, result.model.head)  # type: ignore[arg-type]
    return replace(result, model=whole)


def features(model: Classifier, head: nn.Module, images: Tensor, batch_size: int = 64) -> Tensor:
    """Return what enters ``head``, one of the model's modules, on the CPU; in eval mode.

    Feature maps are (N, F, h, w), as for SqueezeNet's head, a convolution; features (N, F) become (N, F, 1, 1).
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        kept.append(given[0].detach()[(...,) + (None,) * (4 - given[0].ndim)].cpu())

    handle = head.register_forward_pre_hook(keep)
    try:
        with exact_arithmetic(model.device), evaluation_mode(model):
            for part in images.split(batch_size):
                model(part.to(model.device))
    finally:
        handle.remove()
    return torch.cat(kept)


class _Head(nn.Module):
    """A head as a classifier of what :func:`features` returns."""

    def __init__(self, head: nn.Module, model: Classifier) -> None:
        super().__init__()
        self.head = head
        self.classes, self.name = model.classes, model.name

    @property
    def device(self) -> torch.device:
        return device_of(self)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = any(isinstance(module, nn.Conv2d) for module in self.head.modules())
        logits: Tensor = self.head(inputs if maps else inputs.flatten(1))
        return logits.flatten(1)
