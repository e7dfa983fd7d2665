"""Image sets: contents, splits, subsets, sizes, fingerprints."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xaicore import data
from xaicore.core.errors import UserError
from xaicore.data.sampling import balanced_order, stratified


def test_mnist_has_the_stated_split_sizes_and_pixels() -> None:
    for split, each in (
        ("train", 360),
        ("validation", 40),
        ("train+validation", 400),
        ("test", 100),
        ("all", 500),
    ):
        images = data.load("mnist-5k", split=split)
        assert torch.bincount(images.labels).tolist() == [each] * 10
        assert images.split == split
        assert images.name == "mnist-5k"
    image, label = data.load("mnist-5k", split="all")[0]
    assert image.shape == (1, 28, 28)
    assert image.dtype == torch.float32
    assert label == 0
    assert 0 <= float(image.min()) < float(image.max()) <= 1


def test_splits_are_disjoint_and_do_not_depend_on_the_seed() -> None:
    parts = [set(map(int, data.load("mnist-5k", split=s)._indices)) for s in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 5000
    both = set(map(int, data.load("mnist-5k", split="train+validation")._indices))
    assert both == parts[0] | parts[1]
    assert set(map(int, data.load("mnist-5k", n=600, seed=3)._indices)) <= parts[2]


def test_mnist_at_32_is_padded_without_loss() -> None:
    small, _ = data.load("mnist-5k", n=20).stack()
    padded, _ = data.load("mnist-5k", n=20, size=32).stack()
    assert padded.shape == (20, 1, 32, 32)
    assert torch.equal(padded[..., 2:-2, 2:-2], small)
    assert float(padded.sum()) == pytest.approx(float(small.sum()))
    scaled, _ = data.load("mnist-5k", n=20, size=14).stack()
    assert torch.allclose(scaled.mean((1, 2, 3)), small.mean((1, 2, 3)), atol=5e-3)


def test_orl_faces_and_sizes() -> None:
    images = data.load("orl-faces")
    assert len(images.classes) == len(images) == 40
    assert images.classes[:2] == ("s1", "s2")
    assert images.stack([0])[0].shape == (1, 1, 112, 92)
    assert data.load("orl-faces", split="train").labels.bincount().tolist() == [8] * 40
    covered, _ = data.load("orl-faces", size=64, channels=3, n=4).stack()
    assert covered.shape == (4, 3, 64, 64)
    assert torch.equal(covered[:, 0], covered[:, 2])
    assert data.load("orl-faces", size=(56, 46), n=2).stack()[0].shape == (2, 1, 56, 46)


def test_imagenet_20_has_true_labels_and_only_test_images() -> None:
    images = data.load("imagenet-20", size=64, n=20)
    assert len(images.classes) == 1000
    assert {243, 609, 99} <= set(images.labels.tolist())
    assert images.classes[99] == "goose"
    assert images.stack([0, 1])[0].shape == (2, 3, 64, 64)
    with pytest.raises(UserError, match="test images only"):
        data.load("imagenet-20", split="train")
    with pytest.raises(UserError, match=r"differ in shape.*give a size"):
        data.load("imagenet-20").stack([0, 10])


def test_choosing_classes_relabels_in_order() -> None:
    images = data.load("mnist-5k", classes=("9", "4"), n=10)
    assert images.classes == ("9", "4")
    assert images.labels.bincount().tolist() == [5, 5]
    by_number = data.load("mnist-5k", classes=(9, 4), n=10)
    assert torch.equal(images.stack()[0], by_number.stack()[0])
    for classes in (("ten",), (4, 4), (10,), ()):
        with pytest.raises(UserError):
            data.load("mnist-5k", classes=classes)


def test_items_and_stack_agree() -> None:
    images = data.load("mnist-5k", n=7, seed=2)
    pixels, labels = images.stack()
    picked, picked_labels = images.stack([5, 1])
    assert torch.equal(picked, pixels[[5, 1]])
    assert torch.equal(picked_labels, labels[[5, 1]])
    assert torch.equal(images[3][0], pixels[3])
    assert len(list(torch.utils.data.DataLoader(images, batch_size=4))) == 2
    with torch.inference_mode():
        assert torch.equal(images.stack()[0], pixels)


def test_stack_takes_flags_for_each_image_and_refuses_fractions() -> None:
    held = data.from_tensors(torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 1]), "abc", "four")
    flags = held.labels == 1
    for indices in (flags, flags.tolist()):
        pixels, labels = held.stack(indices)
        assert torch.equal(pixels, held.stack([1, 3])[0])
        assert labels.tolist() == [1, 1]
    with pytest.raises(UserError, match="one boolean for each of 4 images"):
        held.stack([True, False])
    with pytest.raises(TypeError, match="indices must be integers or booleans"):
        held.stack([1.9])
    with pytest.raises(ValueError, match="at least one image"):
        held.stack([])


def test_an_image_that_is_written_on_leaves_the_set_alone() -> None:
    held = data.from_tensors(torch.ones(1, 1, 2, 2), torch.tensor([0]), "a", "one")
    held[0][0].zero_()
    assert held[0][0].all()


def test_fingerprint_follows_content_and_selection(tmp_path: Path) -> None:
    first = data.load("mnist-5k", n=8, seed=1)
    assert first.fingerprint == data.load("mnist-5k", n=8, seed=1).fingerprint
    others = [
        data.load("mnist-5k", n=8, seed=2),
        data.load("mnist-5k", n=9, seed=1),
        data.load("mnist-5k", n=8, seed=1, size=32),
        data.load("mnist-5k", n=8, seed=1, channels=3),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 5), st.data())
def test_subsets_are_balanced_and_nested(labels: list[int], seed: int, draw: st.DataObject) -> None:
    truth = torch.tensor(labels)
    order = balanced_order(truth, seed)
    assert sorted(order) == list(range(len(labels)))
    n = draw.draw(st.integers(1, len(labels)))
    counts, available = truth[order[:n]].bincount(minlength=5), truth.bincount(minlength=5)
    level = int(counts.max())
    assert all(counts[k] in (level, level - 1) or counts[k] == available[k] for k in range(5))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(3, 30), min_size=1, max_size=5), st.integers(0, 5))
def test_stratified_parts_are_disjoint_and_complete(sizes: list[int], seed: int) -> None:
    labels = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
    parts = stratified(labels, (0.8, 0.1, 0.1), seed)
    assert sorted(position for part in parts for position in part) == list(range(len(labels)))
    for part in parts:
        assert bool((labels[part].bincount(minlength=len(sizes)) >= 1).all())


def test_partition_and_its_errors() -> None:
    images = data.load("mnist-5k", n=100)
    first, second = images.partition((0.7, 0.2), seed=1)
    assert first.labels.bincount().tolist() == [7] * 10
    assert second.labels.bincount().tolist() == [2] * 10
    assert not set(map(int, first._indices)) & set(map(int, second._indices))
    for fractions in ((), (0.9, 0.2), (-0.1, 0.5)):
        with pytest.raises(ValueError, match="fractions"):
            images.partition(fractions)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "mnist-6k"}, "there are mnist-5k, orl-faces"),
        ({"split": "val"}, "split must be one of"),
        ({"channels": 2}, "channels must be 1 or 3"),
        ({"size": 0}, "size must be"),
        ({"size": (3, 4, 5)}, "size must be"),
        ({"n": 0}, "n must lie between 1 and 1000"),
        ({"n": 1001}, "n must lie between 1 and 1000"),
    ],
)
def test_bad_parameters_are_named(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        data.load(**{"name": "mnist-5k", **options})


def test_from_tensors_keeps_values_and_checks_them() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).random((4, 3, 5, 6), dtype=np.float32))
    images = data.from_tensors(pixels, torch.tensor([0, 1, 1, 0]), ("a", "b"), "mine")
    held = pixels.clone()
    pixels.zero_()
    assert torch.equal(images.stack()[0], held)
    assert images.select(["b"]).labels.tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        data.from_tensors(held * 2, images.labels, ("a", "b"), "mine")
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        data.from_tensors(held * torch.nan, images.labels, ("a", "b"), "mine")
    with pytest.raises(ValueError, match="labels"):
        data.from_tensors(held, torch.tensor([0, 1, 2, 0]), ("a", "b"), "mine")
    with pytest.raises(ValueError, match="shape"):
        data.from_tensors(held[0], images.labels, ("a", "b"), "mine")
    with pytest.raises(TypeError, match="float"):
        data.from_tensors((held * 255).byte(), images.labels, ("a", "b"), "mine")
