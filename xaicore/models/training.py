"""Training a classifier from a recipe: same recipe, same data, same machine, same thread count, same weights.

Cross-entropy on the logits. The order of the images, the augmentation and dropout each draw from generators
seeded by the recipe; no global generator, mode, flag or thread count is changed for the caller.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xaicore.core.errors import UserError
from xaicore.core.small_maps import SmallMaps
from xaicore.data import ImageSet
from xaicore.models.augmentation import augment
from xaicore.models.checkpoint import Checkpoint
from xaicore.models.classifier import Classifier
from xaicore.models.inference import labels_of, predict, take
from xaicore.models.recipe import Recipe

Labelled = tuple[Tensor | ImageSet, Tensor | None]
Progress = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class TrainingResult:
    """What training gave.

    Attributes:
        model: with the weights of the best epoch, in eval mode.
        history: one entry per epoch: epoch (from 1), learning_rate (at its end), train_loss, train_accuracy
            (running, in train mode), validation_loss, validation_accuracy (absent without validation images).
        best_epoch: the epoch of highest validation accuracy, at equality of lowest validation loss; the last
            without validation.
        seconds: wall-clock time.
    """

    model: Classifier
    history: list[dict[str, float]] = field(repr=False)
    best_epoch: int
    seconds: float

    def arrays(self, part: str = "") -> dict[str, Tensor]:
        """Return weights, history and best epoch as tensors, for a store; not the seconds.

        Args:
            part: only weights whose name begins so, such as those of the head.
        """
        weights = {
            f"network.{name}": tensor.cpu()
            for name, tensor in self.model.network.state_dict().items()
            if name.startswith(part)
        }
        columns = {
            f"history.{name}": torch.tensor([entry[name] for entry in self.history], dtype=torch.float64)
            for name in self.history[0]
        }
        return {**weights, **columns, "best_epoch": torch.tensor(self.best_epoch)}

    @classmethod
    def from_arrays(cls, model: Classifier, arrays: Mapping[str, Any], seconds: float) -> "TrainingResult":
        """Rebuild a result from what :meth:`arrays` returned, with ``seconds`` as its training time.

        The model is a copy of ``model``, the one that was trained or one built alike, whose weights stay where ``arrays``
        lacks them.
        """
        parts: dict[str, dict[str, Any]] = {"network": {}, "history": {}, "best_epoch": {}}
        for key, value in arrays.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        trained = copy.deepcopy(model).eval()
        trained.network.load_state_dict({**trained.network.state_dict(), **parts["network"]})
        columns = {name: column.tolist() for name, column in parts["history"].items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        history = [{**row, "epoch": int(row["epoch"])} for row in rows]
        return cls(trained, history, int(arrays["best_epoch"]), seconds)


def train(
    model: Classifier,
    train_images: Tensor | ImageSet,
    train_labels: Tensor | None = None,
    validation: Labelled | ImageSet | None = None,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    state: Path | None = None,
) -> TrainingResult:
    """Train a copy of ``model``, which is not changed; return it with its history.

    Args:
        model: where training starts, on the device where it is to run.
        train_images: (N, C, H, W) float32 in [0, 1], or an image set, which is decoded batch by batch.
        train_labels: (N,) integers 0..K-1; those of the image set when None.
        validation: (images, labels) or an image set; decides which epoch's weights are kept.
        recipe: how; ``Recipe()`` when None.
        progress: called with each finished epoch's history entry.
        state: file from which a killed training continues and to which its state goes
            (:mod:`xaicore.models.checkpoint`); None: it starts anew. Whoever names it removes it afterwards.

    Raises:
        ValueError: labels do not fit the images or the classes.
        UserError: the loss is no longer finite; the message names the epoch and the learning rate.
    """
    recipe = recipe or Recipe()
    labels = _checked(model, train_images, train_labels, "train_labels")
    held_out = None
    if validation is not None:
        images, truth = (validation, None) if isinstance(validation, ImageSet) else validation
        held_out = images, _checked(model, images, truth, "validation labels")
    network = copy.deepcopy(model)
    with _reproducible(network.device, recipe.seed):
        checkpoint = Checkpoint(state, network.device)
        found = _run(network, train_images, labels, held_out, recipe, progress, checkpoint)
    network.load_state_dict(found["best"])
    network = network.to(memory_format=torch.contiguous_format).eval()
    return TrainingResult(network, found["history"], found["best_epoch"], found["seconds"])


def _run(
    network: Classifier,
    images: Tensor | ImageSet,
    labels: Tensor,
    validation: tuple[Tensor | ImageSet, Tensor] | None,
    recipe: Recipe,
    progress: Progress | None,
    checkpoint: Checkpoint,
) -> dict[str, Any]:
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(recipe.seed)
    device, home = network.device, "cpu" if isinstance(images, ImageSet) else images.device
    batches = math.ceil(len(labels) / recipe.batch_size)
    network.to(memory_format=torch.channels_last)
    optimizer, scheduler = _optimizer(network, recipe, recipe.epochs * batches)
    # The first score is below any other.
    state: dict[str, Any] = {"history": [], "best_epoch": 0, "best_score": (-2.0, 0.0), "seconds": 0.0}
    if (found := checkpoint.load()) is not None:
        network.load_state_dict(found.pop("network"))
        optimizer.load_state_dict(found.pop("optimizer"))
        scheduler.load_state_dict(found.pop("scheduler"))
        generator.set_state(found.pop("generator"))
        state = found
    history, before = state["history"], state["seconds"]
    norms = [
        (module, module.momentum)
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and recipe.unbiased_statistics
    ]
    steps = itertools.count(1 + len(history) * batches)
    for epoch in range(1 + len(history), recipe.epochs + 1):
        network.train()
        order = torch.randperm(len(labels), generator=generator)
        loss_sum, hits = 0.0, 0
        for indices, step in zip(order.tensor_split(batches), steps, strict=False):
            batch = augment(take(images, indices.to(home)), recipe.augment, generator).to(device)
            truth = labels[indices].to(device)
            for layer, momentum in norms:  # 1/i in step i until it is the layer's own
                layer.momentum = max(momentum or 0.0, 1 / step)
            with _autocast(device, recipe), _products(device, recipe):
                logits = network(batch.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), truth)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise UserError(
                    f"training diverged: the loss is {value} in epoch {epoch}; "
                    f"lower learning_rate ({recipe.learning_rate:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            loss_sum += value * len(indices)
            hits += int((logits.argmax(1) == truth).sum())
        entry = {
            "epoch": epoch,
            "learning_rate": float(scheduler.get_last_lr()[0]),
            "train_loss": loss_sum / len(labels),
            "train_accuracy": hits / len(labels),
        }
        score = (-1.0, float(epoch))
        if validation is not None:
            outputs, truth = predict(network, validation[0]), validation[1]
            entry["validation_loss"] = float(functional.cross_entropy(outputs, truth))
            entry["validation_accuracy"] = float((outputs.argmax(1) == truth).double().mean())
            score = (entry["validation_accuracy"], -entry["validation_loss"])
        history.append(entry)
        if score > state["best_score"]:
            state |= {"best_epoch": epoch, "best_score": score, "best": copy.deepcopy(network.state_dict())}
        state["seconds"] = before + time.perf_counter() - started
        parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
        states = {name: part.state_dict() for name, part in parts.items()}
        checkpoint.save(**state, **states, generator=generator.get_state())
        if progress is not None:
            progress(entry)
    for layer, momentum in norms:
        layer.momentum = momentum
    return state


def _checked(model: Classifier, images: Tensor | ImageSet, labels: Tensor | None, name: str) -> Tensor:
    checked = labels_of(images, labels).detach().cpu()
    if len(checked) == 0:
        raise ValueError(f"{name}: there are no images to train on")
    low, high = int(checked.min()), int(checked.max())
    if low < 0 or high >= len(model.classes):
        raise ValueError(
            f"{name} must lie in 0..{len(model.classes) - 1}, the classes of {model.name}, got {low}..{high}"
        )
    return checked


def _optimizer(
    network: Classifier, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    rate, decay = recipe.learning_rate, recipe.decay
    given: dict[str, Any] = {"lr": rate, "weight_decay": recipe.weight_decay}
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(network.parameters(), fused=recipe.fused or None, **given)
    else:
        optimizer = torch.optim.SGD(network.parameters(), momentum=recipe.momentum, **given)
    if recipe.schedule == "one-cycle":
        one_cycle = torch.optim.lr_scheduler.OneCycleLR
        return optimizer, one_cycle(optimizer, max_lr=rate, total_steps=steps + 1, cycle_momentum=False)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + decay * step))


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware (AVX-512 BF16, AMX, or a GPU that does)."""
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _autocast(device: torch.device, recipe: Recipe) -> AbstractContextManager[object]:
    halved = recipe.precision == "bfloat16" or (recipe.precision == "auto" and native_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16) if halved else nullcontext()


def _products(device: torch.device, recipe: Recipe) -> AbstractContextManager[object]:
    return SmallMaps() if recipe.small_maps and device.type == "cpu" else nullcontext()


@contextmanager
def _reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global generators for dropout, choose deterministic kernels, put all back afterwards."""
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda), torch.enable_grad():
            torch.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.default_generators[torch.cuda._utils._get_device_index(device)].manual_seed(seed)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
            if device.type == "cpu":
                torch.use_deterministic_algorithms(True)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
