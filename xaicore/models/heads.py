"""Training the head of a network whose other layers stay as they are (transfer learning).

The layers before the head are run once on every image, in eval mode, so that their batch normalisation, too, stays as it
is; then the head alone is trained on what they gave. The cost of an epoch is that of the head.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from xaicore.core.devices import device_of
from xaicore.core.small_maps import products
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

    Args:
        model: made by :func:`xaicore.models.load`; it is not changed.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
        validation: images and labels that choose the epoch.
        recipe: how; it cannot augment, since the images pass through the network only once.
        batch_size: images in one pass of the frozen layers.

    Returns:
        The model with the trained head, and its history.

    Raises:
        ValueError: the recipe augments, or labels do not fit the images or the classes.
    """
    recipe = recipe or Recipe()
    if recipe.augment != "none":
        raise ValueError(f"recipe must not augment, since the layers before the head are run once: {recipe}")
    name = REGISTRY[model.name].head.rstrip(".")
    head = model.network.get_submodule(name)
    network = _Head(copy.deepcopy(head), model)
    held_out = None
    if validation is not None:
        held_out = (features(model, head, validation[0], batch_size), validation[1])
    result = train(
        network,  # type: ignore[arg-type]
        features(model, head, images, batch_size),
        labels,
        held_out,
        replace(recipe, precision="float32"),
    )
    whole = copy.deepcopy(model).eval()
    whole.network.set_submodule(name, result.model.head)  # type: ignore[arg-type]
    return replace(result, model=whole)


def features(model: Classifier, head: nn.Module, images: Tensor, batch_size: int = 64) -> Tensor:
    """Return what enters ``head``, one of the model's modules, as (N, F, 1, 1) on the CPU; in eval mode."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        kept.append(given[0].detach().flatten(1)[:, :, None, None].cpu())

    handle = head.register_forward_pre_hook(keep)
    try:
        with exact_arithmetic(model.device), evaluation_mode(model), products(model.device):
            for part in images.split(batch_size):
                model(part.to(model.device))
    finally:
        handle.remove()
    return torch.cat(kept)


class _Head(nn.Module):
    """A head as a classifier of features (N, F, 1, 1)."""

    def __init__(self, head: nn.Module, model: Classifier) -> None:
        super().__init__()
        self.head = head
        self.classes, self.name = model.classes, model.name

    @property
    def device(self) -> torch.device:
        return device_of(self)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs.flatten(1))
        return logits
