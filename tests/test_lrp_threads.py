"""Tracing a network for its relevance does not disturb other threads that use the same network."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from attribution_networks import images, plain_net, seeded
from torch import Tensor

from xaicore.attribution import gradient, lrp


def test_threads_get_what_they_get_alone() -> None:
    model, batch = seeded(plain_net).requires_grad_(False), images()
    works: list[Any] = [lambda: lrp(model, batch, 1), lambda: gradient(model, batch, 1), lambda: model(batch)]
    expected: list[Tensor] = [work() for work in works]
    with ThreadPoolExecutor(6) as pool:
        found = [(number, pool.submit(works[number])) for _ in range(60) for number in range(len(works))]
        for number, result in found:
            assert torch.equal(result.result(), expected[number])
    assert torch.equal(model(batch), expected[2])
