"""Training: reproducible, traceless, best epoch kept, recipes checked."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional

from xaicore import data, models
from xaicore.core.errors import UserError
from xaicore.models import checkpoint
from xaicore.models.augmentation import AUGMENTATIONS, augment
from xaicore.models.training import TrainingResult
from xaicore.run.store import Store
from xaicore.studies import steps


def digits(split: str, n: int) -> data.ImageSet:
    return data.load("mnist-5k", split=split, classes=("0", "1"), n=n)


def small(**options) -> models.Classifier:
    return models.load(
        "small_cnn", **{"classes": ("0", "1"), "width": 0.25, "channels": 1, "dropout": 0.2, **options}
    )


RECIPE = models.Recipe(epochs=3, batch_size=16, learning_rate=5e-3, augment="flip-shift", seed=3)


def test_training_learns_is_reproducible_and_leaves_no_trace() -> None:
    model, train, validation = small(), digits("train", 64), digits("validation", 20)
    before = model.fingerprint
    torch.manual_seed(11)
    wanted = torch.rand(2)
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    seen: list[dict[str, float]] = []
    first = models.train(model, train, None, validation, RECIPE, progress=seen.append)
    second = models.train(model, *train.stack(), validation.stack(), RECIPE)
    assert torch.equal(torch.rand(2), wanted)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert model.fingerprint == before
    assert first.model.fingerprint == second.model.fingerprint != before
    assert first.history == second.history == seen
    assert first.seconds > 0
    assert not first.model.training
    other = models.train(model, train, recipe=models.Recipe(epochs=1, seed=4))
    assert other.model.fingerprint != first.model.fingerprint


class Killed(BaseException):
    """What ends a training here in the middle."""


def killed_after(epoch: int):
    def progress(entry: dict[str, float]) -> None:
        if entry["epoch"] == epoch:
            raise Killed

    return progress


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("small_cnn", {}),
        ("small_cnn", {"optimizer": "sgd", "momentum": 0.9, "schedule": "inverse-time", "decay": 1e-3}),
        ("resnet18", {"fused": True, "unbiased_statistics": True, "small_maps": True, "augment": "noise"}),
    ],
)
def test_a_killed_training_continues_and_ends_like_an_undisturbed_one(
    name: str, changes: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    options = {"width": 0.25, "dropout": 0.2} if name == "small_cnn" else {}
    model = models.load(name, classes=("0", "1"), channels=1, input_size=32, **options)
    train, validation = (
        data.load("mnist-5k", split=part, classes=("0", "1"), n=n, size=32)
        for part, n in (("train", 40), ("validation", 20))
    )
    recipe, file = dataclasses.replace(RECIPE, **changes), tmp_path / "state"
    undisturbed = models.train(model, train, None, validation, recipe)
    for epoch in (1, 2):
        with pytest.raises(Killed):
            models.train(model, train, None, validation, recipe, progress=killed_after(epoch), state=file)
    seen: list[dict[str, float]] = []
    result = models.train(model, train, None, validation, recipe, progress=seen.append, state=file)
    assert [entry["epoch"] for entry in seen] == [3]
    assert result.history == undisturbed.history
    assert result.best_epoch == undisturbed.best_epoch
    assert result.model.fingerprint == undisturbed.model.fingerprint
    file.write_bytes(file.read_bytes()[:200])
    again = models.train(model, train, None, validation, recipe, progress=seen.append, state=file)
    assert [entry["epoch"] for entry in seen] == [3, 1, 2, 3]
    assert again.model.fingerprint == undisturbed.model.fingerprint


def test_a_stored_training_continues_where_it_was_killed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    images, labels = digits("train", 40).stack()
    given = {"validation": digits("validation", 20).stack(), "recipe": RECIPE}
    arguments = ("digit", small(), images, labels)
    told: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(steps.progress, "report", lambda name, done, of: killed_after(2)({"epoch": done}))
        with pytest.raises(Killed):
            steps.trained(Store(tmp_path), *arguments, **given)
    assert len(list(tmp_path.glob("train/*.unfinished"))) == 1
    monkeypatch.setattr(steps.progress, "report", lambda name, done, of: told.append(done))
    result = steps.trained(Store(tmp_path), *arguments, **given)
    assert told == [3]
    assert result.model.fingerprint == models.train(small(), images, labels, **given).model.fingerprint
    assert [file.suffix for file in tmp_path.glob("train/*")] == [".safetensors"]


def test_training_learns() -> None:
    result = models.train(
        small(), digits("train", 128), recipe=models.Recipe(epochs=4, batch_size=16, learning_rate=5e-3)
    )
    assert models.accuracy(result.model, digits("test", 60)) > 0.9  # networks of four seeds gave 0.967


def test_history_and_best_epoch() -> None:
    validation = digits("validation", 20)
    result = models.train(small(), digits("train", 48), validation=validation, recipe=RECIPE)
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
    scores = [(entry["validation_accuracy"], -entry["validation_loss"]) for entry in result.history]
    assert result.best_epoch == 1 + scores.index(max(scores))
    images, labels = validation.stack()
    logits = models.predict(result.model, images)
    best = result.history[result.best_epoch - 1]
    assert float(functional.cross_entropy(logits, labels)) == pytest.approx(best["validation_loss"], abs=1e-5)
    assert models.accuracy(result.model, validation) == best["validation_accuracy"]


def test_without_validation_the_last_epoch_is_kept() -> None:
    result = models.train(small(), digits("train", 20), recipe=models.Recipe(epochs=2))
    assert result.best_epoch == 2
    assert "validation_loss" not in result.history[0]


def test_results_go_through_arrays() -> None:
    result = models.train(small(), digits("train", 20), validation=digits("validation", 10), recipe=RECIPE)
    back = TrainingResult.from_arrays(small(seed=9), result.arrays(), result.seconds)
    assert back.model.fingerprint == result.model.fingerprint
    assert back.history == result.history
    assert back.best_epoch == result.best_epoch


def test_paper_recipe_follows_keras_decay() -> None:
    recipe = models.Recipe(
        epochs=2,
        batch_size=8,
        learning_rate=1e-3,
        weight_decay=0,
        optimizer="sgd",
        schedule="inverse-time",
        decay=0.5,
    )
    result = models.train(small(), digits("train", 24), recipe=recipe)
    assert [entry["learning_rate"] for entry in result.history] == pytest.approx([1e-3 / 2.5, 1e-3 / 4])


def test_one_sgd_step_is_the_textbook_one() -> None:
    model = small(dropout=0.0)
    images, labels = digits("train", 6).stack()
    recipe = models.Recipe(
        epochs=1, batch_size=6, learning_rate=0.1, weight_decay=0, optimizer="sgd", schedule="constant"
    )
    trained = models.train(model, images, labels, recipe=recipe).model
    model.train()
    loss = functional.cross_entropy(model(images), labels)
    (gradient,) = torch.autograd.grad(loss, [model.network.classifier[3].weight])
    wanted = model.network.classifier[3].weight - 0.1 * gradient
    assert torch.allclose(trained.network.classifier[3].weight, wanted, atol=1e-6)


def test_bfloat16_trains() -> None:
    recipe = models.Recipe(epochs=1, precision="bfloat16")
    result = models.train(small(), digits("train", 16), recipe=recipe)
    assert all(parameter.dtype == torch.float32 for parameter in result.model.parameters())
    assert models.predict(result.model, digits("test", 4)).dtype == torch.float32


def test_divergence_is_one_clear_line_and_leaves_no_trace() -> None:
    recipe = models.Recipe(epochs=3, learning_rate=1e30, optimizer="sgd", schedule="constant", weight_decay=0)
    model = small(batch_norm=False)
    before = model.fingerprint
    state = torch.random.get_rng_state()
    with pytest.raises(UserError, match=r"training diverged: the loss is .* lower learning_rate \(1e\+30\)"):
        models.train(model, digits("train", 64), recipe=recipe)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    assert model.fingerprint == before


def test_labels_are_checked() -> None:
    images, labels = digits("train", 8).stack()
    with pytest.raises(ValueError, match=r"train_labels must lie in 0\.\.1"):
        models.train(small(), images, labels + 1)
    with pytest.raises(ValueError, match="labels must be 8 integers"):
        models.train(small(), images, labels[:4])
    with pytest.raises(ValueError, match="labels must be given"):
        models.train(small(), images)
    with pytest.raises(ValueError, match="validation labels"):
        models.train(small(), images, labels, (images, labels - 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": 2.5}, "batch_size must be"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"optimizer": "adam"}, "optimizer must be one of"),
        ({"schedule": "cosine"}, "schedule must be one of"),
        ({"augment": "mixup"}, "augment must be one of"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"momentum": 0.9}, "momentum belongs to"),
        (
            {"optimizer": "sgd", "momentum": 1.0},
            "momentum must be a finite number, at least 0 and less than 1",
        ),
        ({"decay": 1e-6}, "decay belongs to"),
    ],
)
def test_recipes_are_checked(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        models.Recipe(**options)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if "noise" not in name])
def test_augmentation_moves_pixels_and_nothing_else(name: str) -> None:
    images = torch.zeros(30, 2, 16, 16)
    images[:, 0, 6, 5] = 1.0
    before = images.clone()
    changed = augment(images, name, torch.Generator().manual_seed(0))
    assert torch.equal(images, before)
    assert changed.shape == images.shape
    assert bool((changed.sum((1, 2, 3)) == 1).all())
    rows, columns = torch.nonzero(changed[:, 0])[:, 1], torch.nonzero(changed[:, 0])[:, 2]
    assert bool(((rows - 6).abs() <= (2 if "shift" in name else 0)).all())
    allowed = {5} | ({10} if "flip" in name else set())
    reach = 2 if "shift" in name else 0
    assert {int(c) for c in columns} <= {a + d for a in allowed for d in range(-reach, reach + 1)}
    assert (len(torch.unique(changed, dim=0)) > 1) == (name != "none")


def test_noise_is_normal_of_a_strength_drawn_for_each_image() -> None:
    images = torch.full((400, 1, 32, 32), 0.5)
    added = augment(images, "noise", torch.Generator().manual_seed(0)) - images
    strengths = added.std((1, 2, 3))
    assert float(strengths.min()) >= 0
    assert float(strengths.max()) == pytest.approx(0.1, abs=0.005)
    assert float(strengths.mean()) == pytest.approx(0.05, abs=0.005)
    standard = (added / strengths.view(-1, 1, 1, 1)).flatten()
    # Normal: 95.45 % within two standard deviations; kurtosis 3.
    assert float((standard.abs() < 2).float().mean()) == pytest.approx(0.9545, abs=0.003)
    assert float((standard**4).mean()) == pytest.approx(3, abs=0.1)
    bright = augment(torch.ones(20, 1, 8, 8), "noise", torch.Generator().manual_seed(1))
    assert float(bright.max()) == 1
    assert float(bright.min()) >= 0
    assert bool((bright < 1).any())
    mirrored = augment(images, "flip-noise", torch.Generator().manual_seed(0))
    assert float((mirrored - images).std()) == pytest.approx(float(added.std()), rel=0.1)


def test_recipe_for_faces_is_the_networks_own_where_nothing_is_given() -> None:
    own = models.face_recipe("vgg16", seed=4)
    assert own.seed == 4
    assert own != models.face_recipe("xception", seed=4)
    assert models.face_recipe("vgg16", epochs=9, augment="none", seed=4) == dataclasses.replace(
        own, epochs=9, augment="none"
    )
    assert models.face_recipe("a network of one's own") == models.face_recipe("resnet18")


def test_a_stored_head_is_only_the_head_and_fits_its_backbone_again(tmp_path: Path) -> None:
    model = models.load("resnet18", classes=("a", "b", "c"), channels=1, input_size=32)
    images, labels = torch.rand(12, 1, 32, 32), torch.arange(12) % 3
    recipe = models.Recipe(epochs=2, batch_size=6, precision="float32")

    def fitted() -> TrainingResult:
        return steps.trained(
            Store(tmp_path),
            "toy",
            model,
            images,
            labels,
            validation=(images, labels),
            recipe=recipe,
            head=True,
        )

    first, again = fitted(), fitted()
    alone = models.train_head(model, images, labels, validation=(images, labels), recipe=recipe)
    assert first.model.fingerprint == again.model.fingerprint == alone.model.fingerprint != model.fingerprint
    (entry,) = tmp_path.rglob("*.safetensors")
    with safe_open(entry, framework="pt") as file:
        weights = {name for name in file.keys() if name.startswith("network.")}  # noqa: SIM118
    assert weights == {"network.fc.weight", "network.fc.bias"}


def test_statistics_of_batch_normalisation_forget_where_they_start():
    """After as many steps as a momentum of 0.1 needs, they are the plain mean over the steps' batches."""
    images = torch.rand(24, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 1e-3
    labels = torch.arange(24) % 2
    network = models.load("vgg16", classes=2, channels=1, input_size=32, width=0.125)
    common = {
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-12,
        "weight_decay": 0.0,
        "precision": "float32",
    }
    plain, unbiased = (
        models.train(network, images, labels, recipe=models.Recipe(**common, unbiased_statistics=each)).model
        for each in (False, True)
    )
    first = next(
        name for name, module in network.network.named_modules() if isinstance(module, torch.nn.BatchNorm2d)
    )
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    convolution = next(module for module in network.network.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        each = [convolution(network.normalize(images[part])) for part in order.tensor_split(3)]
    variances = torch.stack([batch.var((0, 2, 3)) for batch in each]).mean(0)
    found = unbiased.network.get_submodule(first)
    torch.testing.assert_close(found.running_var, variances, rtol=1e-4, atol=0)
    assert (plain.network.get_submodule(first).running_var > 5 * variances).all()
    assert found.momentum == network.network.get_submodule(first).momentum
