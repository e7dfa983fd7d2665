"""Contexts in which a model is used without leaving a trace on it, and float32 means float32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import nn

from xaicore.core.devices import device_of


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put ``model`` and its parts into eval mode and give each part its own mode back, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute in plain float32: no autocast, no TF32 or bfloat16 within, and on a GPU no algorithm chosen by timing.

    Gradients are not recorded unless asked for within; the caller's inference mode and default type are left meanwhile.
    """
    default = torch.get_default_dtype()
    plain: AbstractContextManager[None] = nullcontext()
    if device.type == "cuda":
        plain = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
    free = torch.inference_mode(False), torch.autocast(device.type, enabled=False)
    with free[0], torch.no_grad(), free[1], plain, _exact_products():
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@contextmanager
def _exact_products() -> Iterator[None]:
    """Multiply matrices in float32, whichever of PyTorch's two settings the caller has asked for less with."""
    precision: str | None = None
    with suppress(RuntimeError):  # it was asked for by ``fp32_precision``, which older versions do not have
        precision = torch.get_float32_matmul_precision()
    of = ("cuda", "mkldnn") if precision != "highest" else ()
    settings: list[Any] = [getattr(getattr(torch.backends, each), "matmul", None) for each in of]
    kinds = [kind for kind in settings if hasattr(kind, "fp32_precision")]
    before = [kind.fp32_precision for kind in kinds]
    try:
        if precision not in (None, "highest"):
            torch.set_float32_matmul_precision("highest")
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        if precision not in (None, "highest"):
            torch.set_float32_matmul_precision(precision)
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[torch.device]:
    """Put ``model`` in eval mode and full precision and freeze its weights within the block; yield its device.

    The mode of every module, ``requires_grad`` of every parameter, autograd's mode and the precision
    settings are what they were afterwards, also after an exception. Gradients are recorded within; a GPU computes in
    float32 proper, not in TF32, and with deterministic convolutions.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = device_of(model)
    with exact_arithmetic(device), torch.enable_grad(), evaluation_mode(model):
        try:
            for parameter in learned:
                parameter.requires_grad_(False)
            yield device
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)
