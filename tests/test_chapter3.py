"""Parameters of chapter 3, its networks, and the notebook on a folder of one's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xaicore import models
from xaicore.core.errors import UserError
from xaicore.run.params import P3Parameters
from xaicore.run.records import Run
from xaicore.run.store import Store
from xaicore.studies.face_networks import face_backbone, face_sets, with_head
from xaicore.studies.layer_subjects import eight_bit, first_subject, second_subject

ROOT = Path(__file__).resolve().parent.parent


def _two_patterns(folder: Path) -> Path:
    """Two classes of thirty pictures: a pattern of large squares each, every picture a little noisier."""
    generator = np.random.default_rng(0)
    for kind in ("coarse", "fine"):
        (folder / kind).mkdir(parents=True)
        pattern = np.kron(generator.integers(70, 185, (4, 4, 3)), np.ones((8, 8, 1)))
        for number in range(30):
            picture = pattern + generator.normal(0, number, pattern.shape)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / kind / f"{number}.png")
    return folder


def _subject(tmp_path, **given):
    params = P3Parameters.check({"size": 32, "model": "small_cnn", "second_dataset": None, **given})
    run = Run("p3_layer_by_layer", params, output_dir=tmp_path / "record")
    return first_subject(params, Store(tmp_path / "store"), run)


def test_a_folder_is_trained_on_and_a_file_of_weights_is_taken_as_it_is(tmp_path):
    given = {"dataset": "folder", "data_root": str(_two_patterns(tmp_path / "images")), "epochs": 3}
    trained = _subject(tmp_path, **given)
    assert trained.names == ("coarse", "fine")
    assert len(trained.labels) >= 4
    assert (trained.model(trained.images).argmax(1) == trained.labels).all()
    assert torch.equal(trained.images, eight_bit(trained.images))
    models.save(trained.model, tmp_path / "weights.safetensors")
    again = _subject(tmp_path, **given, weights=str(tmp_path / "weights.safetensors"))
    assert torch.equal(again.model(again.images), trained.model(trained.images))


def test_faces_are_prepared_and_trained_once(tmp_path):
    store = Store(tmp_path)
    options = {"size": 32, "shares": [0.1, 0.1, 0.8], "n_images": 5}
    recipe = models.face_recipe("small_cnn", epochs=1)
    head = models.Recipe(epochs=2, batch_size=32, learning_rate=1e-3)
    found = []
    for _ in range(2):
        faces = face_sets(store, "orl-faces", None, **options)
        backbone, _ = face_backbone(store, "small_cnn", faces, recipe=recipe)
        found.append(with_head(store, "small_cnn", backbone, faces, "aligned", recipe=head))
    assert len(faces["test"].labels) == 5
    assert faces["training"].raw.shape == faces["training"].aligned.shape == (40, 1, 32, 32)
    assert found[0].fingerprint == found[1].fingerprint
    assert (store.computed, store.reused) == (5, 5)


def test_no_second_network_where_none_is_asked_for(tmp_path):
    params = P3Parameters.check({"second_dataset": None})
    assert second_subject(params, Run("p3_layer_by_layer", params, output_dir=tmp_path)) is None


def test_papermill_on_a_folder_with_another_network(tmp_path):
    command = [
        *(sys.executable, "-m", "papermill", "--no-progress-bar", "--start-timeout", "600"),
        *("notebooks/p3_layer_by_layer.ipynb", str(tmp_path / "out.ipynb")),
        *("-p", "dataset", "folder", "-p", "data_root", str(_two_patterns(tmp_path / "images"))),
        *("-p", "model", "small_cnn", "-p", "size", "32", "-p", "epochs", "3"),
        *("-p", "n_orders", "20", "-p", "n_draws", "1"),
        *("-p", "iterations", "3", "-p", "step_size", "8/255", "-p", "strengths", "0.5,1,2"),
        *("-p", "coverage_table", "per-image"),
        *("-p", "fidelity", "as-published", "-p", "output_dir", str(tmp_path / "record")),
        *("-y", "{second_dataset: null, other_attacks: []}"),
    ]
    environment = {**os.environ, "XAICORE_STORE": str(tmp_path / "store")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    values = json.loads((tmp_path / "record" / "record.json").read_text(encoding="utf-8"))["values"]
    assert values["p3.dlfuzz_success"]["n"] == values["p3.count.seeds"]["value"]
    assert values["p3.as_published.strength_distance.s050_s100"]["value"] >= 0
    for name in (
        "p3.compromise.s050",
        "p3.coverage.s200",
        "p3.compromised_all.count",
        "p3.depth_correlation",
    ):
        assert np.isfinite(values[name]["value"]), name


@pytest.mark.parametrize("dataset", ["cats-vs-dogs", "faces", "imagenet"])
def test_a_missing_folder_is_told(dataset, tmp_path):
    weights = "imagenet" if dataset == "imagenet" else None
    with pytest.raises(UserError, match="there is no folder"):
        _subject(tmp_path, dataset=dataset, data_root=str(tmp_path / "nothing"), weights=weights)
