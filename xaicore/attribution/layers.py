"""The layers that relevance can be handed through, whether modules, functions or methods.

To know another one is one entry here and, for a new kind, one branch in :mod:`xaicore.attribution.propagation`.
"""

import copy
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import transforms
from torchvision.ops import StochasticDepth, stochastic_depth
from torchvision.transforms import v2
from torchvision.transforms.functional import normalize

from xaicore.attribution.attention import group_norm, layer_norm, scores
from xaicore.core.errors import UserError

Layer = TypeVar("Layer", bound=nn.Module)


class Function(nn.Module):
    """A function of tensors as a layer.

    Attributes:
        kind: what propagation tells apart.
        dim: along which tensors are joined, of a concatenation.
    """

    def __init__(self, kind: str, function: Callable[..., Tensor], dim: int = 0) -> None:
        super().__init__()
        self.kind, self.function, self.dim = kind, function, dim

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the function of the tensors."""
        return self.function(*tensors)


def add(first: Tensor, second: Tensor) -> Tensor:
    """Return the sum of two tensors of equal shape."""
    if first.shape != second.shape:
        raise UserError(
            f"lrp can only add tensors of equal shape, not {tuple(first.shape)} and {tuple(second.shape)}"
        )
    return first + second


KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.Linear: "dense",
    nn.ReLU: "activation",
    nn.ReLU6: "activation",
    **dict.fromkeys(
        (nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.Tanh),
        "signed activation",
    ),
    nn.Sigmoid: "signed activation",
    nn.Hardsigmoid: "signed activation",
    nn.LayerNorm: "normalisation",
    nn.GroupNorm: "normalisation",
    nn.Softmax: "softmax",
    nn.MaxPool2d: "max-pool",
    nn.AdaptiveMaxPool2d: "max-pool",
    nn.AvgPool2d: "average-pool",
    nn.AdaptiveAvgPool2d: "average-pool",
    nn.ZeroPad2d: "pad",
    nn.Upsample: "resize",
    nn.Flatten: "reshape",
    nn.Unflatten: "reshape",
    nn.Dropout: "identity",
    nn.Dropout2d: "identity",
    StochasticDepth: "identity",
    nn.Identity: "identity",
    transforms.Normalize: "affine",
    v2.Normalize: "affine",
}
WITH_WEIGHTS = ("conv", "dense")
"""Kinds of layers with weights."""
WITH_SHARES = ("nearest", "nearest-exact", "bilinear")
"""Ways of resizing whose weights are shares: none is negative, and those of a value sum to 1."""
BEYOND_RELU = {
    "signed activation": "an activation that can be negative or a sigmoid",
    "gate": "a product with a gate",
    "normalisation": "a normalisation over several values",
    "softmax": "a softmax",
    "product": "a product of two branches",
}
"""Kinds that networks of convolutions, linear layers, ReLU and pools do not have, in words: not for every preset."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    if training:
        raise UserError(
            "lrp has no rule for a dropout that is active in eval mode: pass training=self.training"
        )
    return nn.Identity()


def _max_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    if return_indices:
        raise UserError("lrp has no rule for 'max_pool2d': return_indices must be False")
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)


def _stochastic_depth(p: float, mode: str, training: bool = True) -> nn.Module:
    return _dropout(p, training)


def _mean(dim: Any = None, keepdim: bool = False) -> nn.Module:
    dims = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)

    def mean(values: Tensor) -> Tensor:
        if None in dims or any(each % values.ndim == 0 for each in dims):
            raise UserError("lrp has no rule for a mean over images")
        return values.mean(dims, keepdim)

    return Function("average-pool", mean)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    outputs, inputs = weight.shape
    return reweighted(nn.Linear(inputs, outputs, device="meta"), weight, bias)


def softmax(dim: int | None, *others: Any, **options: Any) -> nn.Module:
    """Return a softmax over ``dim``; in what type it is computed does not matter."""
    return Function("softmax", lambda values: functional.softmax(values, dim))


def normalisation(function: Callable[..., Tensor]) -> Callable[..., nn.Module]:
    """Return what makes the layer of ``function`` from its arguments after the values."""
    return lambda *args, **kwargs: Function("normalisation", lambda x: function(x, *args, **kwargs))


OPERATIONS: dict[Any, Callable[..., nn.Module]] = {
    functional.relu: lambda inplace=False: nn.ReLU(),
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    functional.relu6: lambda inplace=False: nn.ReLU6(),
    functional.leaky_relu: lambda negative_slope=0.01, inplace=False: nn.LeakyReLU(negative_slope),
    functional.max_pool2d: _max_pool,
    functional.avg_pool2d: nn.AvgPool2d,
    functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    functional.dropout: _dropout,
    stochastic_depth: _stochastic_depth,
    functional.linear: _linear,
    functional.gelu: nn.GELU,
    functional.silu: lambda inplace=False: nn.SiLU(),
    functional.hardswish: lambda inplace=False: nn.Hardswish(),
    **dict.fromkeys((torch.tanh, functional.tanh, "tanh"), nn.Tanh),
    **dict.fromkeys((torch.sigmoid, functional.sigmoid, "sigmoid"), nn.Sigmoid),
    functional.hardsigmoid: lambda inplace=False: nn.Hardsigmoid(),
    **dict.fromkeys((torch.softmax, functional.softmax, "softmax"), softmax),
    functional.layer_norm: normalisation(layer_norm),
    functional.group_norm: normalisation(group_norm),
    normalize: transforms.Normalize,
    torch.mean: _mean,
    "mean": _mean,
}
"""What makes the layer of a function or, by name, of a method of a tensor, from its further arguments."""
AFFINE: dict[Any, Callable[..., Tensor]] = {
    name: function
    for function, names in (
        (operator.add, (operator.add, operator.iadd, torch.add, "add", "add_")),
        (operator.sub, (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_", "subtract")),
        (operator.mul, (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply")),
        (
            operator.truediv,
            (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_", "divide"),
        ),
        (operator.neg, (operator.neg, torch.neg, "neg", "neg_")),
    )
    for name in names
}
"""What computes a function or, by name, a method of a tensor, out of place: affine in one tensor, the others constant."""
CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
RESHAPES = (torch.flatten, torch.reshape, "flatten", "unflatten", "view", "reshape", "contiguous")
EXPANSIONS = ("expand", "expand_as")
SPLITS = (torch.chunk, torch.split, torch.unbind, "chunk", "split", "unbind")
"""What gives several tensors, each of which ``operator.getitem`` takes."""
REARRANGEMENTS = (
    *(torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze, torch.roll, torch.flip),
    *("permute", "transpose", "swapaxes", "movedim", "squeeze", "unsqueeze", "roll", "flip"),
    operator.getitem,
)
"""Functions whose every value is one of those that they are given."""
PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    scores: scores,
    **dict.fromkeys((operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"), torch.matmul),
}
"""Products of matrices."""
GATES = (nn.Sigmoid, nn.Hardsigmoid)


def batchnorm(norm: nn.modules.batchnorm._BatchNorm) -> Function:
    """Return what ``norm`` computes in eval mode."""
    mean, variance = norm.running_mean, norm.running_var
    return Function(
        "affine",
        lambda values: functional.batch_norm(values, mean, variance, norm.weight, norm.bias, eps=norm.eps),
    )


def reweighted(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    """Return a copy of a convolution or linear layer with these weights, which need no gradient.

    It shares everything else with its layer, which is never touched.
    """
    twin = copy.copy(layer)
    twin._parameters = {
        "weight": nn.Parameter(weight.detach(), requires_grad=False),
        "bias": None if bias is None else nn.Parameter(bias.detach(), requires_grad=False),
    }
    return twin


def laid_out(values: Tensor) -> Tensor:
    """Return ``values`` in the memory layout that convolutions are fastest with: on a CPU channels last."""
    if values.ndim == 4 and values.device.type == "cpu":
        return values.contiguous(memory_format=torch.channels_last)
    return values
