"""What each mechanism that exists for speed brings on work of the book: with it and without it, in turn.

``python -m benchmarks.mechanisms [results.json] [--repeats R] [--quick]``

One thread, one process; the fastest of the interleaved repeats of each side counts. A factor is the time without over
the time with: above 1, the mechanism is faster. Outputs are those of the same work, so they differ by rounding at most.
What is faster than another library stands in :mod:`benchmarks.attribution` and :mod:`benchmarks.detectors`.

The JSON, ``schema`` 1::

    date, machine {processor, cores, system}, versions {package: version}, repeats, quick
    rows   mechanism, work, with_seconds, without_seconds, factor, largest_difference
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks import command
from benchmarks.measure import clocked, interleaved
from xaicore import attacks, data, models
from xaicore.attacks import auto_pgd, few_pixels
from xaicore.attacks.base import Attempt
from xaicore.attacks.goal import Goal
from xaicore.attacks.iteration import Aim
from xaicore.attacks.objectives import rivals
from xaicore.attacks.victim import Victim
from xaicore.core.batched_model import BatchedModel
from xaicore.core.fingerprint import digest
from xaicore.data import imageset
from xaicore.models import classifier
from xaicore.run.engine import LocalEngine
from xaicore.run.store import Store
from xaicore.studies import steps

SCHEMA = 1
PACKAGES = ("xaicore", "torch", "numpy")
HEADER = f"{'mechanism':30s} {'work':58s} {'with':>10s} {'without':>10s} {'factor':>6s}  difference"

Call = Callable[[], Tensor]
Case = tuple[str, str, Call, Call]
"""A mechanism, the work, and the call that does the work with the mechanism and without it."""


def cases(quick: bool) -> Iterator[Case]:
    """Yield every mechanism with its work, on networks as chapters have them; untrained, which costs the same."""
    n = 2 if quick else 64
    faces = torch.rand(n, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    people = torch.arange(n) % 40
    for name in ("resnet18",) if quick else ("vgg16", "resnet50", "xception"):
        network = models.load(name, classes=40, channels=1, input_size=48)
        recipe = models.Recipe(epochs=1, batch_size=32, precision="float32")
        trained = partial(_weights, network, faces, people)
        with_maps = partial(trained, replace(recipe, small_maps=True))
        yield (
            "small maps as products",
            f"training {name}, an epoch of {n} faces",
            with_maps,
            partial(trained, recipe),
        )
    for name, side, count, options in _subjects(quick):
        network = models.load(name, input_size=side, **options).fold_batchnorm()
        images = torch.rand(count, network.channels, side, side, generator=torch.Generator().manual_seed(1))
        call = partial(_attacked, network, images)
        without = _patched(call, BatchedModel, "_lay_out", _contiguous)
        yield "channels last", f"PGD, 5 steps, {name}, {count} images of {side} px", call, without
    for side, width in ((32, 0.25),) if quick else ((64, 0.25), (112, 0.25), (112, 1.0)):
        network = models.load("vgg16", classes=2, channels=3, input_size=side, width=width).fold_batchnorm()
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
        call = partial(_one_pixel, network, images)
        without = _patched(call, few_pixels.PixelWindows, "of", lambda *given: None)
        yield "window of a pixel", f"one-pixel, 200 queries, VGG16, width {width:g}, {side} px", call, without
    digits = data.load("mnist-5k", split="test", n=2 if quick else 16).stack()[0]
    width = 0.25 if quick else 1.0
    network = models.load("small_cnn", classes=10, channels=1, input_size=28, width=width)
    together, alone = partial(_lbfgs, network, digits), partial(_one_by_one, network, digits)
    yield "L-BFGS of images side by side", f"L-BFGS attack on {len(digits)} digits", together, alone
    call = partial(_withstanding, network, digits)
    without = _patched(call, auto_pgd, "one_by_one", _class_by_class)
    yield "candidate classes side by side", f"APGD-T, 20 steps, {len(digits)} digits", call, without
    side = 32 if quick else 64
    network = models.load("vgg16", classes=2, channels=3, input_size=side, width=0.25).fold_batchnorm()
    images = torch.rand(8 if quick else 256, 3, side, side, generator=torch.Generator().manual_seed(2))
    together, alone = (partial(_in_batches, network, images, workers) for workers in (2, 1))
    yield "two batches side by side", f"LRP of {len(images)} images of {side} px, VGG16", together, alone
    photographs = data.load("imagenet-20", split="all", size=side if quick else 224)
    call = partial(_stacked, photographs)
    without = _patched(call, imageset, "ThreadPoolExecutor", partial(imageset.ThreadPoolExecutor, 1))
    yield (
        "decoding by threads",
        f"{len(photographs)} photographs of {photographs[0][0].shape[1]} px",
        call,
        without,
    )
    network = models.load("vgg16", classes=2, channels=3, input_size=side, width=0.25 if quick else 1.0)
    call = partial(_asked_again, network)
    without = _patched(call, classifier, "checksum", digest)
    yield "weights looked over by a CRC", "fingerprint of VGG16 that was asked before", call, without


def _subjects(quick: bool) -> Sequence[tuple[str, int, int, dict[str, Any]]]:
    """Return name, size of the images, their number and options of networks that chapters attack."""
    digits = ("small_cnn", 28, 4 if quick else 128, {"classes": 10, "channels": 1})
    if quick:
        return [digits]
    return [
        digits,
        ("vgg16", 64, 32, {"classes": 2, "channels": 3, "width": 0.25}),
        ("resnet50", 48, 32, {"classes": 40, "channels": 1}),
        ("efficientnet_lite0", 224, 4, {"weights": "imagenet"}),
    ]


def _patched(call: Call, where: Any, name: str, value: Any) -> Call:
    def without() -> Tensor:
        with patch.object(where, name, value):
            return call()

    return without


def _weights(network: models.Classifier, images: Tensor, labels: Tensor, recipe: models.Recipe) -> Tensor:
    trained = models.train(network, images, labels, recipe=replace(recipe, seed=0)).model
    return torch.cat([parameter.detach().flatten() for parameter in trained.parameters()])


def _attacked(network: models.Classifier, images: Tensor) -> Tensor:
    labels = models.predict(network, images).argmax(1)
    return attacks.pgd(network, images, labels, eps=8 / 255, steps=5, early_stop=False).adversarial


def _one_pixel(network: models.Classifier, images: Tensor) -> Tensor:
    labels = models.predict(network, images).argmax(1)
    return attacks.one_pixel(network, images, labels, population=100, generations=1).adversarial


def _lbfgs(network: models.Classifier, images: Tensor) -> Tensor:
    labels = models.predict(network, images).argmax(1)
    return attacks.lbfgs(network, images, labels, target=(labels + 1) % len(network.classes)).adversarial


def _one_by_one(network: models.Classifier, images: Tensor) -> Tensor:
    return torch.cat([_lbfgs(network, image) for image in images.split(1)])


def _withstanding(network: models.Classifier, images: Tensor) -> Tensor:
    labels = models.predict(network, images).argmax(dim=1)
    return attacks.apgd(network, images, labels, loss="targeted-dlr", eps=1e-4, steps=20).adversarial


def _class_by_class(
    attack: Callable[..., Attempt], victim: Victim, images: Tensor, goal: Goal, *others: Any, **_: Any
) -> Attempt:
    classes = rivals(victim.logits(images), goal.labels, 9)
    for turn, column in enumerate(classes.unbind(dim=1)):
        attempt = attack(victim, images, goal, *others, aim=Aim(column, torch.full_like(column, turn)))
        assert not attempt.info.pop("cost").isfinite().any()
    return attempt


def _contiguous(self: BatchedModel, layout: torch.memory_format) -> None:
    self._layout = torch.contiguous_format
    self._parameters = {name: p.detach() for name, p in self.model.named_parameters()}


def _stacked(images: imageset.ImageSet) -> Tensor:
    return images.stack()[0]


def _asked_again(network: models.Classifier) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(network.fingerprint), dtype=torch.uint8)


def _in_batches(network: models.Classifier, images: Tensor, workers: int) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        engine = LocalEngine(Store(folder), workers=workers)
        return steps.explained(engine, network, images, preset="alpha1-beta0", batch_size=32)


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of the table."""
    return (
        f"{row['mechanism']:30s} {row['work']:58s} {row['with_seconds']:8.3f} s {row['without_seconds']:8.3f} s "
        f"{row['factor']:5.2f}x  {row['largest_difference']:.1e}"
    )


def rows(repeats: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each mechanism."""
    for mechanism, work, with_it, without in cases(quick):
        calls = {"with": partial(clocked, with_it), "without": partial(clocked, without)}
        best, _ = interleaved(calls, repeats)
        one, other = best["with"], best["without"]
        yield {
            "mechanism": mechanism,
            "work": work,
            "with_seconds": one.seconds,
            "without_seconds": other.seconds,
            "factor": other.seconds / one.seconds,
            "largest_difference": float((one.result - other.result).abs().max()),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    about = "Time what exists for speed with it and without it."
    parser = command.parser("mechanisms", about, quick="few and small images", repeats=(5, "turns of a pair"))
    options = parser.parse_args(arguments)
    settings = {"repeats": options.repeats, "quick": options.quick}

    def work() -> command.Report:
        with command.threads_of(1):
            found = command.printed(HEADER, rows(**settings), line, end=False)
        return {**command.made_here(SCHEMA, PACKAGES, **settings), "rows": found}

    return command.produce(options.path, work)


if __name__ == "__main__":
    sys.exit(main())
