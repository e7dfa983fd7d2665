"""Weights from files and downloads: what fits, what does not, and files that mean harm."""

import hashlib
import os
import pickle
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from xaicore import models
from xaicore.core.errors import UserError


def small(**options) -> models.Classifier:
    return models.load("small_cnn", **{"classes": 3, "width": 0.125, "channels": 1, **options})


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_saved_weights_load_again(tmp_path: Path, suffix: str) -> None:
    model = small(seed=4)
    path = models.save(model, tmp_path / f"weights{suffix}")
    assert small(weights=path).fingerprint == model.fingerprint
    folded = model.fold_batchnorm()
    models.save(folded, path)
    again = small(weights=str(path))
    assert again.fingerprint == folded.fingerprint
    assert os.listdir(tmp_path) == [path.name]


def test_folded_residual_networks_load_again(tmp_path: Path) -> None:
    folded = models.load("efficientnet_lite0", classes=3, seed=1).fold_batchnorm()
    path = models.save(folded, tmp_path / "weights.safetensors")
    again = models.load("efficientnet_lite0", classes=3, weights=path)
    assert again.fingerprint == folded.fingerprint
    assert again.options == folded.options
    unfolded = models.load("efficientnet_lite0", classes=3, seed=1)
    models.save(unfolded, path)
    assert (
        models.load("efficientnet_lite0", classes=3, weights=path, batch_norm=False).fingerprint
        == folded.fingerprint
    )


def test_a_file_of_squeezenet_says_how_its_images_are_normalised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two published sets of weights fit by name and shape: a file of which nothing is known is never guessed at."""
    caffe = ((123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3)
    state = torchvision.models.squeezenet1_0(num_classes=4).state_dict()
    silent = {suffix: tmp_path / f"silent{suffix}" for suffix in (".safetensors", ".pth")}
    safetensors.torch.save_file(state, silent[".safetensors"])
    torch.save(state, silent[".pth"])
    load = partial(models.load, "squeezenet1_0", classes=4)
    for path in silent.values():
        with pytest.raises(UserError, match="do not say how their images are normalised") as caught:
            load(weights=path)
        assert "\n" not in str(caught.value)
    told = load(weights=silent[".pth"], mean=caffe[0], std=caffe[1])
    image = torch.rand(1, 3, 40, 40)
    grey_levels = 255 * image - torch.tensor([123.0, 117.0, 104.0]).view(1, 3, 1, 1)
    assert torch.allclose(told.normalize(image), grey_levels, atol=1e-4)
    again = load(weights=models.save(told, tmp_path / "told.safetensors"))
    assert again.fingerprint == told.fingerprint
    # What is given wins over what the file says; another network keeps its own normalisation.
    other = load(weights=tmp_path / "told.safetensors", mean=(0.5,) * 3, std=(0.25,) * 3)
    assert other.fingerprint != told.fingerprint
    # Known files are told by their content.
    digest = hashlib.sha256(silent[".pth"].read_bytes()).hexdigest()
    known = replace(models.REGISTRY["squeezenet1_0"], files={"none": ((0,), (1,)), digest[:16]: caffe})
    monkeypatch.setitem(models.REGISTRY, "squeezenet1_0", known)
    assert load(weights=silent[".pth"]).fingerprint == told.fingerprint
    with pytest.raises(UserError, match="do not say how"):
        load(weights=silent[".safetensors"])


@pytest.mark.parametrize("about", ["{", "[1]", '{"mean": "0.5", "std": 1}', '{"mean": [0.5], "std": ["a"]}'])
def test_damaged_metadata_is_one_line(tmp_path: Path, about: str) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(small().network.state_dict(), path, metadata={"xaicore": about})
    with pytest.raises(UserError, match=r"normalis|mean and std") as caught:
        small(weights=path)
    assert "\n" not in str(caught.value)


def test_weights_of_squeezenet_and_mobilefacenet_that_do_not_fit(tmp_path: Path) -> None:
    path = models.save(small(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"it has no features.0.bias|features.0.weight is 4x1x3x3"):
        models.load("squeezenet1_0", classes=3, weights=path)
    with pytest.raises(UserError, match=r"it has no conv1.conv.weight"):
        models.load("mobilefacenet", classes=3, weights=path)


def test_weights_of_mobilefacenet_need_no_head(tmp_path: Path) -> None:
    model = models.load("mobilefacenet", classes=4, seed=1)
    whole = models.save(model, tmp_path / "whole.safetensors")
    assert models.load("mobilefacenet", classes=4, weights=whole).fingerprint == model.fingerprint
    with pytest.raises(UserError, match=r"fc.weight is 4x128, expected 5x128"):
        models.load("mobilefacenet", classes=5, weights=whole)
    features = {name: tensor for name, tensor in model.network.state_dict().items() if "fc." not in name}
    safetensors.torch.save_file(features, tmp_path / "features.safetensors")
    backbone = models.load("mobilefacenet", classes=5, weights=tmp_path / "features.safetensors", seed=2)
    state = backbone.network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in features.items())
    assert torch.equal(state["fc.weight"], models.load("mobilefacenet", classes=5, seed=2).network.fc.weight)
    headless = {name: tensor for name, tensor in small().network.state_dict().items() if "class" not in name}
    safetensors.torch.save_file(headless, tmp_path / "features.safetensors")
    with pytest.raises(UserError, match=r"it has no classifier\.0\.weight"):
        small(weights=tmp_path / "features.safetensors")


def test_wrapped_and_prefixed_state_dicts(tmp_path: Path) -> None:
    model = small(seed=4)
    state = {f"module.{name}": tensor for name, tensor in model.network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    assert small(weights=tmp_path / "a.pth").fingerprint == model.fingerprint
    torch.save({"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {}}, tmp_path / "b.pth")
    assert small(weights=tmp_path / "b.pth").fingerprint == model.fingerprint


def test_a_whole_model_is_told_how_to_save_itself(tmp_path: Path) -> None:
    model = small()
    for saved in (model, model.network):
        torch.save(saved, tmp_path / "whole.pt")
        with pytest.raises(
            UserError, match=r"a whole model for instance.* save model\.state_dict\(\) instead"
        ):
            small(weights=tmp_path / "whole.pt")


def test_misfits_name_the_first_tensor(tmp_path: Path) -> None:
    path = models.save(small(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"features.0.weight is 4x1x3x3, expected 8x1x3x3"):
        small(weights=path, width=0.25)
    with pytest.raises(UserError, match=r"classifier.3.weight is 3x16, expected 2x16"):
        small(weights=path, classes=2)
    with pytest.raises(UserError, match=r"it has no features.2.weight \(expected 4x4x3x3\)"):
        small(weights=path, batch_norm=False)
    with pytest.raises(UserError, match=r"it has no conv1.weight \(expected 64x1x7x7\)"):
        models.load("resnet18", classes=3, channels=1, weights=path)
    state = small().network.state_dict()
    state["extra"] = torch.zeros(2)
    safetensors.torch.save_file(state, path)
    with pytest.raises(UserError, match="it has extra"):
        small(weights=path)
    del state["extra"]
    state["features.0.weight"][0] = torch.nan
    safetensors.torch.save_file(state, path)
    with pytest.raises(UserError, match=r"features.0.weight holds values that are not finite"):
        small(weights=path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_truncated_files(tmp_path: Path, suffix: str, share: float) -> None:
    path = models.save(small(), tmp_path / f"w{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"truncated|damaged") as caught:
        small(weights=path)
    assert "\n" not in str(caught.value)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("form", ["torch", "pickle", "state"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_hostile_pickles_execute_nothing(tmp_path: Path, form: str, suffix: str) -> None:
    mark, path = tmp_path / "executed", tmp_path / f"w{suffix}"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Hostile(mark)))
    else:
        torch.save({"a": Hostile(mark)} if form == "state" else Hostile(mark), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the line is all that a user sees
        with pytest.raises(UserError) as caught:
            small(weights=path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no weights file nowhere.pt"):
        small(weights="nowhere.pt")
    (tmp_path / "w.h5").touch()
    with pytest.raises(UserError, match=r"must be a \.safetensors"):
        small(weights=tmp_path / "w.h5")
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        small(weights=tmp_path / "w.pt")
    with pytest.raises(UserError, match="saved as"):
        models.save(small(), tmp_path / "w.bin")
    with pytest.raises(UserError, match="no folder"):
        models.save(small(), tmp_path / "none" / "w.pt")


def test_imagenet_weights_of_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        published = torchvision.models.resnet18().state_dict()
    asked = []

    def download(url: str, **options):
        asked.append((url, options["check_hash"]))
        return published

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    model = models.load("resnet18", weights="imagenet")
    assert "resnet18-f37072fd.pth" in asked[0][0]
    assert asked[0][1]
    assert len(model.classes) == 1000
    assert torch.equal(model.network.fc.weight, published["fc.weight"])
    torch.save(published, tmp_path / "resnet18.pth")
    for weights in ("imagenet", tmp_path / "resnet18.pth"):
        model = models.load("resnet18", classes=("cat", "dog"), weights=weights)
        assert torch.equal(model.network.layer4[1].conv2.weight, published["layer4.1.conv2.weight"])
        assert model.network.fc.weight.shape == (2, 512)


def test_imagenet_features_of_vgg_at_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    features = models.load("vgg16", classes=2, input_size=32, batch_norm=False, seed=9).network.features
    published = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    published |= {"classifier.0.weight": torch.zeros(2, 2), "classifier.6.bias": torch.zeros(1000)}
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *args, **options: published
    )
    model = models.load("vgg16", classes=5, weights="imagenet", input_size=64)
    assert torch.equal(model.network.features[28].weight, published["features.28.weight"])
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 5)
    with pytest.raises(UserError, match="for images of 224 pixels"):
        models.load("vgg16", weights="imagenet", input_size=64)


def test_offline_downloads_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args, **options):
        raise URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr(timm, "create_model", offline)
    for name in ("resnet18", "xception"):
        with pytest.raises(
            UserError, match=f"weights of {name} cannot be downloaded.*path of a weights file"
        ) as caught:
            models.load(name, classes=2, weights="imagenet")
        assert "\n" not in str(caught.value)
