"""AttnLRP another way: the network as it is, its functions changed while it runs, and gradient times input at the end.

Where a rule holds a factor fixed, its gradient is cut (Achtibat et al., ICML 2024; Ali et al., ICML 2022); with an
epsilon of 0 the input times the gradient is then what propagation layer by layer gives. Nothing is traced, and nothing is
divided by what a layer gives.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ACTIVATIONS = {"relu", "relu6", "hardtanh", "gelu", "silu", "hardswish", "tanh", "leaky_relu"}
GATES = {"sigmoid", "hardsigmoid"}


def half(x: Tensor) -> Tensor:
    """Return ``x`` with half its gradient."""
    return x / 2 + (x / 2).detach()


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot product attention (..., T, E) with halves at both products."""
    scores = torch.einsum("...te,...se->...ts", half(query), half(key)) / query.shape[-1] ** 0.5
    return torch.einsum("...ts,...se->...te", half(scores.softmax(-1)), half(value))


def standardised(x: Tensor, dims: Any, eps: float) -> Tensor:
    """Subtract the mean, divide by the deviation, which gets no gradient."""
    centred = x - x.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt().detach()


class Twin(TorchFunctionMode):
    """Changes the gradients of the functions that a network calls."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "").strip("_")
        if name in ACTIVATIONS:
            x = args[0].clone()
            values = func(x.clone(), *args[1:], **kwargs).detach()
            return x * torch.where(x == 0, 0, values / x).detach()
        if name in GATES:
            self.gates.append(func(*args, **kwargs).detach())
            return self.gates[-1]
        if name == "layer_norm":
            x, shape, weight, bias, eps = (*args, *kwargs.values())
            return standardised(x, tuple(range(-len(shape), 0)), eps) * weight + bias
        if name == "group_norm":
            x, groups, weight, bias, eps = (*args, *kwargs.values())
            normed = standardised(x.unflatten(1, (groups, -1)), (2, 3, 4), eps).flatten(1, 2)
            return normed * weight[:, None, None] + bias[:, None, None]
        if name == "scaled_dot_product_attention":
            return attend(*args)
        if name == "multi_head_attention_forward":
            return self._heads(*args, **kwargs), None
        if name in ("mul", "matmul") and all(isinstance(x, Tensor) and x.requires_grad for x in args):
            return func(half(args[0]), half(args[1]))
        return func(*args, **kwargs)

    @staticmethod
    def _heads(q: Tensor, k: Tensor, v: Tensor, size: int, heads: int, *args: Any, **kwargs: Any) -> Tensor:
        weight, bias, out_weight, out_bias = args[0], args[1], args[6], args[7]
        parts = [x @ w.T + b for x, w, b in zip((q, k, v), weight.chunk(3), bias.chunk(3), strict=True)]
        # (T, N, E), as torch's own function has them
        parts = [x.view(*x.shape[:2], heads, -1).permute(1, 2, 0, 3) for x in parts]
        return attend(*parts).permute(2, 0, 1, 3).flatten(2) @ out_weight.T + out_bias


def relevance(network: nn.Module, images: Tensor, target: int) -> Tensor:
    """Return the relevance (N, C, H, W) of the logit of one class."""
    inputs = images.clone().requires_grad_()
    with Twin():
        logits = network(inputs)
    torch.testing.assert_close(logits, network(images))
    (slope,) = torch.autograd.grad(logits[:, target].sum(), inputs)
    return inputs.detach() * slope
