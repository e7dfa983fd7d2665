"""Grad-CAM of all layers beside pytorch-grad-cam, layer by layer, and the benchmark that compares their times.

Its environment is made by ``python -m benchmarks.attribution``; without it these tests are skipped.
"""

import pytest
import torch
from attribution_networks import images, package_network

from benchmarks import attribution_grad_cam, peers
from benchmarks.subjects import Subject
from xaicore.attribution import grad_cam

pytestmark = pytest.mark.skipif(
    peers.python() is None,
    reason="pytorch-grad-cam is not there; python -m benchmarks.attribution installs it",
)


def test_every_layer_is_pytorch_grad_cams() -> None:
    model, _ = package_network("small_cnn")
    batch, targets = images(3, 3, 16), torch.tensor([0, 3, 1])
    architecture = {"name": "small_cnn", "classes": 4, "input_size": 16}
    subject = Subject("small", model, batch, targets, architecture, "small_cnn")
    interpreter = peers.python()
    assert interpreter is not None
    layers = ["features.2", "features.5", "features.9", "features.12"]
    with peers.Worker(interpreter, torch.get_num_threads()) as worker:
        theirs, _ = worker.grad_cams(subject, batch, targets, layers, 120)
    ours = grad_cam(model, batch, targets)
    for expected, maps in zip([theirs[name] for name in layers], ours.values(), strict=True):
        assert expected.any()
        assert (maps - expected).abs().max() <= 1e-5 * expected.max()


def test_the_benchmark_runs() -> None:
    rows = attribution_grad_cam.rows(repeats=1, quick=True)
    assert [row["peer"].split(",")[0] for row in rows] == ["captum LayerGradCam", "pytorch-grad-cam"]
    for row in rows:
        assert row["max_relative_error"] < 1e-4
        assert row["note"] == "13 layers"
