"""The functions a network calls while it runs, whether through modules or not.

A ``torch.overrides.TorchFunctionMode`` sees every one of them: nn.ReLU and F.relu alike, a module called twice
twice, in-place calls as such. What it cannot see into is compiled or scripted code, which is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from xaicore.core.errors import UserError


def names(text: str) -> frozenset[str]:
    """Return the words of ``text``."""
    return frozenset(text.split())


ELEMENTWISE = names(
    "relu relu6 hardtanh leaky_relu prelu rrelu threshold elu celu selu gelu silu mish hardswish hardsigmoid "
    "sigmoid logsigmoid tanh tanhshrink softplus softsign softshrink hardshrink"
)
"""Activations: nonlinear functions of one value each."""


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function without the underscores that mark it as private or in place."""
    return str(getattr(function, "__name__", function)).strip("_")


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, name: str) -> Any:
    """Return an argument of a call given by position or by name, or None."""
    return args[position] if len(args) > position else kwargs.get(name)


def changes_in_place(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call overwrites its first argument."""
    name = str(getattr(function, "__name__", ""))
    overwrites = name.endswith("_") and not name.endswith("__")
    return overwrites or name.startswith("__i") or name == "__setitem__" or bool(kwargs.get("inplace"))


def check_visible(network: nn.Module, purpose: str) -> None:
    """Raise UserError where ``network`` holds scripted or compiled modules."""
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
            raise UserError(
                f"{purpose} cannot look into {name or type(module).__name__!r}, which is scripted or compiled: "
                "pass the module that it was made from"
            )
