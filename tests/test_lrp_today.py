"""Relevance through activations, gates, normalisations and attention: against lxt, against a twin, and its sum."""

from collections.abc import Callable
from typing import Any

import attnlrp_twin
import pytest
import subjects
import today
import torch
import zoo
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from xaicore.attribution import PRESETS, clrp, lrp, sglrp
from xaicore.attribution.attention import group_norm, layer_norm
from xaicore.attribution.propagation import Propagation
from xaicore.core.errors import UserError

EXPLAINED = [name for name in today.NETWORKS if name != "Swin"]
ABSORBING = ("ViT", "attention, written out")
"""Networks with a softmax, whose constant term keeps relevance."""


def error(ours: Tensor, theirs: Tensor) -> float:
    assert bool(theirs.any())
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", EXPLAINED)
def test_agrees_with_gradients_of_the_running_network(name: str) -> None:
    network, batch = today.network(name), today.images()
    for target in (0, 2):
        theirs = attnlrp_twin.relevance(network, batch, target)
        assert error(lrp(network, batch, target, "z"), theirs) < 1e-9
        assert error(lrp(network, batch, target, "epsilon", epsilon=1e-12), theirs) < 1e-6


def test_so_does_a_transformer_that_averages_its_tokens() -> None:
    network, batch = zoo.NETWORKS["attention"]().double().requires_grad_(False), zoo.images().double()
    assert error(lrp(network, batch, 1, "z"), attnlrp_twin.relevance(network, batch, 1)) < 1e-9


def test_a_trained_transformer_agrees_with_the_package_of_attnlrps_authors() -> None:
    """tests/make_lxt.py wrote its relevance, of the network that is committed."""
    theirs = load_file(subjects.Path(__file__).parent / "networks" / "lxt-2.1.safetensors")
    network, images, _ = subjects.trained("transformer")
    images = images[: len(theirs["relevance"])]
    with torch.no_grad():
        if not torch.allclose(network.double()(images.double()), theirs["logits"]):
            pytest.skip("the networks are not the committed ones")
    assert error(lrp(network, images.double(), 3, "z"), theirs["relevance"].double()) < 1e-6
    assert error(lrp(network.float(), images, 3, "z"), theirs["relevance"]) < 1e-4


@pytest.mark.parametrize("name", EXPLAINED)
def test_single_precision_is_double_precision_rounded(name: str) -> None:
    network, batch = today.network(name), today.images()
    exact = lrp(network, batch, 1, "z")
    assert error(lrp(network.float(), batch.float(), 1, "z").double(), exact) < 1e-3


@pytest.mark.parametrize("name", EXPLAINED)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    network, batch = today.network(name), today.images(3)
    whole = lrp(network, batch, 1, "z")
    assert error(lrp(network, batch[1:2], 1, "z"), whole[1:2]) < 1e-9
    assert error(lrp(network, batch, 1, "z", batch_size=2), whole) < 1e-9


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_layer_but_a_softmax_hands_down_all_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without biases, layer by layer; where no softmax is, the pixels sum to the logit."""
    network, batch = today.network(name, biased=False), today.images(1)
    kinds, inner = set(), Propagation._hand_down

    def watched(self: Propagation, position: int, step: Any, given: Any, relevance: Tensor) -> Any:
        shares = inner(self, position, step, given, relevance)
        if step.kind not in ("softmax", "fixed"):
            total = sum(share.sum() for share in shares if share is not None)
            torch.testing.assert_close(total, relevance.sum(), rtol=1e-6, atol=1e-9)
        kinds.add(step.kind)
        return shares

    monkeypatch.setattr(Propagation, "_hand_down", watched)
    heatmap, logit = lrp(network, batch, 2, "z"), network(batch)[0, 2]
    assert ("softmax" in kinds) == (name in ABSORBING)
    missing = abs(1 - float(heatmap.sum() / logit))
    assert missing > 0.01 if name in ABSORBING else missing < 1e-9


class Net(nn.Module):
    """Two linear layers on pixels and what joins them."""

    def __init__(self, joined: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.head = (nn.Linear(2, 2, bias=False) for _ in range(3))
        self.joined = joined
        for layer, weight in (
            (self.one, torch.eye(2)),
            (self.two, 3 * torch.eye(2)),
            (self.head, torch.ones(2, 2)),
        ):
            layer.weight.data = weight

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.head(self.joined(self.one(x), self.two(x)))


SOFT = torch.tensor([1.0, 2.0]).softmax(0)
BY_HAND: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], list[float]]] = {
    # x * 3x: half to each branch, and both are of the same pixel.
    "product": (lambda a, b: a * b, [3.0, 12.0]),
    # What is gated gets all, here also of a gate that comes first.
    "gate": (lambda a, b: a.sigmoid() * b, [3 * float(torch.sigmoid(torch.tensor(v))) * v for v in (1.0, 2.0)]),
    "gate of the other": (lambda a, b: a * functional.hardsigmoid(b), [1.0, 2.0]),
    "SiLU": (lambda a, b: functional.silu(a), [float(functional.silu(torch.tensor(v))) for v in (1.0, 2.0)]),
    # x (R - s sum R) with R = s: nothing where all is one sum.
    "softmax": (lambda a, b: a.softmax(-1), [0.0, 0.0]),
    # R = (s_0, 2 s_1) of s_0 + 2 s_1.
    "weighted softmax": (
        lambda a, b: a.softmax(-1) * torch.tensor([1.0, 2.0]),
        [float(SOFT[0] * (1 - SOFT[0] - 2 * SOFT[1])), float(2 * SOFT[1] * (2 - SOFT[0] - 2 * SOFT[1]))],
    ),
    # (1, 2): mean 1.5, deviation 0.5, so y = 2 (x - mean) = (-1, 1); of R = (-1, 1) the pixels get 0: what the mean took.
    "layer norm": (lambda a, b: functional.layer_norm(a, (2,), eps=0.0), [0.0, 0.0]),
    # y = (-1, 1) and R = (-1, 3): R / y = (1, 3), which less its mean, over the deviation, is (-2, 2).
    "weighted layer norm": (
        lambda a, b: functional.layer_norm(a, (2,), eps=0.0) * torch.tensor([1.0, 3.0]),
        [-2.0, 4.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", BY_HAND)
def test_rules_by_hand(rule: str) -> None:
    joined, expected = BY_HAND[rule]
    heatmap = lrp(Net(joined), torch.tensor([[[[1.0, 2.0]]]]), 0, "z")
    torch.testing.assert_close(heatmap.flatten(), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_normalisations_are_those_of_torch() -> None:
    x, w, b = (
        torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        for shape in ((2, 6, 4, 4), (6,), (6,))
    )
    torch.testing.assert_close(group_norm(x, 3, w, b), functional.group_norm(x, 3, w, b))
    torch.testing.assert_close(group_norm(x, 2), functional.group_norm(x, 2))
    tokens = x.movedim(1, 3)
    torch.testing.assert_close(layer_norm(tokens, (6,), w, b), functional.layer_norm(tokens, (6,), w, b))
    torch.testing.assert_close(layer_norm(x, (6, 4, 4)), functional.layer_norm(x, (6, 4, 4)))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_without_a_meaning_are_refused_by_name(preset: str) -> None:
    signed = preset.startswith("deep-taylor")
    for name, match in (
        ("ViT", "'encoder.layers.encoder_layer_0.ln_1', a normalisation over several values"),
        ("ConvNeXt", "'layer_norm', a normalisation"),
        ("EfficientNet", "'features.0.2', an activation that can be negative" if signed else None),
    ):
        network, batch = today.network(name), today.images()
        if match is None or preset in ("z", "epsilon"):
            assert torch.isfinite(lrp(network, batch, 0, preset)).all()
            continue
        with pytest.raises(UserError, match=match) as caught:
            lrp(network, batch, 0, preset)
        assert "take attribution.lrp with preset 'epsilon'" in str(caught.value)
        assert repr(preset) in str(caught.value)


@pytest.mark.parametrize("method", [clrp, sglrp])
def test_contrastive_relevance_is_for_relus(method: Any) -> None:
    with pytest.raises(UserError, match=r"deep-taylor-bounded.*take attribution.lrp"):
        method(today.network("EfficientNet"), today.images(), 0)


def masked(layer: nn.MultiheadAttention) -> nn.Module:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = layer, nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2)
            hidden = torch.ones(4, 4).triu(1).bool()
            return self.head(self.layer(x, x, x, attn_mask=hidden, need_weights=False)[0].mean(1))

    return Masked()


@pytest.mark.parametrize(
    ("network", "match"),
    [
        (masked(nn.MultiheadAttention(8, 2, batch_first=True)), "attention with a mask"),
        (nn.Sequential(nn.Flatten(), nn.Linear(32, 2), nn.Softmax(1)), r"logits .* '2' \(Softmax\) at the end"),
        (nn.Sequential(nn.Flatten(), nn.Linear(32, 2), nn.Sigmoid()), r"logits .* '2' \(Sigmoid\) at the end"),
        (Net(lambda a, b: a / b), "no rule for the function 'truediv'"),
        (Net(lambda a, b: a @ torch.ones(2, 2)), "no rule for the function 'matmul'"),
        (Net(lambda a, b: a.mean(0, keepdim=True) + b), "a mean over images"),
        (Net(lambda a, b: a[:, : a.size(1)] + b), "'getitem' with options that depend on its input"),
    ],
)  # fmt: skip
def test_what_has_no_rule_is_refused(network: nn.Module, match: str) -> None:
    batch = torch.rand(3, 4, 2, 4) if not isinstance(network, Net) else torch.rand(3, 1, 1, 2)
    with pytest.raises(UserError, match=match) as caught:
        lrp(network.eval(), batch, 0, "z")
    assert "\n" not in str(caught.value)


def test_a_swin_transformer_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="shifted_window_attention"):
        lrp(today.network("Swin"), today.images(), 0, "z")


def test_arguments_that_have_a_default_are_as_by_default() -> None:
    class Options(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor, scale: float = 2.0, *, mask: Tensor | None = None) -> Tensor:
            logits = self.head(x.flatten(1))
            return logits * scale if mask is None else logits * mask

    network, batch = subjects.seeded(Options, 0), torch.rand(2, 1, 2, 2)
    doubled = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    doubled[1].load_state_dict({key: 2 * value for key, value in network.head.state_dict().items()})
    torch.testing.assert_close(lrp(network, batch, 0, "z"), lrp(doubled, batch, 0, "z"))
