"""Explanations of models that return no logits or one logit; guided backpropagation without ReLUs."""

from typing import Any

import pytest
import torch
import zoo
from torch import nn

from xaicore.attribution import METHODS, guided_backprop, guided_grad_cam
from xaicore.core.errors import UserError

each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@each_method
@pytest.mark.parametrize(("name", "what"), [("tuple", "not a tuple"), ("dict", "not a dict")])
def test_a_model_that_returns_no_tensor_is_refused_in_one_line(method: Any, name: str, what: str) -> None:
    with pytest.raises(UserError, match=rf"model must return logits \(N, K\), {what}: wrap it") as caught:
        method(zoo.OUTPUTS[name](), zoo.images())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["one number", "class numbers"])
@pytest.mark.parametrize("method", METHODS)
def test_neither_is_one_that_returns_one_number(method: str, name: str) -> None:
    traced = (
        method in ("lrp", "clrp", "sglrp") and name == "class numbers"
    )  # LRP refuses the arg max before it runs
    match = "lrp has no rule" if traced else r"model must return logits \(N, K\)"
    with pytest.raises(UserError, match=match):
        METHODS[method](zoo.OUTPUTS[name](), zoo.images())


class FirstLogit(nn.Module):
    """A network's first logit alone, as logits (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        *body, head = zoo.activated(nn.ReLU)
        head.weight.data.abs_()  # so that Grad-CAM has something to say
        self.body, self.head, self.single = nn.Sequential(*body), head, nn.Linear(32, 1)
        self.single.weight.data, self.single.bias.data = head.weight.data[:1], head.bias.data[:1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.single(self.body(x))


@pytest.mark.parametrize("method", METHODS)
def test_one_logit_is_explained_as_it_is(method: str) -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        single = FirstLogit().eval()
    if method in ("clrp", "sglrp"):
        with pytest.raises(ValueError, match="at least two classes to contrast"):
            METHODS[method](single, zoo.images())
        return
    several = nn.Sequential(single.body, single.head)
    expected = METHODS[method](several, zoo.images(), 0)
    assert expected.any()
    for target in (0, None):
        torch.testing.assert_close(METHODS[method](single, zoo.images(), target), expected)
    with pytest.raises(UserError, match=r"targets must lie in 0\.\.0"):
        METHODS[method](single, zoo.images(), 1)


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.Identity])
@pytest.mark.parametrize("method", [guided_backprop, guided_grad_cam])
def test_guided_backpropagation_is_refused_without_relus(method: Any, activation: type[nn.Module]) -> None:
    with pytest.raises(
        UserError, match="guided backpropagation is a rule for ReLUs and Sequential calls none"
    ):
        method(zoo.activated(activation).eval(), zoo.images(), 0)


@pytest.mark.parametrize("beside_relus", [False, True])
@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.PReLU, nn.RReLU])
@pytest.mark.parametrize("method", [guided_backprop, guided_grad_cam])
def test_guided_backpropagation_refuses_other_rectifiers_by_name(
    method: Any, activation: type[nn.Module], beside_relus: bool
) -> None:
    network = zoo.activated(activation)
    if beside_relus:
        network.append(nn.ReLU())
    with pytest.raises(UserError, match=f"is a rule for ReLUs and this network calls {activation.__name__}"):
        method(network.eval(), zoo.images(), 0)
