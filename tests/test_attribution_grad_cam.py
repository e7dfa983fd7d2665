"""Grad-CAM of all layers at once: by hand, against Captum layer by layer, on every network, passes counted."""

from typing import Any

import pytest
import subjects
import today
import torch
import zoo
from attribution_networks import (
    PACKAGE_NETWORKS,
    error,
    images,
    normalised_net,
    package_network,
    plain_net,
    seeded,
)
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, ResNet

from xaicore.attribution import METHODS, GradCams, grad_cam
from xaicore.attribution.grad_cam import as_maps
from xaicore.core.errors import UserError


def test_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1, bias=False)
    )
    network[0].weight.data = torch.tensor([1.0, -2.0]).view(2, 1, 1, 1)
    network[3].weight.data = torch.tensor([[3.0, 1.0, 5.0, 7.0]])
    image = torch.tensor([[[[1.0, -1.0]]]])
    # Channels (1, -1) and (-2, 2); after the ReLU (1, 0) and (0, 2), with mean gradients 2 and 6.
    assert torch.equal(grad_cam(network, image)["0"], torch.tensor([[[2.0, 12.0]]]))
    # Before it the gradients are (3, 0) and (0, 7), their means 1.5 and 3.5.
    before = grad_cam(network, image, activations="pre-relu")["0"]
    assert torch.equal(before, torch.tensor([[[0.0, 5.5]]]))  # 1.5 - 7 and -1.5 + 7
    network[3].weight.data *= -1
    cams = grad_cam(network, image)
    assert torch.equal(cams["0"], torch.zeros(1, 1, 2))
    assert cams.valid["0"].tolist() == [False]


def graph_neighbours(network: nn.Module) -> dict[str, dict[str, str]]:
    """Return for each convolution the layer whose output enters its activation, and the activation, by torch.fx."""
    traced = torch.fx.symbolic_trace(network)
    modules = dict(traced.named_modules())
    found = {}
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.Conv2d):
            continue
        last = node
        for kind in (nn.BatchNorm2d, (nn.ReLU, nn.ReLU6, nn.PReLU)):
            for user in last.users:
                if user.op == "call_module" and isinstance(modules[user.target], kind):
                    if kind is nn.BatchNorm2d:
                        last = user
                    else:
                        found[node.target] = {"pre-relu": last.target, "post-relu": user.target}
        found.setdefault(node.target, {"pre-relu": last.target, "post-relu": last.target})
    return found


@pytest.mark.parametrize("activations", ["post-relu", "pre-relu"])
@pytest.mark.parametrize("name", PACKAGE_NETWORKS)
def test_every_layer_is_captums(name: str, activations: str) -> None:
    model, batch = package_network(name)
    network, inputs = model.network, model.normalize(batch)
    targets = torch.tensor([2, 0])
    ours = grad_cam(model, batch, targets, activations=activations)
    expected = graph_neighbours(network)
    assert list(ours) == list(expected)
    modules = dict(network.named_modules())
    for layer in list(expected)[:: max(1, len(expected) // 4)]:
        assert_captums(ours[layer], network, modules[expected[layer][activations]], inputs, targets)


def assert_captums(ours: Tensor, network: nn.Module, layer: nn.Module, inputs: Tensor, targets: Any) -> None:
    signed = LayerGradCam(network, layer).attribute(inputs, targets, relu_attributions=False)[:, 0].detach()
    assert ours.shape == signed.shape
    # Rounding is relative to the sum before the ReLU.
    assert (ours - signed.relu()).abs().max() <= 1e-5 * signed.abs().max()
    assert signed.any()


def test_in_place_activations_and_batch_norm() -> None:
    network, batch = seeded(normalised_net), images()
    apart = seeded(normalised_net)
    for module in apart.modules():
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            module.inplace = False
    for activations, layers in (("post-relu", (2, 6, 7)), ("pre-relu", (1, 5, 7))):
        ours = grad_cam(network, batch, 1, activations=activations)
        assert list(ours) == ["0", "4", "7"]
        for name, layer in zip(ours, layers, strict=True):
            assert_captums(ours[name], apart, apart[layer], batch, 1)
    assert network[2].inplace
    named = grad_cam(network, batch, 1, ["1", "3"])
    for layer in (1, 3):
        assert_captums(named[str(layer)], apart, apart[layer], batch, 1)


class Overwriting(nn.Module):
    """Adds in place to what a convolution gave, and lets a ReLU overwrite what a shortcut holds."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.first, self.second, self.third = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.last = nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.in_place:
            shortcut = x
            y = self.second(functional.relu(x, inplace=True))
            y += shortcut
            z = self.third(y)
            z[:, 0] = 0
            return self.last(z.flatten(1))
        x = functional.relu(x)
        z = self.third(self.second(x) + x)
        return self.last(torch.cat([torch.zeros_like(z[:, :1]), z[:, 1:]], 1).flatten(1))


@pytest.mark.parametrize("activations", ["post-relu", "pre-relu"])
def test_overwritten_values_are_kept(activations: str) -> None:
    overwriting, apart = seeded(lambda: Overwriting(True)), seeded(lambda: Overwriting(False))
    torch.testing.assert_close(overwriting(images()), apart(images()))
    ours = grad_cam(overwriting, images(), 0, activations=activations)
    theirs = grad_cam(apart, images(), 0, activations=activations)
    assert list(ours) == ["first", "second", "third"]
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])
        assert theirs.valid[name].any()


class Added(BasicBlock):
    """A block of a residual network that adds its shortcut out of place."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


@pytest.mark.parametrize("activations", ["post-relu", "pre-relu"])
def test_a_shortcut_added_in_place_is_no_activation(activations: str) -> None:
    in_place, apart = (
        seeded(lambda kind=kind: ResNet(kind, [1, 1, 1, 1], num_classes=3)).eval()
        for kind in (BasicBlock, Added)
    )
    batch = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours = grad_cam(in_place, batch, 0, activations=activations)
    theirs = grad_cam(apart, batch, 0, activations=activations)
    assert list(ours) == list(theirs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])
    assert any(valid.any() for name, valid in theirs.valid.items() if name.endswith("conv2"))


class Swish(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.head, self.how = nn.Conv2d(2, 4, 3), nn.Linear(4, 3), how

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.how == "module":
            y = functional.silu(y)
        elif self.how == "value first":
            y = y * torch.sigmoid(y)
        elif self.how == "gate first":
            y = torch.mul(y.sigmoid(), y)
        else:
            y *= y.sigmoid()
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("how", ["value first", "gate first", "in place"])
def test_a_value_times_its_own_sigmoid_is_the_activation(how: str) -> None:
    expected = grad_cam(seeded(lambda: Swish("module")), images(), 1)["conv"]
    torch.testing.assert_close(grad_cam(seeded(lambda: Swish(how)), images(), 1)["conv"], expected)
    assert expected.any()


def test_a_view_that_overwrites_is_noticed() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            x.view(-1).mul_(2)
            return x.mean((2, 3))

    with pytest.raises(UserError, match="'conv' gives is overwritten"):
        grad_cam(Hidden(), images())


def test_one_forward_and_one_backward_pass_a_batch() -> None:
    network = seeded(plain_net)
    passes: dict[str, int] = {"forward": 0, "backward": 0}

    def count(direction: str) -> None:
        passes[direction] += 1

    network[4].register_forward_hook(lambda *given: count("forward"))
    network[4].register_full_backward_hook(lambda *given: count("backward"))
    cams = grad_cam(network, images(7), batch_size=3)
    assert len(cams) == 3
    assert passes == {"forward": 3, "backward": 3}


def test_layers_by_name_and_the_last() -> None:
    network, batch = seeded(plain_net), images()
    everything = grad_cam(network, batch, 1)
    assert isinstance(everything, GradCams)
    assert list(grad_cam(network, batch, 1, "last")) == ["4"]
    chosen = grad_cam(network, batch, 1, ["4", "3", "0"])
    assert list(chosen) == ["0", "3", "4"]
    for name in ("0", "4"):
        torch.testing.assert_close(chosen[name], everything[name])
    assert_captums(chosen["3"], network, network[3], batch, 1)


class Squeezed(nn.Module):
    """Squeeze-and-excitation after the last convolution that says where, and a convolution after all places are one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.after = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv(x))
        x = x * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(x, 1)))
        return self.after(functional.adaptive_avg_pool2d(x, 1)).flatten(1)


def test_the_last_layer_is_the_last_that_says_where() -> None:
    network = seeded(Squeezed)
    (last,) = grad_cam(network, images(), 1, "last").items()
    assert last[0] == "conv"
    torch.testing.assert_close(last[1], grad_cam(network, images(), 1, ["conv"])["conv"])
    assert list(grad_cam(network, images(), 1)) == ["conv", "gate", "after"]
    with pytest.raises(UserError, match="no convolution or attention gives a map of more than one cell"):
        grad_cam(network, images()[:, :, :3, :3], 1, "last")


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_weights_batches_and_no_images(frozen: bool) -> None:
    network, batch = seeded(plain_net).double(), images(5).double()
    expected = grad_cam(network, batch)
    network.requires_grad_(not frozen)
    for cams in (grad_cam(network, batch, batch_size=2), grad_cam(network, batch, network(batch).argmax(1))):
        for name, maps in cams.items():
            torch.testing.assert_close(maps, expected[name], rtol=1e-10, atol=1e-14)
    with torch.inference_mode():
        assert error(grad_cam(network, batch.clone())["0"], expected["0"]) < 1e-10
    none = grad_cam(network, batch[:0])
    assert {name: maps.shape for name, maps in none.items()} == {
        "0": (0, 8, 8),
        "2": (0, 8, 8),
        "4": (0, 4, 4),
    }
    assert none.valid["0"].shape == (0,)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other, self.unused = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            side = self.other(x)
        return self.conv(self.conv(x)).mean((2, 3)) + 0 * side.mean()


def test_a_layer_without_influence_is_invalid() -> None:
    cams = grad_cam(Twice(), images(), 0, ["other"])
    assert not cams.valid["other"].any()
    assert cams["other"].shape == (3, 8, 8)


def by_hand(tokens: Tensor, slope: Tensor) -> Tensor:
    """Grad-CAM of tokens (N, 1 + 7 * 7, C), the class token first."""
    maps = torch.zeros(len(tokens), 7, 7)
    for row in range(7):
        for column in range(7):
            patch = tokens[:, 1 + 7 * row + column]
            maps[:, row, column] = (patch * slope[:, 1:].mean(1)).sum(1)
    return maps.relu()


def test_tokens_of_a_transformer_lie_where_their_patches_are() -> None:
    network, digits, labels = subjects.trained("transformer")
    batch, kept = digits[:3], {}
    layer = network.encoder.layers[1].ln_1
    handle = layer.register_forward_hook(lambda module, given, output: kept.update(tokens=output))
    logits = network(batch)
    handle.remove()
    (slope,) = torch.autograd.grad(logits.gather(1, labels[:3, None]).sum(), kept["tokens"])
    expected = by_hand(kept["tokens"].detach(), slope)
    names = [f"encoder.layers.encoder_layer_{k}" for k in (0, 1)]
    everything = grad_cam(network, batch, labels[:3])
    assert list(everything) == ["conv_proj", *(f"{name}.self_attention" for name in names)]
    (last,) = grad_cam(network, batch, labels[:3], "last").items()
    assert last[0] == f"{names[1]}.self_attention"
    for maps in (
        last[1],
        everything[last[0]],
        *grad_cam(network, batch, labels[:3], [f"{names[1]}.ln_1"]).values(),
    ):
        torch.testing.assert_close(maps, expected)
    assert expected.flatten(1).any(1).all()
    # After the last attention only the class token is read.
    assert not grad_cam(network, batch, labels[:3], [names[1]]).valid[names[1]].any()
    enlarged = METHODS["grad_cam"](network, batch, labels[:3])
    assert enlarged.shape == batch.shape


def test_tokens_first_or_last_and_no_batch_first() -> None:
    network, batch = zoo.NETWORKS["attention"](), zoo.images()
    expected = grad_cam(network, batch, 0, ["norm1"])["norm1"]
    assert expected.shape == (4, 4, 4)
    torch.testing.assert_close(grad_cam(network, batch, 0, "last")["attention"], expected)

    class TokensFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.attention = nn.Conv2d(1, 8, 2, stride=2), nn.MultiheadAttention(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).permute(2, 0, 1)
            return self.attention(x, x, value=x)[0].mean(0)

    first = seeded(TokensFirst)
    maps = grad_cam(first, batch, 0)
    # What it is given is what the convolution gives, and nothing else sees that.
    torch.testing.assert_close(maps["attention"], maps["patches"])
    assert maps.valid["attention"].any()


@pytest.mark.parametrize(
    ("shape", "size", "grid"),
    [
        ((2, 5, 4, 6), (8, 12), (5, 4, 6)),
        ((2, 4, 6, 5), (8, 12), (5, 4, 6)),
        ((2, 4, 4, 4), (8, 8), (4, 4, 4)),
        ((2, 24, 5), (8, 12), (5, 4, 6)),
        ((2, 25, 5), (8, 12), (5, 4, 6)),
        ((2, 16, 5), (8, 8), (5, 4, 4)),
        ((2, 17, 5), (8, 8), (5, 4, 4)),
        ((2, 18, 5), (8, 8), None),
        ((2, 24, 5), (8, 8), None),
        ((2, 1, 5), (8, 12), None),
        ((2, 5), (8, 8), None),
    ],
)
def test_what_is_a_grid(shape: tuple[int, ...], size: tuple[int, int], grid: tuple[int, ...] | None) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    maps = as_maps(values, size)
    assert (None if maps is None else tuple(maps.shape[1:])) == grid


def test_channels_last_maps_of_a_swin_transformer() -> None:
    network, batch = today.network("Swin").float(), today.images().float()
    (maps,) = grad_cam(network, batch, 0, ["norm"]).values()
    kept = {}
    handle = network.norm.register_forward_hook(lambda module, given, output: kept.update(maps=output))
    logits = network(batch.requires_grad_())
    handle.remove()
    (slope,) = torch.autograd.grad(logits[:, 0].sum(), kept["maps"])
    expected = (kept["maps"] * slope.mean((1, 2), keepdim=True)).sum(3).relu().detach()
    torch.testing.assert_close(maps, expected)
    with pytest.raises(UserError, match=r"'softmax'\) runs after the last convolution 'features.0.0'"):
        grad_cam(network, today.images().float(), 0, "last")


def compiled() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 2, 1), torch.compile(nn.Sequential(nn.ReLU(), nn.Flatten())))


@pytest.mark.parametrize(
    ("network", "arguments", "match"),
    [
        (Twice(), {}, "'conv' is called more than once"),
        (Twice(), {"layers": ["unused"]}, "'unused' does not"),
        (plain_net(), {"layers": ["9"]}, r"'9' does not give one tensor \(N, C, h, w\)"),
        (plain_net(), {"layers": ["conv1"]}, "has no module 'conv1'"),
        (plain_net(), {"layers": "0"}, "layers must be 'all', 'last' or a sequence"),
        (plain_net(), {"layers": []}, "at least one module"),
        (plain_net(), {"layers": ["0", "0"]}, "none twice"),
        (plain_net(), {"activations": "relu"}, "activations must be one of"),
        (plain_net(), {"batch_size": 0}, "batch_size"),
        (plain_net(), {"targets": 4}, r"targets must lie in 0\.\.3"),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 2)), {}, "has no Conv2d"),
        (compiled(), {"layers": ["0"]}, "'1' *, which is scripted or compiled"),
    ],
)
def test_wrong_arguments_name_themselves(network: nn.Module, arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        grad_cam(network, images(), **arguments)
    assert "\n" not in str(caught.value)
