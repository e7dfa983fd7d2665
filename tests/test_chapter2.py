"""Parameters of chapter 2 and what a bad folder of faces says, before any work."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from xaicore.book import cli
from xaicore.core.errors import UserError
from xaicore.studies.face_networks import published_weights

ROOT = Path(__file__).resolve().parent.parent


def _faces(folder: Path, people: int, each: int) -> Path:
    for person in range(people):
        (folder / f"person{person}").mkdir(parents=True)
        for number in range(each):
            colour = (40 * person, 9 * number, 99)
            Image.new("RGB", (50, 60), colour).save(folder / f"person{person}" / f"{number}.jpg")
    return folder


def _missing(folder: Path) -> None:
    """Leave the folder away."""


def _one_image(folder: Path) -> None:
    _faces(folder, 3, 1)


def _truncated(folder: Path) -> None:
    first = _faces(folder, 3, 12) / "person1" / "3.jpg"
    first.write_bytes(first.read_bytes()[:200])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, "there is no folder"),
        (_one_image, "has 1 images, but a split needs at least 3"),
        (_truncated, "person1/3.jpg is corrupt or no image"),
    ],
)
def test_a_bad_folder_is_one_line_and_leaves_nothing(spoil, message, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "faces"
    spoil(folder)
    monkeypatch.chdir(ROOT)
    options = {"data_root": str(folder), "dataset": "faces", "shares": "null", "n_images": "null"}
    given = [word for name, value in options.items() for word in ("-p", name, value)]
    assert cli.main(["run", "--edition", "quick", "--only", "p2", *given]) == 2
    said = "".join(capsys.readouterr())
    assert len([line for line in said.splitlines() if message in line]) >= 1, said
    assert "Traceback" not in said
    assert not (ROOT / "runs" / "custom" / "p2_gradcam_shift" / "record.json").exists()


def _different_people(folder: Path) -> None:
    """Four people, ten pictures each: a pattern of large squares, each picture a little noisier."""
    generator = np.random.default_rng(0)
    for person in range(4):
        (folder / f"person{person}").mkdir(parents=True)
        pattern = np.kron(generator.integers(40, 215, (5, 5, 3)), np.ones((16, 16, 1)))
        for number in range(10):
            picture = pattern + generator.normal(0, 2 * number, pattern.shape)
            file = folder / f"person{person}" / f"{number}.png"
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file)


PUBLISHED = """
from torchvision.models import ResNet18_Weights

entry = ResNet18_Weights.IMAGENET1K_V1.value
object.__setattr__(entry, "url", entry.url.rpartition("/")[0] + "/{name}")
"""


def test_papermill_on_a_folder_of_faces_with_published_weights(tmp_path: Path) -> None:
    """The heads are trained on the frozen layers of a published file, here one with weights made up."""
    _different_people(tmp_path / "faces")
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(torchvision.models.resnet18().state_dict(), cache / "made-up.pth")
    # A published file carries the beginning of its digest in its name, and is held to it.
    name = f"resnet18-{hashlib.sha256((cache / 'made-up.pth').read_bytes()).hexdigest()[:8]}.pth"
    (cache / "made-up.pth").rename(cache / name)
    (tmp_path / "sitecustomize.py").write_text(PUBLISHED.format(name=name), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "papermill", "--no-progress-bar", "--start-timeout", "600"),
        *("notebooks/p2_gradcam_shift.ipynb", str(tmp_path / "out.ipynb")),
        *("-p", "dataset", "faces", "-p", "data_root", str(tmp_path / "faces")),
        *("-p", "models", "resnet18", "-p", "model", "resnet18", "-p", "weights", "imagenet"),
        *("-p", "eps", "2/255,8/255", "-p", "size", "64"),
        *("-p", "published", "efficientnet_lite0", "-p", "published_size", "32"),
        *("-p", "n_layer_images", "2", "-p", "n_layers_shown", "3"),
        *("-y", "{shares: null}", "-p", "output_dir", str(tmp_path / "record")),
    ]
    environment = {
        **os.environ,
        "TORCH_HOME": str(tmp_path / "torch"),
        "XAICORE_STORE": str(tmp_path / "store"),
        "PYTHONPATH": str(tmp_path),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "record" / "record.json").read_text(encoding="utf-8"))
    values = record["values"]
    assert values["p2.count.identities"]["value"] == 4
    clean, attacked = (values[f"p2.accuracy.aligned.blackbox.resnet18.eps_{eps}"] for eps in ("000", "031"))
    assert clean["n"] == attacked["n"] == 4
    assert clean["value"] >= 75
    assert 0 <= attacked["value"] <= clean["value"]
    assert values["p2.psnr.raw.eps_008"]["value"] == pytest.approx(42.1, abs=0.2)
    assert values["p2.mod.blackbox.resnet18.eps_000"]["value"] == pytest.approx(0, abs=1e-12)
    assert values["p2.mod.blackbox.resnet18.eps_031"]["value"] > 0


def test_published_weights_are_a_file_of_the_network_or_imagenets(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("XAICORE_DATA", raising=False)
    assert published_weights("efficientnet_lite0", None) == "imagenet"
    with pytest.raises(UserError, match="no published weights of mobilefacenet: put a file mobilefacenet-"):
        published_weights("mobilefacenet", str(tmp_path))
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights" / "mobilefacenet-casia.safetensors"
    file.touch()
    assert published_weights("mobilefacenet", str(tmp_path)) == str(file)
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path))
    assert published_weights("mobilefacenet", None) == str(file)
    (tmp_path / "weights" / "mobilefacenet-other.safetensors").touch()
    with pytest.raises(UserError, match=r"several files of mobilefacenet: .*casia.*other"):
        published_weights("mobilefacenet", None)
