"""What a model returns: logits, or one line that says what it is instead and how to mend it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from xaicore.core.errors import UserError


def checked_logits(output: Any, rows: int, *, fewest: int = 2) -> Tensor:
    """Return what a model returned of ``rows`` images if it is logits (rows, K), floating point, K at least ``fewest``.

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


@contextmanager
def naming_images(shape: Sequence[int]) -> Iterator[None]:
    """Turn torch's complaint about sizes within the block into a ValueError that names ``images``."""
    try:
        yield
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        if isinstance(error, torch.OutOfMemoryError) or not re.search("shape|size|channel", line):
            raise
        raise UserError(f"images of shape {tuple(shape)} do not fit the model: {line}") from error


def look_like_probabilities(logits: Tensor) -> bool:
    """Return whether all rows (N, K) are at least 0 and sum to 1, as no logits are but by chance."""
    return bool((logits >= 0).all() and ((logits.sum(dim=1) - 1).abs() < 1e-4).all())


def _described(output: Any) -> str:
    """Say what a model's output is that is no tensor, and how to come by the tensor in it that may be its logits."""
    entries: list[str] = []
    if isinstance(output, (Mapping, tuple, list)):
        items = output.items() if isinstance(output, Mapping) else enumerate(output)
        names = [name for name, value in items if isinstance(value, Tensor)]
        entries = [f"output[{name!r}]" for name in sorted(names, key=lambda name: name != "logits")]
    elif isinstance(getattr(output, "logits", None), Tensor):
        entries = ["output.logits"]
    such = f", such as {entries[0]}" if entries else ""
    return f"a {type(output).__name__}: wrap it in a module that returns them{such}"
