"""Sharing rows out among threads, for loops that hold no lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch


def share_out(count: int, work: Callable[[slice], None]) -> None:
    """Call ``work`` with slices that make up ``range(count)``, on as many threads as torch computes with."""
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        work(slice(count))
        return
    bounds = [count * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, (slice(*ends) for ends in pairwise(bounds))))
