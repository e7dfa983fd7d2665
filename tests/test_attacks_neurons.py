"""Neuron activations and coverage: worked by hand, independent of the batch, and no hook left behind."""

import pytest
import torch
from torch import Tensor, nn

from xaicore import models
from xaicore.attacks.neurons import PREDICTIONS, Coverage, activations, covered, watching


def toy() -> nn.Sequential:
    """Give one grey value per pixel to channels (v, 1 - 2v), ReLU, 2x2 max-pool, and two logits."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
        model[0].bias.copy_(torch.tensor([0.0, 1.0]))
        model[4].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        model[4].bias.zero_()
    return model


def draw(count: int, channels: int = 1, side: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_activations_by_hand() -> None:
    image = torch.tensor([[0.0, 0.25], [0.5, 1.0]]).view(1, 1, 2, 2)
    # ReLU: v = (0, 1/4, 1/2, 1), mean 7/16; 1 - 2v = (1, 1/2, 0, 0), mean 3/8; over both 0 … 1.
    # Max-pool: (1, 1), constant. Logits (1, 1): softmax (1/2, 1/2), constant.
    result = activations(toy(), image)
    assert list(result) == ["1", "2", PREDICTIONS]
    torch.testing.assert_close(result["1"], torch.tensor([[7 / 16, 3 / 8]]))
    assert torch.equal(result["2"], torch.zeros(1, 2))
    assert torch.equal(result[PREDICTIONS], torch.zeros(1, 2))


def test_scale_is_of_the_whole_layer_and_of_each_image() -> None:
    images = torch.stack(
        [torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([[0.0, 0.0], [0.0, 0.25]])]
    ).view(2, 1, 2, 2)
    # Image 0: channels (1/2, 0), so 1 and 0. Image 1: v = (0, 0, 0, 1/4), 1 - 2v = (1, 1, 1, 1/2), 0 … 1:
    # 1/16 and 7/8. Its max-pool (1/4, 1): 0 and 1; its logits the same, p = 1 / (1 + e^(±3/4)): 0 and 1.
    result = activations(toy(), images)
    torch.testing.assert_close(result["1"], torch.tensor([[1.0, 0.0], [1 / 16, 7 / 8]]))
    torch.testing.assert_close(result["2"], torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(result[PREDICTIONS], torch.tensor([[1.0, 0.0], [0.0, 1.0]]))

    seen = covered(result, threshold=0.25)
    assert seen.int().tolist() == [[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1]]
    coverage = Coverage({name: values.shape[1] for name, values in result.items()}, seen[0].long())
    assert coverage.share() == 0.5
    assert coverage.share_by_layer() == {"1": 0.5, "2": 0.5, PREDICTIONS: 0.5}
    coverage.update(seen[1:])
    assert coverage.share() == 1.0
    assert not covered(result, threshold=1.0).any()


def test_the_threshold_must_be_exceeded() -> None:
    image = torch.tensor([[0.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    result = activations(toy(), image, layers=["1"])
    assert result["1"][0].tolist() == [0.25, 0.75]
    assert covered(result, 0.25).tolist() == [[False, True]]
    assert covered(result, 0.2499).tolist() == [[True, True]]


def test_against_a_plain_loop_on_a_deeper_net() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.load("small_cnn", classes=4, channels=1, input_size=16).eval()
    images = draw(7, side=16)
    result = activations(model, images, batch_size=3)
    kinds = {name: module for name, module in model.named_modules()}
    assert [type(kinds[name]).__name__ for name in result if name != PREDICTIONS] == (
        ["ReLU", "ReLU", "MaxPool2d"] * 2 + ["ReLU"]
    )
    network = model.network
    for number, image in enumerate(images):
        x = model.normalize(image[None]).double()
        expected = []
        chain = [*network.features, network.flatten, *network.classifier]
        for layer in [part.double() for part in chain]:
            x = layer(x)
            if isinstance(layer, (nn.ReLU, nn.MaxPool2d)):
                expected.append(x[0])
        expected.append(x[0].softmax(0))
        for part in chain:
            part.float()
        for (name, values), output in zip(result.items(), expected, strict=True):
            scaled = (output - output.min()) / (output.max() - output.min())
            by_channel = scaled.mean(dim=(1, 2)) if scaled.ndim == 3 else scaled
            torch.testing.assert_close(values[number].double(), by_channel, atol=2e-6, rtol=0, msg=name)


def test_neurons_of_vgg16_are_those_of_the_published_code() -> None:
    """Keras' VGG16 has 4,224 convolution, 1,472 pooling, 8,192 hidden and 1,000 output neurons."""
    model = models.load("vgg16", classes=1000, width=1 / 16, input_size=224)
    sizes = {name: values.shape[1] for name, values in activations(model, draw(1, 3, 224)).items()}
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    by_kind: dict[str, int] = {}
    for name, size in sizes.items():
        kind = "predictions" if name == PREDICTIONS else name.split(".")[1] + " " + kinds[name]
        by_kind[kind] = by_kind.get(kind, 0) + size
    assert {kind: size * (1 if kind == "predictions" else 16) for kind, size in by_kind.items()} == {
        "features ReLU": 4224,
        "features MaxPool2d": 1472,
        "classifier ReLU": 8192,
        "predictions": 1000,
    }
    assert len(sizes) == 13 + 5 + 2 + 1


def test_images_do_not_depend_on_their_batch_mates() -> None:
    model = nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 3, 6), nn.Flatten()).eval()
    images = draw(11, 3)
    whole = activations(model, images, batch_size=4)
    for part in torch.split(torch.arange(11), [1, 5, 5]):
        for name, values in activations(model, images[part], batch_size=4).items():
            assert torch.equal(values, whole[name][part])


def test_layers_can_be_named() -> None:
    image = torch.tensor([[0.0, 0.25], [0.5, 1.0]]).view(1, 1, 2, 2)
    result = activations(toy(), image, layers=["4", "0"])
    assert list(result) == ["4", "0"]
    # Convolution: v mean 7/16; 1 - 2v = (1, 1/2, 0, -1), mean 1/8; range -1 … 1.
    torch.testing.assert_close(result["0"], torch.tensor([[23 / 32, 9 / 16]]))
    assert list(activations(toy(), image, layers=[PREDICTIONS])) == [PREDICTIONS]


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["1", "nine"], ValueError, "there is no 'nine'"),
        ([""], ValueError, "there is no ''"),
        ([], ValueError, "at least one"),
        (["1", "1"], ValueError, "none twice"),
        ("1", TypeError, "layers must be a sequence"),
        ([1], TypeError, "layers must be a sequence"),
        (3, TypeError, "layers must be a sequence"),
    ],
)
def test_bad_layers_are_one_clear_error(layers: object, error: type[Exception], message: str) -> None:
    model = toy()
    with pytest.raises(error, match=message):
        activations(model, draw(1, side=2), layers=layers)  # type: ignore[arg-type]
    assert not hooks(model)


class Functional(nn.Module):
    """Activations as functions; a max-pool and a branch that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.pool, self.head = nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.Linear(2, 2)
        self.unused = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.convolution(x).relu()).flatten(1))


def test_functional_activations_are_one_clear_error() -> None:
    model = Functional()
    with pytest.raises(ValueError, match="activations as modules"):
        activations(model, draw(1, side=2))
    with pytest.raises(ValueError, match="'unused' does not"):
        activations(model, draw(1, side=2), layers=["unused"])
    assert list(activations(model, draw(1, side=2), layers=["pool", "head"])) == ["pool", "head"]
    assert not hooks(model)


def test_outputs_that_are_no_tensor_are_one_clear_error() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.inner = Pair(), toy()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.pair(x)[0])

    model = Net()
    with pytest.raises(ValueError, match="'pair' does not"):
        activations(model, draw(1, side=2), layers=["pair"])
    assert not hooks(model)


def test_of_several_calls_the_last_counts_and_tokens_have_their_features_last() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.gelu = nn.ReLU(inplace=True), nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.gelu(x.flatten(2))
            return self.act(1 - self.act(x)).mean(dim=(2, 3)) + 0 * tokens.sum(dim=(1, 2))[:, None]

    image = draw(1, 3, 2)
    result = activations(Shared(), image)
    flipped = 1 - image[0]
    scaled = (flipped - flipped.min()) / (flipped.max() - flipped.min())
    torch.testing.assert_close(result["act"][0], scaled.mean(dim=(1, 2)))
    tokens = nn.functional.gelu(image[0].flatten(1))
    torch.testing.assert_close(
        result["gelu"][0], ((tokens - tokens.min()) / (tokens.max() - tokens.min())).mean(dim=0)
    )


def test_activations_that_are_not_finite_are_not_covered() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.log()

    model = nn.Sequential(Odd(), nn.ReLU(), Odd(), nn.Hardtanh(-torch.inf), nn.Flatten(), nn.Linear(4, 2))
    images = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2), draw(1, 1, 2)[0]])
    for values in activations(model, images).values():
        assert values.isfinite().all()
        assert (values >= 0).all()
        assert (values <= 1).all()


def test_hooks_are_gone_whatever_happens() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = toy(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("boom")
            return self.inner(x)

    model = Broken()
    own = model.inner[1].register_forward_hook(lambda module, arguments, output: None)
    model.train()
    with pytest.raises(RuntimeError, match="boom"):
        activations(model, draw(3, side=2), batch_size=2)
    assert hooks(model) == 1
    assert model.inner[1].training
    own.remove()
    with watching(model):
        assert hooks(model) == 4
    assert hooks(model) == 0


def test_what_a_watch_sees_carries_the_graph() -> None:
    model = toy()
    image = draw(2, side=2).requires_grad_()
    with watching(model) as watch:
        model(image)
        raw = watch.means(2)[:, 0].sum()
        assert not watch.scaled(2).requires_grad
    gradient = torch.autograd.grad(raw, image)[0]
    torch.testing.assert_close(gradient, torch.full((2, 1, 2, 2), 0.25))


def test_coverage_counts_in_any_order() -> None:
    seen = torch.rand(9, 5, generator=torch.Generator().manual_seed(0)) > 0.6
    whole = Coverage({"a": 2, "b": 3})
    whole.update(seen)
    assert whole.counts.tolist() == seen.sum(0).tolist()
    parts = Coverage({"a": 2, "b": 3})
    for row in reversed(range(9)):
        parts.update(seen[row : row + 1])
    assert torch.equal(parts.counts, whole.counts)

    given = torch.tensor([1, 0, 0, 2, 0])
    made = Coverage({"a": 2, "b": 3}, given)
    made.update(torch.tensor([[0, 3, 0, 0, 0], [-1, -1, -1, -1, -1]]))
    assert made.counts.tolist() == [1, 3, 0, 2, 0]
    assert given.tolist() == [1, 0, 0, 2, 0]
    assert made.share() == pytest.approx(3 / 5)
    assert made.share_by_layer() == {"a": 1.0, "b": pytest.approx(1 / 3)}


def test_coverage_refuses_what_does_not_fit() -> None:
    coverage = Coverage({"a": 2, "b": 3})
    with pytest.raises(ValueError, match="covered must have shape"):
        coverage.update(torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="covered must be bool or int64"):
        coverage.update(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="counts must have the shape"):
        Coverage({"a": 2}, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="threshold must be"):
        covered({"a": torch.zeros(1, 2)}, threshold=1.5)
    assert coverage.share() == 0.0


@pytest.mark.parametrize(
    "name", ["resnet18", "inception_v3", "xception", "efficientnet_lite0", "squeezenet1_0", "mobilefacenet"]
)
def test_our_models_have_their_activations_as_modules(name: str) -> None:
    model = models.load(name, classes=3)
    result = activations(model, draw(1, 3, 96))
    kinds = (nn.ReLU, nn.ReLU6, nn.PReLU)
    assert sum(isinstance(module, kinds) for module in model.modules()) == sum(
        isinstance(model.get_submodule(layer), kinds) for layer in result if layer != PREDICTIONS
    )
