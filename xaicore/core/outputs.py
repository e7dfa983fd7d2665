"""What a model returns: logits, or one line that says what it is instead and how to mend it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from xaicore.core.errors import UserError


def checked_logits(output: Any, rows: int, *, fewest: int = 2) -> Tensor:
    """Return ``output`` if it is the logits of ``rows`` images.

    Args:
        output: what the model returned.
        rows: images it was given.
        fewest: classes it must have at least; 1 where a single logit will do.

    Returns:
        (rows, K), floating point.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(output, Tensor):
        raise UserError(f"model must return logits (N, K), not {_described(output)}")
    shape = tuple(output.shape)
    if not output.is_floating_point():
        raise UserError(f"model must return logits (N, K) in floating point, not {output.dtype}")
    if shape in ((rows,), (rows, 1)) and (fewest > 1 or output.ndim == 1):
        single = "(N, 1)" if output.ndim == 2 else "(N,)"
        raise UserError(
            f"model must return logits (N, K) with K of at least 2, not one number for each image, {single}: "
            "if it is a logit z, take xaicore.models.TwoLogits(model), whose logits are (-z/2, z/2)"
        )
    if output.ndim != 2 or len(output) != rows or shape[1] < fewest:
        raise UserError(
            f"model must return logits (N, K) with K of at least {fewest}, not shape {shape} for {rows} images"
        )
    return output


def look_like_probabilities(logits: Tensor) -> bool:
    """Return whether all rows (N, K) are at least 0 and sum to 1, as no logits are but by chance."""
    return bool((logits >= 0).all() and ((logits.sum(dim=1) - 1).abs() < 1e-4).all())


def _described(output: Any) -> str:
    """Say what a model's output is that is no tensor, and how to come by the tensor in it that may be its logits."""
    kind = type(output).__name__
    if isinstance(output, Mapping):
        names = [name for name, value in output.items() if isinstance(value, torch.Tensor)]
        best = next((name for name in ("logits", *names) if name in names), None)
        entry = None if best is None else f"output[{best!r}]"
    elif isinstance(output, (tuple, list)):
        number = next((at for at, value in enumerate(output) if isinstance(value, torch.Tensor)), None)
        entry = None if number is None else f"output[{number}]"
    else:
        entry = "output.logits" if isinstance(getattr(output, "logits", None), torch.Tensor) else None
    if entry is None:
        return f"a {kind}: wrap it in a module that returns them"
    return f"a {kind}: wrap it in a module that returns them, such as {entry}"
