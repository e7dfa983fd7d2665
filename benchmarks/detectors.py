"""How fast EXPLAINER detects beside the plain route: scikit-image and Captum, image by image, at equal output.

``python -m benchmarks.detectors [results.json] [--threads T] [--repeats R] [--quick]``

Both sides denoise each image by scikit-image at the same strength, explain it and its denoised version by the same
gradients (IG with SmoothGrad, a Gauss-Legendre point on the way to each noisy copy, the same noise; integrated
gradients), and take the entropies of 256 bins. The plain route does so one image after the other: integrated gradients
by ``captum.attr``, the smoothed ones by one ``captum.attr.Saliency`` call a point, the entropy by
``skimage.measure.shannon_entropy`` of the quantised map. Both take the noise level from us: scikit-image's own needs
PyWavelets. DeepLIFT is left out: Captum's gives other maps where a pool follows a ReLU, as in the digit network. Sides
run in turn in the same process, and the fastest of each counts. A ratio is the plain route's time over ours: above 1,
ours is faster. It counts only where the outputs agree: the median difference of the entropies, in bits (a pixel on the
border between two bins of the histogram can fall on either side).

The goals are seconds per image: 0.02 for digits of 28 px, 1 for photographs of 224 px (EfficientNet-Lite0), on two
cores. The paper reports 1 and 50.

The JSON, ``schema`` 1::

    date, machine {processor, cores, system}, versions {package: version}, threads, repeats, quick
    rows       subject ("digits" or "photographs"), explanation, n, pixels, ours_seconds, plain_seconds (per image),
               ratio, goal_seconds (null without), met (bool), median_difference
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from skimage.measure import shannon_entropy
from skimage.restoration import denoise_nl_means
from torch import Tensor

from benchmarks import command
from benchmarks.measure import clocked, interleaved
from xaicore import data, models
from xaicore.detectors import Explainer, noise_level
from xaicore.models import Classifier

SCHEMA = 1
PACKAGES = ("xaicore", "torch", "captum", "scikit-image", "numpy")
EXPLANATIONS = ("smooth_ig", "integrated_gradients")
STRENGTH, POINTS, STD = 0.8, 8, 0.15
GOALS = {"digits": 0.02, "photographs": 1.0}
DIFFERENT = 0.05
"""Median difference of the entropies, in bits, above which the outputs are not the same."""
HEADER = f"{'what':36s} {'n':>4s} {'s per image, ours/plain':>26s} {'ratio':>7s}  goal           difference"


def subjects(quick: bool) -> Iterator[tuple[str, Classifier, Tensor]]:
    """Yield name, network and images; the digit network is untrained, which costs as much."""
    digits = data.load("mnist-5k", split="test")
    images = digits.stack()[0]
    network = models.load(
        "small_cnn", classes=digits.classes, channels=1, input_size=28, width=0.25 if quick else 1
    )
    yield "digits", network, images[:: len(images) // (4 if quick else 32)][: 4 if quick else 32]
    photographs = data.load("imagenet-20", size=64 if quick else 224)
    network = models.load("efficientnet_lite0", weights="imagenet", classes=photographs.classes)
    yield "photographs", network, photographs.stack(range(1 if quick else 4))[0]


def plain(model: Classifier, images: Tensor, explanation: str) -> Tensor:
    """Return the entropies (N, 2) of the maps, one image after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.attr import IntegratedGradients, Saliency
    model.eval()
    rows = []
    ways = Explainer(model, n_points=POINTS, std=STD).ways(images.shape[1:])
    for image in images:
        width = STRENGTH * float(noise_level(image[None]))
        cleaned = denoise_nl_means(image.numpy(), 5, 6, width, fast_mode=True, channel_axis=0)
        pair = []
        for shown in (image, torch.from_numpy(cleaned).view_as(image).clamp(0, 1)):
            with torch.no_grad():
                target = int(model(shown[None]).argmax())
            start, end = (model.normalize(each[None]) for each in (torch.zeros_like(shown), shown))
            if explanation == "smooth_ig":
                heat = torch.zeros_like(image)[None]
                for _, noise, place, weight in zip(*ways, strict=True):
                    noisy = (shown + noise)[None]
                    point = (place * noisy).requires_grad_()
                    slope = Saliency(model).attribute(point, target=target, abs=False)
                    heat += weight * noisy * slope
            else:
                explainer = IntegratedGradients(model.network)
                heat = explainer.attribute(end, start, target=target, n_steps=POINTS)
            values = heat[0].sum(0).double().abs().numpy()
            levels = np.minimum(values / max(values.max(), 1e-300) * 256, 255).astype(np.uint8)
            pair.append(float(shannon_entropy(levels)))
        rows.append(pair)
    return torch.tensor(rows, dtype=torch.float64)


def rows(*, repeats: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Yield one row for each subject and explanation."""
    for subject, model, images in subjects(quick):
        for explanation in EXPLANATIONS:
            detector = Explainer(model, explanation, strength=STRENGTH, n_points=POINTS, std=STD)
            differences = (detector.entropies(images) - plain(model, images, explanation)).abs()
            best, _ = interleaved(
                {
                    "plain": partial(clocked, partial(plain, model, images, explanation)),
                    "ours": partial(clocked, partial(detector.score, images)),
                },
                repeats,
            )
            theirs, ours = best["plain"].seconds, best["ours"].seconds
            goal, difference = GOALS[subject], float(differences.median())
            yield {
                "subject": subject,
                "explanation": explanation,
                "n": len(images),
                "pixels": images.shape[-1],
                "ours_seconds": ours / len(images),
                "plain_seconds": theirs / len(images),
                "ratio": theirs / ours,
                "goal_seconds": goal,
                "met": ours / len(images) <= goal and difference <= DIFFERENT,
                "median_difference": difference,
            }


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of the table."""
    times = f"{row['ours_seconds']:.4f}/{row['plain_seconds']:.4f}"
    goal = f"{row['goal_seconds']:g} s {'met' if row['met'] else 'MISSED'}"
    name = f"{row['subject']}, {row['explanation']}"
    return f"{name:36s} {row['n']:4d} {times:>26s} {row['ratio']:6.2f}x  {goal:14s} {row['median_difference']:.1e}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = command.parser(
        "detectors",
        "Time EXPLAINER against scikit-image and Captum, image by image.",
        quick="few and small images",
        threads=True,
        repeats=(3, "turns of a pair"),
    )
    options = parser.parse_args(arguments)
    settings = {"threads": options.threads, "repeats": options.repeats, "quick": options.quick}

    def work() -> command.Report:
        with command.threads_of(options.threads):
            found = command.printed(HEADER, rows(repeats=options.repeats, quick=options.quick), line)
        return {**command.made_here(SCHEMA, PACKAGES, **settings), "rows": found}

    return command.produce(options.path, work)


if __name__ == "__main__":
    sys.exit(main())
