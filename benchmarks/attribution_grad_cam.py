"""How fast the Grad-CAM of all layers at once is beside Captum and pytorch-grad-cam, layer by layer.

The maps are of the same tensors, the outputs of the ReLUs. pytorch-grad-cam runs in an environment of its own
(:mod:`benchmarks.peers`) and also enlarges and scales its maps; its time includes that, Captum's and ours have
nothing of the kind. The sides take turns, and the fastest of each counts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.measure import Timed, clocked, interleaved
from benchmarks.subjects import Subject
from xaicore import models
from xaicore.attribution import grad_cam

FASTER = 8.0
"""How many times as fast as thirteen calls one call for the thirteen convolutions of VGG16 is to be."""
LIMIT = 600
TURNS_SECONDS = 40.0
"""No new turn after that."""
Maps = dict[str, Tensor]


def rows(*, repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Return one row for each peer; without the peers' environment pytorch-grad-cam is left out.

    Args:
        repeats: most turns.
        quick: a tiny network and image: does it run? The peers' environment is used if it is there, not made.

    Returns:
        Dicts ``{name, peer, subject, n, ours_ms, peer_ms, ratio, goal, met, max_relative_error, note}``: times in
        milliseconds for all n images and layers, ratio the peer's time over ours, goal the least ratio wanted, and
        the error relative to the largest value of a layer's map.
    """
    subject = _subject(quick)
    network = subject.model.network
    relus = {
        name: _next(network, name) for name, module in network.named_modules() if _is_convolution(module)
    }
    sides: dict[str, Callable[[], Timed[Maps]]] = {
        "ours": lambda: clocked(lambda: dict(grad_cam(subject.model, subject.images, subject.labels))),
        "captum LayerGradCam": lambda: clocked(lambda: _captum(subject, relus)),
    }
    try:
        interpreter = peers.python() if quick else peers.prepare()
    except peers.PeerError:
        interpreter = None
    if interpreter is None:
        return _compared(subject, sides, repeats)
    with peers.Worker(interpreter, torch.get_num_threads()) as worker:

        def theirs() -> Timed[Maps]:
            given = (subject, subject.images, subject.labels, list(relus.values()), LIMIT)
            maps, seconds = worker.grad_cams(*given)
            return Timed({name: maps[relu] for name, relu in relus.items()}, seconds)

        return _compared(subject, {**sides, "pytorch-grad-cam": theirs}, repeats)


def _compared(
    subject: Subject, sides: dict[str, Callable[[], Timed[Maps]]], repeats: int
) -> list[dict[str, Any]]:
    best, _ = interleaved(sides, repeats, TURNS_SECONDS)
    ours = best.pop("ours")
    found = []
    for name, theirs in best.items():
        ratio = theirs.seconds / ours.seconds
        found.append(
            {
                "name": "grad_cam of all layers",
                "peer": f"{name}, layer by layer",
                "subject": subject.about,
                "n": len(subject.images),
                "ours_ms": 1000 * ours.seconds,
                "peer_ms": 1000 * theirs.seconds,
                "ratio": ratio,
                "goal": FASTER,
                "met": ratio >= FASTER,
                "max_relative_error": max(
                    _error(heat, theirs.result[layer]) for layer, heat in ours.result.items()
                ),
                "note": f"{len(ours.result)} layers",
            }
        )
    return found


def _subject(quick: bool) -> Subject:
    size, width, count = (32, 0.0625, 2) if quick else (224, 1.0, 1)
    architecture: dict[str, Any] = {
        "name": "vgg16",
        "classes": 10,
        "input_size": size,
        "width": width,
        "batch_norm": False,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.load(**architecture)
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    about = f"VGG16 of width {width:g}, untrained, noise of {size} x {size}"
    return Subject(f"vgg16-{size}", model, images, torch.arange(count), architecture, about)


def _captum(subject: Subject, relus: dict[str, str]) -> Maps:
    network = subject.model.network
    inputs = subject.model.normalize(subject.images)
    maps = {}
    for name, relu in relus.items():
        explainer = LayerGradCam(network, network.get_submodule(relu))
        maps[name] = explainer.attribute(inputs, subject.labels, relu_attributions=True)[:, 0].detach()
    return maps


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def _next(network: nn.Module, name: str) -> str:
    """Return the name of the module after ``name``, in VGG16 the ReLU."""
    names: Sequence[str] = [other for other, _ in network.named_modules()]
    return names[names.index(name) + 1]


def _error(ours: Tensor, theirs: Tensor) -> float:
    largest = float(theirs.abs().max())
    return float((ours - theirs).abs().max()) / largest if largest else float(ours.abs().max())
