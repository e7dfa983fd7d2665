"""Randomised networks, planted marks, and the explanations that find them."""

import math

import pytest
import torch
from attribution_networks import images, plain_net, seeded
from subjects import read
from torch import Tensor, nn

from xaicore import data, models
from xaicore.attribution import METHODS
from xaicore.attribution.sanity import planted_marks, randomised
from xaicore.metrics import relevance_share
from xaicore.metrics.randomisation import randomisation_curve


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("cascading", [True, False])
def test_layers_are_drawn_anew_from_the_logits_down(cascading: bool) -> None:
    model = models.load("small_cnn", classes=3, channels=1, input_size=16)
    before, random = weights(model.network), torch.get_rng_state()
    copies = list(randomised(model, cascading=cascading, seed=3))
    names = [name for name, _ in copies]
    expected = [name for name, module in model.network.named_modules() if hasattr(module, "weight")]
    assert names == expected[::-1]
    assert names[0] == "classifier.3"
    for number, (_, copy) in enumerate(copies):
        drawn = set(names[: number + 1] if cascading else names[number : number + 1])
        for key, tensor in weights(copy.network).items():
            layer, _, kind = key.rpartition(".")
            constant = before[key].std(correction=0) == 0 if before[key].is_floating_point() else True
            learned = kind in ("weight", "bias") and not constant
            assert torch.equal(tensor, before[key]) == (layer not in drawn or not learned)
    for key, tensor in weights(model.network).items():
        assert torch.equal(tensor, before[key])
    assert torch.equal(random, torch.get_rng_state())
    again = dict(randomised(model, cascading=cascading, seed=3))
    other = dict(randomised(model, cascading=cascading, seed=4))
    for name, copy in copies:
        weight = copy.network.get_submodule(name).weight
        assert torch.equal(weight, again[name].network.get_submodule(name).weight)
        constant = before[f"{name}.weight"].std() == 0
        assert torch.equal(weight, other[name].network.get_submodule(name).weight) == constant


def test_drawn_weights_keep_their_size() -> None:
    network = nn.Sequential(nn.Linear(200, 100))
    with torch.no_grad():
        network[0].weight.copy_(3 + 0.5 * torch.randn(100, 200, generator=torch.Generator().manual_seed(0)))
    ((name, copy),) = randomised(network)
    assert name == "0"
    drawn, count = copy[0].weight.detach(), 20000
    assert abs(float(drawn.mean()) - 3) < 4 * 0.5 * math.sqrt(2 / count)
    assert abs(float(drawn.std()) / 0.5 - 1) < 4 / math.sqrt(count)
    assert (
        abs(float(torch.corrcoef(torch.stack([drawn.flatten(), network[0].weight.detach().flatten()]))[0, 1]))
        < 4 / 140
    )


def test_curves_by_hand() -> None:
    network, batch = seeded(plain_net), images()

    def constant(model: nn.Module, batch: Tensor, targets: Tensor | int, *, batch_size: int) -> Tensor:
        return batch

    curve = randomisation_curve(constant, network, batch, 1)
    assert list(curve) == ["10", "8", "4", "2", "0"]
    for similarity in curve.values():
        torch.testing.assert_close(similarity, torch.ones(3, dtype=torch.float64))

    def first_weight(model: nn.Module, batch: Tensor, targets: Tensor | int, *, batch_size: int) -> Tensor:
        return model[0].weight.detach()[:3]

    alone = randomisation_curve(first_weight, network, batch, 1, cascading=False)
    assert [float(values.min()) > 1 - 1e-12 for values in alone.values()] == [True, True, True, True, False]


def test_marks_are_the_only_difference() -> None:
    clean = images(400, 3, 12)
    marked, labels, masks = planted_marks(clean, side=4, seed=2)
    assert torch.equal(clean, images(400, 3, 12))
    assert torch.equal(marked.movedim(1, 3)[~masks], clean.movedim(1, 3)[~masks])
    assert masks.sum((1, 2)).eq(16).all()
    for image, label, mask in zip(marked, labels, masks, strict=True):
        rows, columns = mask.any(1), mask.any(0)
        assert rows.sum() == columns.sum() == 4
        square = image[:, rows][:, :, columns]
        along, across = square.diff(dim=2), square.diff(dim=1)
        if label == 0:
            along, across = across, along
        assert along.abs().eq(1).all()
        assert across.eq(0).all()
        assert square.mean() == 0.5
    assert abs(int(labels.sum()) - 200) < 4 * 10  # four standard deviations of 400 coins
    # Each of the 9 x 9 places is as likely.
    tops = masks.any(2).int().argmax(1)
    assert set(tops.tolist()) == set(range(9))
    repeated = planted_marks(clean[:7], side=4, seed=2)
    assert torch.equal(repeated[0], marked[:7])
    assert not torch.equal(planted_marks(clean, side=4, seed=3)[1], labels)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"side": 3}, "side must be even and at most 8"),
        ({"side": 10}, "side must be even and at most 8"),
        ({"side": 0}, "side must be an integer of at least 2"),
        ({"seed": -1}, "seed must be"),
        ({"images": torch.zeros(8, 8)}, "images must have the shape"),
    ],
)
def test_wrong_arguments_name_themselves(arguments: dict[str, object], match: str) -> None:
    call = {"images": images(), **arguments}
    with pytest.raises(ValueError, match=match):
        planted_marks(**call)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def planted() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    model, _ = read("marks")
    test, _ = data.load("mnist-5k", split="test", n=32).stack()
    return model, *planted_marks(test, seed=2)


def test_the_mark_is_learned(planted: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    model, marked, labels, _ = planted
    assert models.accuracy(model, marked, labels) > 0.95


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_the_mark(planted: tuple[nn.Module, Tensor, Tensor, Tensor], name: str) -> None:
    model, marked, labels, masks = planted
    shares = relevance_share(METHODS[name](model, marked, labels), masks)
    area = masks.double().mean()
    # Relevance anywhere would have the share of the area, 36 of 784 pixels.
    assert shares.nanmean() > 3 * area
    assert shares.isnan().float().mean() < 0.1


@pytest.mark.parametrize("name", ["gradient", "lrp", "guided_backprop"])
def test_maps_change_with_the_weights(planted: tuple[nn.Module, Tensor, Tensor, Tensor], name: str) -> None:
    model, marked, labels, _ = planted
    curve = randomisation_curve(METHODS[name], model, marked[:8], labels[:8])
    assert next(iter(curve)) == "classifier.3"
    assert list(curve)[-1] == "features.0"
    assert float(list(curve.values())[-1].nanmean()) < 0.9
