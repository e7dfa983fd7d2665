"""The expensive steps of a chapter, each kept in the store: train, attack, explain.

A chapter calls these instead of the rooms directly, so that a killed run continues with the batch it was at, and a
second run takes its results from the store. Each step is addressed by the code of its own room only: a change in an
explanation does not compute the attacks again.

What many of them take: ``engine`` runs the batches and keeps each finished one in its store; ``model`` is a classifier;
``images`` are (N, C, H, W) in [0, 1]; ``labels`` (N,) int64 true classes; ``batch_size`` images are in a batch, on which
the result does not depend; ``step`` is what the progress line says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from xaicore.attacks import ATTACKS, AttackResult, fgsm_direction
from xaicore.attacks.neurons import activations, covered
from xaicore.attribution import METHODS, grad_cam
from xaicore.core import progress
from xaicore.metrics.shift import LayerShift, layer_shift
from xaicore.models import REGISTRY, Classifier, Recipe, TrainingResult, train, train_head
from xaicore.studies.layer_similarity import LayerSimilarity, layer_similarity
from xaicore.studies.versions import Version

if TYPE_CHECKING:
    from xaicore.run.engine import Engine
    from xaicore.run.store import Store

Tensor = torch.Tensor


def trained(
    store: Store,
    label: str,
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    validation: tuple[Tensor, Tensor],
    recipe: Recipe,
) -> TrainingResult:
    """Train ``model`` as :func:`xaicore.models.train` does, or take the result from the store.

    Args:
        store: where results are kept.
        label: what the progress line calls this model.
        model: the network to start from; it is not changed.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
        validation: images and labels that choose the epoch.
        recipe: how to train.
    """

    def report(entry: dict[str, float]) -> None:
        progress.report(f"training the {label} network", int(entry["epoch"]), recipe.epochs)

    return _fitted(store, "train", train, model, images, labels, validation, recipe, progress=report)


def head_trained(
    store: Store,
    label: str,
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    validation: tuple[Tensor, Tensor],
    recipe: Recipe,
) -> TrainingResult:
    """Train the head of ``model`` as :func:`xaicore.models.train_head` does, or take the result from the store.

    The arguments are those of :func:`trained`.
    """
    progress.report(f"training the head of the {label} network", 0, recipe.epochs)
    head = REGISTRY[model.name].head
    return _fitted(store, "train-head", train_head, model, images, labels, validation, recipe, part=head)


def _fitted(
    store: Store,
    step: str,
    function: Callable[..., TrainingResult],
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor],
    recipe: Recipe,
    part: str = "",
    **unaddressed: Any,
) -> TrainingResult:
    """Return what ``function`` makes of ``part`` of ``model``, from the store where it lies there."""
    inputs = {"model": model, "images": images, "labels": labels, "validation": validation, "recipe": recipe}
    given = {"validation": validation, "recipe": recipe, **unaddressed}
    kept = store.get_or_compute(
        step, inputs, lambda: function(model, images, labels, **given).arrays(part), code=function
    )
    return TrainingResult.from_arrays(model, kept, seconds=kept.seconds)


def attacked(
    engine: Engine,
    name: str,
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    step: str | None = None,
    per_image: Mapping[str, Tensor] | None = None,
    rows: int | None = None,
    **parameters: Any,
) -> AttackResult:
    """Attack images batch by batch.

    Args:
        engine: where batches run.
        name: an attack of :data:`xaicore.attacks.ATTACKS`.
        model: the classifier under attack.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64 true classes.
        batch_size: images in a batch.
        step: what the progress line says; None: the attack's name.
        per_image: parameters of the attack with a row for each image, such as ``starts`` or ``like``.
        rows: images in one pass of the model, the attack's own ``batch_size``; None: its default.
        parameters: passed to the attack.
    """
    arrays = {"images": images, "labels": labels, "index": torch.arange(len(images)), **(per_image or {})}
    if rows is not None:
        parameters["batch_size"] = rows
    result = engine.map(
        step or name,
        _attack_batch,
        arrays,
        constants={"attack": name, "model": model, "parameters": parameters},
        batch_size=batch_size,
        code=ATTACKS[name].function,
    )
    return AttackResult.from_arrays(result, seconds=result.seconds)


def _attack_batch(*, attack: str, parameters: dict[str, Any], **given: Any) -> dict[str, Tensor]:
    return ATTACKS[attack](**{**given, **parameters}).arrays()


def gradient_signs(
    engine: Engine, model: Classifier, images: Tensor, labels: Tensor, *, batch_size: int, step: str = "FGSM"
) -> Tensor:
    """Return :func:`xaicore.attacks.fgsm_direction` of all images, (N, C, H, W), batch by batch."""
    arrays, constants = {"images": images, "labels": labels}, {"model": model}
    result = engine.map(
        step, _sign_batch, arrays, constants=constants, batch_size=batch_size, code=fgsm_direction
    )
    return result["direction"]


def _sign_batch(**given: Any) -> dict[str, Tensor]:
    return {"direction": fgsm_direction(**given)}


def explained(
    engine: Engine,
    model: Classifier,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    method: str = "lrp",
    batch_size: int = 64,
    step: str = "relevance",
    **options: Any,
) -> Tensor:
    """Explain images batch by batch.

    Args:
        engine: where batches run.
        model: the classifier to explain.
        images: (N, C, H, W) in [0, 1].
        targets: (N,) int64 classes to explain; None: the predicted ones.
        method: an explanation of :data:`xaicore.attribution.METHODS` that draws nothing at random.
        batch_size: images in a batch.
        step: what the progress line says.
        options: passed to the method, such as ``preset`` of :func:`xaicore.attribution.lrp`.

    Returns:
        (N, C, H, W) heatmaps.

    Raises:
        ValueError: the method draws at random, by the number of an image in its batch.
    """
    if "seed" in inspect.signature(METHODS[method]).parameters:
        raise ValueError(f"method must draw nothing at random, but {method!r} does: call it on all images")
    maps = engine.map(
        step,
        _explain_batch,
        {"images": images} if targets is None else {"images": images, "targets": targets},
        constants={"method": method, "model": model, "options": options},
        batch_size=batch_size,
        code=METHODS[method],
    )
    return maps["relevance"]


def _explain_batch(*, method: str, options: dict[str, Any], **given: Any) -> dict[str, Tensor]:
    return {"relevance": METHODS[method](**given, **options)}


def shifted(
    engine: Engine,
    model: Classifier,
    before: Tensor,
    after: Tensor,
    *,
    layers: tuple[str, ...] | str = "all",
    batch_size: int = 32,
    step: str = "shift of the maps",
    **targets: Tensor,
) -> LayerShift:
    """Compare Grad-CAM maps as :func:`xaicore.metrics.shift.layer_shift` does, batch by batch.

    Args:
        engine: where batches run.
        model: the classifier to explain.
        before: (N, C, H, W) in [0, 1].
        after: (N, V, C, H, W), V versions of each image.
        layers: ``"all"``, ``"last"`` or names.
        batch_size: images in a batch.
        step: what the progress line says.
        targets: ``targets`` (N,) and ``targets_after`` (N, V) of :func:`~xaicore.metrics.shift.layer_shift`.
    """
    arrays = {"before": before, "after": after, **targets}
    constants = {"model": model, "layers": layers}
    result = engine.map(
        step, _shift_batch, arrays, constants=constants, batch_size=batch_size, code=layer_shift
    )
    names = tuple(grad_cam(model, before[:1], layers=layers))
    return LayerShift(names, **{name: result[name] for name in LayerShift._fields[1:]})


def _shift_batch(**given: Any) -> dict[str, Tensor]:
    shift = layer_shift(**given)
    return {name: values for name, values in shift._asdict().items() if name != "layers"}


def similar(
    engine: Engine,
    model: Classifier,
    clean: Tensor,
    adversarial_noise: Tensor,
    gaussian_noise: Tensor,
    versions: Sequence[Version],
    *,
    batch_size: int = 32,
    step: str = "similarity of the maps",
    **options: Any,
) -> LayerSimilarity:
    """Compare maps as :func:`~xaicore.studies.layer_similarity.layer_similarity` does, batch by batch.

    The tensors and ``options`` are those of :func:`~xaicore.studies.layer_similarity.layer_similarity`.
    """
    arrays = {"clean": clean, "adversarial_noise": adversarial_noise, "gaussian_noise": gaussian_noise}
    constants = {"model": model, "versions": tuple(versions), "options": options}
    result = engine.map(
        step, _similarity_batch, arrays, constants=constants, batch_size=batch_size, code=layer_similarity
    )
    names = tuple(grad_cam(model, clean[:1], layers=options.get("layers", "all")))
    return LayerSimilarity(names, **{name: result[name] for name in LayerSimilarity._fields[1:]})


def _similarity_batch(*, options: dict[str, Any], **given: Any) -> dict[str, Tensor]:
    found = layer_similarity(**given, **options)
    return {name: values for name, values in found._asdict().items() if name != "layers"}


def neurons_covered(
    engine: Engine, model: Classifier, images: Tensor, *, step: str = "neurons covered"
) -> Tensor:
    """Return which neurons each image covers, (N, neurons) bool, batch by batch.

    The neurons are those of :mod:`xaicore.attacks.neurons`; one is covered where its scaled activation exceeds 0.25.
    """
    result = engine.map(
        step, _covered_batch, {"images": images}, constants={"model": model}, batch_size=64, code=activations
    )
    return result["covered"]


def _covered_batch(*, model: Classifier, images: Tensor) -> dict[str, Tensor]:
    return {"covered": covered(activations(model, images))}
