"""The checks of arguments: what passes is handed on, what does not raises one line that names the argument."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xaicore.core import checks
from xaicore.core.errors import UserError

IMAGES = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (lambda: checks.number("x", Fraction(1, 2)), 0.5),
        (lambda: checks.number("x", np.float32(0.5), above=0, below=1), 0.5),
        (lambda: checks.number("x", -1e300), -1e300),
        (lambda: checks.positive("x", 1, most=1), 1.0),
        (lambda: checks.not_negative("x", 0), 0.0),
        (lambda: checks.integer("x", np.int64(3), least=3, most=3), 3),
        (lambda: checks.flag("x", False), False),
        (lambda: checks.one_of("x", "b", {"a": 1, "b": 2}), "b"),
        (lambda: checks.targets(None, 2), None),
    ],
)
def test_what_fits_is_handed_on(check: Callable[[], Any], value: object) -> None:
    found = check()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", [1, np.int64(1), torch.tensor(1), torch.tensor([1, 1], dtype=torch.uint8)])
def test_targets_are_one_for_all_or_one_for_each(value: Any) -> None:
    found = checks.targets(value, 2)
    assert found is not None
    assert found.dtype == torch.int64
    assert found.tolist() == [1, 1]


def test_tensors_lose_their_graph_and_nothing_else() -> None:
    given = IMAGES.clone().requires_grad_()
    for found in (checks.floating("x", given), checks.finite("x", given)):
        assert torch.equal(found, given)
        assert not found.requires_grad
    assert checks.images(given) is given
    assert len(checks.finite("x", IMAGES[:0])) == 0
    checks.within("x", IMAGES * 1.01 / IMAGES.max(), 1, slack=0.02)


@pytest.mark.parametrize(
    ("check", "kind", "message"),
    [
        (lambda: checks.module("x", nn.ReLU), TypeError, "x must be a torch.nn.Module, not type"),
        (lambda: checks.tensor("x", [1]), TypeError, "x must be a torch.Tensor, not list"),
        (lambda: checks.images(IMAGES[:0], "x"), UserError, "x must have the shape (N, C, H, W) with at least one"),
        (lambda: checks.images(IMAGES.half()), UserError, "images must be float32 in [0, 1], not torch.float16"),
        (
            lambda: checks.images(IMAGES + 1),
            UserError,
            "images must lie in [0, 1], not between 1",
        ),
        (lambda: checks.images(IMAGES / 0), UserError, "images must be finite"),
        (lambda: checks.floating("x", IMAGES > 0), TypeError, "x must be a floating-point tensor (N, C, H, W)"),
        (lambda: checks.floating("x", IMAGES[0]), UserError, "x must have the shape (N, C, H, W), not (1, 3, 3)"),
        (lambda: checks.floating("x", IMAGES[..., :0]), UserError, "x must have the shape"),
        (lambda: checks.finite("x", IMAGES * torch.nan), UserError, "x must be finite"),
        (lambda: checks.within("x", IMAGES - 1, 2), UserError, "x must lie in [0, 2]"),
        (lambda: checks.same_shape("a and b", IMAGES, IMAGES[:1]), UserError, "a and b must have the same shape"),
        (lambda: checks.booleans("x", IMAGES[0]), TypeError, "x must be a boolean tensor"),
        (lambda: checks.booleans("x", IMAGES > 0), UserError, "x must have the shape (N, H, W)"),
        (lambda: checks.integers("x", torch.arange(2).int(), 2), UserError, "x must be int64, not torch.int32"),
        (lambda: checks.integers("x", torch.arange(3), 2), UserError, "x must have the shape (2,), one for each"),
        (lambda: checks.targets(True, 2), TypeError, "targets must be"),
        (lambda: checks.targets(torch.ones(2, dtype=torch.bool), 2), TypeError, "targets must be integers"),
        (lambda: checks.targets(-1, 2), UserError, "targets must not be negative; found -1"),
        (lambda: checks.classes_in_range("x", torch.tensor([3]), 3), UserError, "x must lie in 0..2 for this"),
        (lambda: checks.number("x", math.nan), UserError, "x must be a finite number, not nan"),
        (
            lambda: checks.number("x", 1, least=0, below=1),
            UserError,
            "x must be a finite number, at least 0 and less than 1, not 1",
        ),
        (lambda: checks.positive("x", 0), UserError, "x must be a finite number, greater than 0, not 0"),
        (lambda: checks.not_negative("x", True), UserError, "x must be a finite number, at least 0, not True"),
        (lambda: checks.positive("x", 2, most=1), UserError, "greater than 0 and at most 1, not 2"),
        (lambda: checks.integer("x", 1.0, least=0), UserError, "x must be an integer of at least 0, not 1.0"),
        (lambda: checks.integer("x", 3, least=0, most=2), UserError, "at least 0 and at most 2, not 3"),
        (lambda: checks.flag("x", 1), UserError, "x must be True or False, not 1"),
        (lambda: checks.one_of("x", "c", ("a", "b")), UserError, "x must be one of a, b, not 'c'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(check: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
