"""The expensive steps of a chapter, each kept in the store: train, attack, explain.

A chapter calls these instead of the rooms directly, so that a killed run continues with the batch it was at, and a
second run takes its results from the store. Each step is addressed by the code of its own room only: a change in an
explanation does not compute the attacks again.

What many of them take: ``engine`` runs the batches and keeps each finished one in its store; ``model`` is a classifier,
which is not changed; ``images`` are (N, C, H, W) in [0, 1]; ``labels`` (N,) int64 true classes; ``batch_size`` images are
in a batch, on which the result does not depend; ``step`` or ``label`` is what the progress line says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from xaicore.attacks import ATTACKS, AttackResult, fgsm_direction
from xaicore.attacks.neurons import activations, covered
from xaicore.attribution import METHODS, grad_cam
from xaicore.core import progress
from xaicore.metrics.shift import LayerShift, layer_shift
from xaicore.models import REGISTRY, Classifier, Recipe, TrainingResult, train, train_head
from xaicore.studies.layer_similarity import LayerSimilarity, Version, layer_similarity

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
    head: bool = False,
) -> TrainingResult:
    """Train as :func:`xaicore.models.train` does, or take the result from the store.

    Args:
        store: where results are kept.
        label: what the progress line calls this model.
        model: the network to start from.
        images: to train on.
        labels: of these.
        validation: images and labels that choose the epoch.
        recipe: how to train.
        head: whether only the head is trained, as :func:`xaicore.models.train_head` does.
    """

    def report(entry: dict[str, float]) -> None:
        progress.report(f"training the {label} network", int(entry["epoch"]), recipe.epochs)

    given: dict[str, Any] = {"validation": validation, "recipe": recipe}
    inputs = {"model": model, "images": images, "labels": labels, **given}
    if head:
        progress.report(f"training the head of the {label} network", 0, recipe.epochs)
        part = REGISTRY[model.name].head
        kept = store.get_or_compute(
            "train-head",
            inputs,
            lambda: train_head(model, images, labels, **given).arrays(part),
            code=train_head,
        )
    else:
        kept = store.get_or_compute(
            "train",
            inputs,
            lambda state: train(model, images, labels, progress=report, state=state, **given).arrays(),
            code=train,
            resumes=True,
        )
    return TrainingResult.from_arrays(model, kept, seconds=kept.seconds)


def fitted(store: Store, step: str, module: nn.Module, train: Callable[..., Any], **given: Any) -> Any:
    """Return ``module``, frozen, with the weights that ``train`` gives, or from the store.

    Args:
        store: where they are kept.
        step: see above.
        module: of the kind that ``train`` returns.
        train: of :mod:`xaicore.defenses`; of a distillation the student counts.
        given: arguments of ``train``.
    """

    def compute() -> dict[str, Tensor]:
        made = train(**given)
        return dict(getattr(made, "student", made).state_dict())

    module.load_state_dict(dict(store.get_or_compute(step, given, compute, code=train)))
    return module.eval().requires_grad_(False)


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
        engine: and ``model``, ``images``, ``labels``, ``batch_size``: see above.
        name: an attack of :data:`xaicore.attacks.ATTACKS`.
        step: None: the attack's name.
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
    """Explain images batch by batch; return heatmaps (N, C, H, W).

    Args:
        engine: and ``model``, ``images``, ``batch_size``, ``step``: see above.
        targets: (N,) int64 classes to explain; None: the predicted ones.
        method: an explanation of :data:`xaicore.attribution.METHODS` that draws nothing at random.
        options: passed to the method, such as ``preset`` of :func:`xaicore.attribution.lrp`.

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
    batch_size: int = 32,
    step: str = "shift of the maps",
    layers: tuple[str, ...] | str = "all",
    **targets: Tensor,
) -> LayerShift:
    """Compare Grad-CAM maps as :func:`xaicore.metrics.shift.layer_shift` does, with its arguments, batch by batch."""
    arrays = {"before": before, "after": after, **targets}
    found = _by_layer(engine, layer_shift, model, arrays, batch_size, step, {"layers": layers})
    return LayerShift(**found)


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
    """Compare maps as :func:`~xaicore.studies.layer_similarity.layer_similarity` does, with its arguments, by batches."""
    arrays = {"clean": clean, "adversarial_noise": adversarial_noise, "gaussian_noise": gaussian_noise}
    options["versions"] = tuple(versions)
    return LayerSimilarity(**_by_layer(engine, layer_similarity, model, arrays, batch_size, step, options))


LAYER_BY_LAYER = {function.__name__: function for function in (layer_shift, layer_similarity)}


def _by_layer(
    engine: Engine,
    function: Callable[..., LayerShift | LayerSimilarity],
    model: Classifier,
    arrays: dict[str, Tensor],
    batch_size: int,
    step: str,
    options: dict[str, Any],
) -> dict[str, Any]:
    constants = {"name": function.__name__, "model": model, "options": options}
    found = engine.map(step, _layer_batch, arrays, constants=constants, batch_size=batch_size, code=function)
    first = next(iter(arrays.values()))[:1]
    return {**found, "layers": tuple(grad_cam(model, first, layers=options.get("layers", "all")))}


def _layer_batch(*, name: str, options: dict[str, Any], **given: Any) -> dict[str, Tensor]:
    found = LAYER_BY_LAYER[name](**given, **options)._asdict()
    found.pop("layers")
    return found


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
