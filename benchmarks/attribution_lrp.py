"""How fast ``preset-a-flat`` is beside zennit's own ``EpsilonPlusFlat`` composite, at equal output.

The two agree where biases are 0: ours takes the whole bias of a convolution into the denominator of alpha1-beta0, as
iNNvestigate does, zennit its positive part only. So the networks' biases are set to 0, which changes no
operation of either side. zennit gets the same relevance to start from (the logit of the arg max), the same epsilon,
a stabiliser too small to be seen in float32, and its gradients are taken for the images alone.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat

from benchmarks.measure import clocked, interleaved, rounded, versus
from xaicore import models
from xaicore.attribution import lrp

EPSILON = 0.1
STABILIZER = 1e-12
GOAL = 1.8
TURNS_SECONDS = 60.0


def rows(*, repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Return one row of :func:`benchmarks.measure.versus`, times per image, for each number of images.

    Args:
        repeats: most turns; both sides in each, the fastest of each counts.
        quick: a narrow network and small images, so that all runs in a moment.
    """
    size, width, counts = (32, 0.0625, (1,)) if quick else (224, 1.0, (1, 4))
    model = models.load(
        "vgg16", classes=10 if quick else 1000, width=width, input_size=size, batch_norm=False
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    every = torch.rand(max(counts), 3, size, size, generator=torch.Generator().manual_seed(0))
    found = []
    for count in counts:
        images = every[:count]
        sides = {
            "ours": partial(clocked, partial(lrp, model, images, preset="preset-a-flat", epsilon=EPSILON)),
            "peer": partial(clocked, partial(zennit_heatmaps, model, images)),
        }
        best, _ = interleaved(sides, repeats, TURNS_SECONDS)
        ours, peer = best["ours"], best["peer"]
        row = versus(
            "preset-a-flat",
            "zennit EpsilonPlusFlat",
            f"{model.name}, {size} px, without biases",
            count,
            (ours.seconds / count, peer.seconds / count),
            float((ours.result - peer.result).abs().max() / peer.result.abs().max()),
            goal=GOAL,
            note="the difference is float32 rounding: below 1e-12 in float64",
        )
        found.append(rounded(row))
    return found


def zennit_heatmaps(model: models.Classifier, images: Tensor) -> Tensor:
    """Return zennit's heatmaps (N, C, H, W) of the arg max, on the network's normalised input."""
    inputs = model.normalize(images)
    composite = EpsilonPlusFlat(epsilon=EPSILON, stabilizer=STABILIZER)

    def logit_of_winner(logits: Tensor) -> Tensor:
        winner = logits.argmax(1, keepdim=True)
        return torch.zeros_like(logits).scatter_(1, winner, logits.gather(1, winner))

    with Gradient(model.network, composite) as attributor:
        _, relevance = attributor(inputs, logit_of_winner)
    return relevance.detach()
