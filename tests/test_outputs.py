"""What a model returns is logits, or one line says what it is and how to mend it."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from xaicore.core.errors import UserError
from xaicore.core.outputs import checked_logits, look_like_probabilities

LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Heads(NamedTuple):
    main: Tensor
    side: Tensor


@dataclass
class Output:
    logits: Tensor


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((LOGITS, LOGITS), r"not a tuple: .* such as output\[0\]"),
        ([None, LOGITS], r"not a list: .* such as output\[1\]"),
        (Heads(LOGITS, LOGITS), r"not a Heads: .* such as output\[0\]"),
        ({"loss": LOGITS[0, 0], "logits": LOGITS}, r"not a dict: .* such as output\['logits'\]"),
        (OrderedDict(out=LOGITS), r"not a OrderedDict: .* such as output\['out'\]"),
        (Output(LOGITS), r"not a Output: .* such as output\.logits"),
        ({}, "not a dict: wrap it in a module that returns them$"),
        (None, "not a NoneType: wrap"),
        (LOGITS.numpy(), "not a ndarray: wrap"),
        (LOGITS.argmax(dim=1), "in floating point, not torch.int64"),
        (LOGITS[:, :1], r"not one number for each image, \(N, 1\): .*xaicore.models.TwoLogits\(model\)"),
        (LOGITS[:, 0], r"not one number for each image, \(N,\): .*xaicore.models.TwoLogits\(model\)"),
        (LOGITS[:3], r"K of at least 2, not shape \(3, 3\) for 4 images"),
        (LOGITS[:, :, None, None], r"not shape \(4, 3, 1, 1\) for 4 images"),
        (LOGITS.flatten(), r"not shape \(12,\) for 4 images"),
        (LOGITS[:, :0], r"not shape \(4, 0\) for 4 images"),
    ],
)
def test_what_is_no_logits_is_named_in_one_line(output: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        checked_logits(output, 4)
    assert "\n" not in str(caught.value)


def test_logits_are_handed_on_as_they_are() -> None:
    assert checked_logits(LOGITS, 4) is LOGITS
    column = LOGITS[:, :1]
    assert checked_logits(column, 4, fewest=1) is column
    with pytest.raises(UserError, match="one number for each image"):
        checked_logits(LOGITS[:, 0], 4, fewest=1)


def test_probabilities_are_told_from_logits() -> None:
    assert look_like_probabilities(LOGITS.softmax(dim=1))
    assert look_like_probabilities((1000 * torch.randn(8, 1000)).softmax(dim=1))
    assert not look_like_probabilities(LOGITS)
    assert not look_like_probabilities(LOGITS.log_softmax(dim=1))
    assert not look_like_probabilities(LOGITS.sigmoid())
    assert not look_like_probabilities(LOGITS - LOGITS.mean(dim=1, keepdim=True) + 1 / 3)
    assert not look_like_probabilities(torch.full((2, 2), torch.nan))
