"""Who enters the arena: its detectors, fitted, and its defences, trained or from the store.

``setting`` is that of :func:`xaicore.studies.arena.setting`; ``learned`` is BIM on the first of its training images, from
which those learn that learn from attacks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from xaicore import defenses, detectors, models
from xaicore.attribution.titles import TITLES
from xaicore.studies import steps
from xaicore.studies.filters import Filter

if TYPE_CHECKING:
    from xaicore.attacks import AttackResult
    from xaicore.detectors import Detector, MagNet
    from xaicore.run.params import ArenaParameters
    from xaicore.run.store import Store
    from xaicore.studies.arena import Setting


class Learned(NamedTuple):
    """What is there to learn from an attack on training images.

    Attributes:
        examples: (S, C, H, W), those that fooled the network.
        originals: (S, C, H, W), the same before.
        adversarial: (N, C, H, W), all, whether they fooled it or not.
        clean: (N, C, H, W), the same before.
    """

    examples: Tensor
    originals: Tensor
    adversarial: Tensor
    clean: Tensor


def learned_from(result: AttackResult, images: Tensor) -> Learned:
    """Return what an attack on ``images`` (N, C, H, W) has to teach."""
    taught = result.success & ~result.info["initially_wrong"]
    return Learned(result.adversarial[taught], images[taught], result.adversarial, images)


def fitted_magnet(params: ArenaParameters, setting: Setting) -> MagNet:
    """Return MagNet, trained on the first training images."""
    given = {name: getattr(params, f"magnet_{name}") for name in ("epochs", "batch_size", "learning_rate")}
    magnet = detectors.MagNet(setting.network, seed=params.seed, **given)
    return magnet.fit(setting.train[0][: params.n_magnet], setting.validation[0])


def fitted_detectors(
    params: ArenaParameters, setting: Setting, learned: Learned, magnet: MagNet
) -> dict[str, dict[str, Detector]]:
    """Return the detectors: what they are based on → title → detector."""
    network, train = setting.network, setting.train[0]
    held = setting.validation[0][:: max(1, len(setting.validation[0]) // 100)]
    clean = train[: params.n_magnet]
    explainers: dict[str, Detector] = {}
    for name in params.explanations:
        detector = detectors.Explainer(network, name, n_points=params.points, seed=params.seed)
        if name == "shap":
            detector.fit(train[: params.points], calibration=train[:1])
        explainers[f"EXPLAINER, {TITLES[name]}"] = detector
    examples = learned.examples if len(learned.examples) > 1 else learned.adversarial
    taught = (learned.clean, held, examples)
    neighbours = min(20, len(clean)), min(50, len(clean))
    entered: dict[str, dict[str, Detector]] = {
        "EXPLAINER": explainers,
        "others": {
            "layers' Grad-CAM": detectors.LayerDeviation(network),
            "dropout uncertainty": detectors.MCDropout(network, n_samples=params.masks, seed=params.seed),
            "feature squeezing": detectors.FeatureSqueezing(network),
            "MagNet": magnet,
        },
        "answer": {
            "maximum softmax": detectors.MaxSoftmax(network),
            "margin": detectors.Margin(network),
            "energy": detectors.Energy(network),
        },
        "features": {
            "kernel density": detectors.KernelDensity(network).fit(clean, held),
            "local dimension": detectors.LocalDimension(network, k=neighbours[0]).fit(clean, held),
            "Mahalanobis": detectors.Mahalanobis(network).fit(clean, held),
            "nearest neighbours": detectors.DeepNeighbours(network, k=neighbours[1]).fit(clean, held),
        },
        "learned from BIM": {
            "relevance signature": detectors.SignatureDetector(network, seed=params.seed).fit(*taught),
            "SHAP signature": detectors.ShapSignature(network, seed=params.seed).fit(*taught),
        },
        "no network": {
            "image, entropy": detectors.ImageEntropy(network),
            "image, denoising": detectors.ImageDenoising(network),
        },
    }
    if params.leave_one_out:
        entered["others"]["leave one out, IQR"] = detectors.LeaveOneOut(network)
        entered["others"]["leave one out, deviation"] = detectors.LeaveOneOut(network, dispersion="std")
        entered["learned from BIM"]["ML-LOO"] = detectors.MultiLayerLeaveOneOut(network).fit(*taught)
    return entered


def trained_defences(
    params: ArenaParameters,
    store: Store,
    setting: Setting,
    learned: Learned,
    magnet: MagNet,
    attacked: Mapping[str, AttackResult],
) -> dict[str, nn.Module]:
    """Return the defences, title → classifier of images in [0, 1]; the first is none.

    ``attacked`` is BIM on all images of ``train`` and of ``validation``, for the retraining, whose epoch is chosen by
    both kinds of images, as it would else be one that has forgotten the attacked ones.
    """
    network, (images, labels) = setting.network, setting.train

    recipe = models.Recipe(
        epochs=params.retraining_epochs,
        learning_rate=1e-3,
        precision="float32",
        seed=params.seed,
        small_maps=True,
    )
    clean = {"train": setting.train, "validation": setting.validation}
    extended = {part: defenses.extended_set(*clean[part], result) for part, result in attacked.items()}
    retrained = steps.trained(
        store, "retrained", network, *extended["train"], validation=extended["validation"], recipe=recipe
    ).model
    repeats = max(1, len(images) // max(1, 2 * len(learned.originals)))
    denoiser = steps.fitted(
        store,
        "denoiser",
        defenses.Denoiser((images.shape[1], images.shape[2], images.shape[3])),
        defenses.trained_denoiser,
        corrupted=torch.cat([images, *[learned.examples] * repeats]),
        clean=torch.cat([images, *[learned.originals] * repeats]),
        epochs=params.denoiser_epochs,
        seed=params.seed,
    )
    robust = steps.fitted(
        store,
        "adversarial training",
        copy.deepcopy(network),
        defenses.adversarial_training,
        model=network,
        images=images,
        labels=labels,
        eps=params.eps,
        steps=params.robust_steps,
        epochs=params.robust_epochs,
        seed=params.seed,
    )
    distilled = steps.fitted(
        store,
        "distillation",
        copy.deepcopy(setting.untrained),
        defenses.distill,
        model=setting.untrained,
        images=images,
        labels=labels,
        temperature=params.temperature,
        epochs=params.epochs,
        learning_rate=3e-3,
        seed=params.seed,
    )
    return {
        "none": network,
        "adversarial retraining": retrained,
        "adversarial training": robust,
        "Heat and Blur": defenses.HeatAndBlur(network, sigma=params.sigma),
        "input rounding": defenses.Reformed(network, Filter("rounding", params.bits)),
        "JPEG": defenses.Reformed(network, Filter("jpeg", params.quality)),
        "MagNet's reformer": defenses.Reformed(network, magnet.reformer),
        "denoising autoencoder": defenses.Reformed(network, denoiser),
        "defensive distillation": distilled,
    }
