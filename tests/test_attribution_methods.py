"""What every explanation promises: its neighbours in the batch do not matter, and it leaves nothing behind."""

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from attribution_networks import Wrapper, error, images, plain_net, seeded
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from xaicore.attribution import METHODS, grad_cam, gradient_shap, integrated_gradients, smooth_grad
from xaicore.core.errors import UserError


def every_layer(model: nn.Module, batch: Tensor, targets: Any = None, **options: Any) -> Tensor:
    maps = grad_cam(model, batch, targets, **options)
    return torch.cat([values.flatten(1) for values in maps.values()], 1)[:, :, None, None]


EVERY = {
    **METHODS,
    "integrated_gradients": partial(integrated_gradients, n_steps=5),
    "gradient_shap": partial(gradient_shap, n_samples=5, std=0.1),
    "smooth_grad": partial(smooth_grad, n_samples=5),
    "smooth_grad of gradient_shap": partial(
        smooth_grad, method=partial(gradient_shap, n_samples=3), n_samples=2
    ),
    "grad_cam of every layer": every_layer,
}
each_method = pytest.mark.parametrize("method", EVERY.values(), ids=EVERY.keys())


def model_of() -> Wrapper:
    return Wrapper(seeded(plain_net))


@each_method
def test_an_image_does_not_feel_its_neighbours(method: Any) -> None:
    model, batch = model_of().double(), images(5).double()
    targets = torch.tensor([0, 3, 1, 2, 2])
    whole = method(model, batch, targets)
    assert whole.shape[0] == 5
    assert whole.dtype == torch.float64
    assert not whole.requires_grad
    assert torch.isfinite(whole).all()
    assert whole.any()
    assert torch.equal(whole, method(model, batch, targets))
    for size in (1, 2):
        assert error(method(model, batch, targets, batch_size=size), whole) < 1e-10
    others = images(5, seed=9).double()
    others[2] = batch[2]
    assert error(method(model, others, targets, batch_size=2)[2], whole[2]) < 1e-10
    winners = method(model, batch, model(batch).argmax(1))
    assert error(method(model, batch, batch_size=3), winners) < 1e-10
    assert method(model, batch[:0]).shape == (0, *whole.shape[1:])


def trace(model: nn.Module) -> list[Any]:
    hooks = [
        len(value)
        for module in model.modules()
        for name, value in sorted(vars(module).items())
        if "hooks" in name and value is not None
    ]
    names = [sorted(vars(module)) for module in model.modules()]
    parameters = [(id(p), p.requires_grad, p.grad, p._version) for p in model.parameters()]
    state = np.random.get_state()  # noqa: NPY002
    streams = [torch.get_rng_state().tolist(), state[1].tolist(), state[2], random.getstate()]
    modes = [torch.is_grad_enabled(), len(_get_current_function_mode_stack())]
    return [hooks, names, parameters, streams, modes, [module.training for module in model.modules()]]


INTERRUPTIONS = [
    (torch.autograd, "grad", 1),
    (torch.nn.functional, "conv2d", 2),
    (torch.nn.functional, "conv2d", 5),
]


@each_method
@pytest.mark.parametrize("place", [None, *INTERRUPTIONS], ids=["none", "gradient", "layer 2", "later"])
def test_nothing_is_left_behind(method: Any, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of().train()
    model.network[4].eval()
    model.network[0].weight.requires_grad_(False)
    batch = images(2).requires_grad_()
    before, weights = trace(model), {name: w.clone() for name, w in model.state_dict().items()}
    if place is None:
        method(model, batch)
    else:
        where, name, limit = place
        function, calls = getattr(where, name), []

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            calls.append(None)
            if len(calls) >= limit:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        monkeypatch.setattr(where, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            method(model, batch, batch_size=1)
        monkeypatch.undo()
    assert trace(model) == before
    assert all(torch.equal(w, weights[name]) for name, w in model.state_dict().items())
    assert batch.requires_grad
    assert batch.grad is None
    assert torch.equal(batch.detach(), images(2))


@each_method
def test_other_modes_change_nothing(method: Any) -> None:
    model, batch = model_of(), images()
    expected = method(model, batch)
    with torch.no_grad():
        assert torch.equal(method(model, batch), expected)
    with torch.inference_mode():
        assert torch.equal(method(model, batch.clone()), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(method(model, batch), expected)


@each_method
def test_a_model_with_more_after_its_network_is_not_taken_for_a_classifier(method: Any) -> None:
    class Longer(Wrapper):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).flip(1)

    with pytest.raises(UserError, match="Longer has the attributes network and normalize") as caught:
        method(Longer(seeded(plain_net)), images())
    assert "\n" not in str(caught.value)


def test_products_of_matrices_are_exact() -> None:
    asked = []
    network = seeded(plain_net)
    network[4].register_forward_hook(lambda *given: asked.append(torch.get_float32_matmul_precision()))
    try:
        torch.set_float32_matmul_precision("medium")
        METHODS["gradient"](network, images())
        after = torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (asked, after) == (["highest"], "medium")


@each_method
def test_wrong_arguments_name_themselves(method: Any) -> None:
    model = model_of()
    for arguments, kind, match in (
        ({"images": images() * torch.nan}, ValueError, "images must be finite"),
        ({"images": images()[0]}, ValueError, "images must have the shape"),
        ({"images": images(1, 3)}, ValueError, "images"),
        ({"images": images(1, 2, 12)}, ValueError, "images of shape"),
        ({"images": images().long()}, TypeError, "images must be"),
        ({"targets": 4}, ValueError, r"targets must lie in 0\.\.3"),
        ({"targets": torch.tensor([0, 1])}, ValueError, r"targets must have the shape \(3,\)"),
        ({"targets": 0.5}, TypeError, "targets must be"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
    ):
        call = {"images": images(), "targets": None, **arguments}
        with pytest.raises(kind, match=match):
            method(model, call.pop("images"), call.pop("targets"), **call)
    nn.init.constant_(model.network[-1].bias, float("nan"))
    with pytest.raises(ValueError, match="logits that are NaN"):
        method(model, images())
