"""Contexts in which a model is used without leaving a trace on it, and float32 means float32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

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
    """Compute in plain float32: no autocast, and on a GPU no TF32 and no algorithm chosen by timing.

    Gradients are not recorded unless asked for within; the caller's inference mode and default type are left meanwhile.
    """
    default = torch.get_default_dtype()
    plain: AbstractContextManager[None] = nullcontext()
    if device.type == "cuda":
        plain = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False), plain:
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


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
