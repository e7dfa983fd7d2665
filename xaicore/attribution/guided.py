r"""Guided backpropagation, and Guided Grad-CAM, its product with the Grad-CAM of a layer.

At every ReLU the gradient passes only where both the activation and the gradient itself are positive:

.. math:: R^l = 1[f^l > 0] \; 1[R^{l+1} > 0] \; R^{l+1}

Springenberg et al., ICLR workshop 2015, Fig. 1; Selvaraju et al., ICCV 2017, Sec. 3.2, for the product. ReLU6
counts as a ReLU; whether a ReLU is a module, a function, shared or in place makes no difference. The definition says
nothing of other activations. LeakyReLU, PReLU and RReLU, which stand where a ReLU could, are refused. Others (GELU, SiLU,
sigmoid) keep their gradient beside ReLUs, as custom autograd functions do, and a network that calls no ReLU at all, whose
map would be the plain gradient, is refused.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from xaicore.attribution.batches import Batch, explained
from xaicore.attribution.calls import argument, check_visible, name_of, names
from xaicore.attribution.grad_cam import grad_cam
from xaicore.attribution.gradients import slopes
from xaicore.attribution.inputs import network_of
from xaicore.core.errors import UserError

DISGUISES = names(
    "clamp clamp_min clamp_max clip maximum minimum fmax fmin threshold where heaviside abs masked_fill "
    "gt ge lt le greater greater_equal less less_equal"
)
"""Functions that may be a ReLU in disguise, or a part of one."""
OF_TWO = names("max min")
"""The same, of two tensors; of one they are reductions."""
BY_INDEX = names("index_put setitem")
"""The same, where flags say which values are replaced."""
LEAKY = {"leaky_relu": "LeakyReLU", "prelu": "PReLU", "rrelu": "RReLU"}
"""Rectifiers that the definition does not cover."""


def guided_backprop(
    model: nn.Module, images: Tensor, targets: Tensor | int | None = None, *, batch_size: int = 32
) -> Tensor:
    """Return the guided gradient of the chosen logit with respect to the network's input.

    Arguments, result and errors are those of :func:`~xaicore.attribution.gradient`. Activations other than ReLU and
    ReLU6 pass their gradient as it is.

    Raises:
        UserError: a network that calls no ReLU, calls a LeakyReLU, PReLU or RReLU, calls a function that may be a ReLU in
            disguise (``clamp``, ``maximum``, …), or holds scripted or compiled modules; the message names it.
    """
    network = network_of(model)
    check_visible(network, "guided backpropagation")

    def explain(batch: Batch) -> Tensor:
        guide = _Guided()
        result = slopes(network, batch.inputs, batch.targets, guide)
        if not guide.relus:
            raise UserError(
                f"guided backpropagation is a rule for ReLUs and {type(network).__name__} calls none: "
                "it would be the plain gradient; take attribution.gradient"
            )
        return result

    return explained(explain, model, images, targets, batch_size)


def guided_grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    layer: str | None = None,
    batch_size: int = 32,
) -> Tensor:
    """Return guided backpropagation times the Grad-CAM of a layer, enlarged bilinearly.

    Arguments, result and errors are those of :func:`guided_backprop` and :func:`~xaicore.attribution.grad_cam`, but for
    ``layer``, the name of the layer; None is the last convolution or attention to run whose map has more than one cell
    (in Inception v3 that is one branch of several).
    """
    guided = guided_backprop(model, images, targets, batch_size=batch_size)
    return guided * enlarged_grad_cam(model, images, targets, layer=layer, batch_size=batch_size)


def enlarged_grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    layer: str | None = None,
    batch_size: int = 32,
) -> Tensor:
    """Return the Grad-CAM (N, 1, H, W) of one layer, enlarged bilinearly to the size of ``images``.

    Arguments and errors are those of :func:`guided_grad_cam`.
    """
    layers = "last" if layer is None else [layer]
    (cams,) = grad_cam(model, images, targets, layers, batch_size=batch_size).values()
    if not len(cams):
        return cams.new_empty(0, 1, *images.shape[2:])
    return functional.interpolate(cams[:, None], images.shape[2:], mode="bilinear")


class _Guided(TorchFunctionMode):
    """Lets through ReLUs only what is positive of the gradient; counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.relus = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, name_of(func)
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        if _is_disguise(name, args, kwargs) and any(each.requires_grad for each in given):
            raise UserError(
                f"guided backpropagation cannot tell whether the function {name!r} stands for a ReLU: "
                "use nn.ReLU or nn.ReLU6"
            )
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.requires_grad:
            if name in LEAKY:
                raise UserError(
                    f"guided backpropagation is a rule for ReLUs and this network calls {LEAKY[name]}, of which it says "
                    "nothing; take attribution.gradient"
                )
            if name in ("relu", "relu6") or (
                name == "hardtanh" and argument(args, kwargs, 1, "min_val") == 0
            ):
                self.relus += 1
                result.register_hook(lambda slope: slope.clamp(min=0))
        return result


def _is_disguise(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name in OF_TWO:
        return isinstance(argument(args, kwargs, 1, "other"), Tensor)
    if name in BY_INDEX:
        index = argument(args, kwargs, 1, "indices")
        parts = index if isinstance(index, (tuple, list)) else (index,)
        return any(isinstance(each, Tensor) and each.dtype == torch.bool for each in parts)
    return name in DISGUISES
