"""How fast the Grad-CAM of all layers at once is beside Captum and pytorch-grad-cam, layer by layer.

The maps are of the same tensors, the outputs of the ReLUs. pytorch-grad-cam runs in an environment of its own
(:mod:`benchmarks.peers`) and also enlarges and scales its maps; its time includes that, Captum's and ours have
nothing of the kind. The sides take turns, and the fastest of each counts.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.measure import Timed, clocked, interleaved, versus
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
    """Return one row of :func:`benchmarks.measure.versus` for each peer, times for all images and layers.

    Without the peers' environment pytorch-grad-cam is left out.

    Args:
        repeats: most turns.
        quick: a tiny network and image: does it run? The peers' environment is used if it is there, not made.
    """
    subject = _subject(quick)
    names = [name for name, _ in subject.model.network.named_modules()]
    relus = {  # of each convolution, the module after it
        name: names[names.index(name) + 1]
        for name, module in subject.model.network.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    sides: dict[str, Callable[[], Timed[Maps]]] = {
        "ours": lambda: clocked(lambda: dict(grad_cam(subject.model, subject.images, subject.labels))),
        "captum LayerGradCam": lambda: clocked(lambda: _captum(subject, relus)),
    }
    try:
        interpreter = peers.python() if quick else peers.prepare()
    except peers.PeerError:
        interpreter = None
    with ExitStack() as stack:
        if interpreter is not None:
            worker = stack.enter_context(peers.Worker(interpreter, torch.get_num_threads()))

            def theirs() -> Timed[Maps]:
                given = (subject, subject.images, subject.labels, list(relus.values()), LIMIT)
                maps, seconds = worker.grad_cams(*given)
                return Timed({name: maps[relu] for name, relu in relus.items()}, seconds)

            sides["pytorch-grad-cam"] = theirs
        best, _ = interleaved(sides, repeats, TURNS_SECONDS)
    ours = best.pop("ours")
    return [
        versus(
            "grad_cam of all layers",
            f"{name}, layer by layer",
            subject.about,
            len(subject.images),
            (ours.seconds, peer.seconds),
            max(_error(heat, peer.result[layer]) for layer, heat in ours.result.items()),
            goal=FASTER,
            note=f"{len(ours.result)} layers",
        )
        for name, peer in best.items()
    ]


def _subject(quick: bool) -> Subject:
    size, width, count = (32, 0.0625, 2) if quick else (224, 1.0, 1)
    architecture: dict[str, Any] = {"name": "vgg16", "classes": 10, "input_size": size, "width": width}
    architecture["batch_norm"] = False
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


def _error(ours: Tensor, theirs: Tensor) -> float:
    largest = float(theirs.abs().max())
    return float((ours - theirs).abs().max()) / largest if largest else float(ours.abs().max())
