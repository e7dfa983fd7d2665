"""A random stream for every image, step and purpose, without any state to carry along.

Philox (Salmon et al. 2011) is a function of a key and a counter. The key is (seed, number of the image), the
counter holds the step and the purpose: what is drawn for an image depends on these alone, on any device, in
any batch, however often an attack is stopped and continued.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xaicore.core.errors import UserError


def stream(seed: int, index: int, step: int = 0, purpose: int = 0) -> np.random.Generator:
    """Return the generator of image ``index`` at ``step``; all arguments are at least 0.

    Args:
        seed: the caller's seed.
        index: number of the image in its set.
        step: step of the attack.
        purpose: tells streams of the same step apart.

    Raises:
        UserError: the seed has more than 64 bits.
    """
    if seed >= 2**64:
        raise UserError(f"seed must be below 2**64, not {seed}")
    key = np.array([seed, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, step, purpose]))


def normal(seed: int, index: Tensor, step: Tensor, shape: Sequence[int], *, purpose: int = 0) -> Tensor:
    """Return standard normal draws (n, *shape) float32, one stream per row, on the device of ``index``.

    Args:
        seed: the caller's seed.
        index: (n,) int64, number of each image in its set.
        step: (n,) int64, step each image is at.
        shape: of one draw.
        purpose: tells draws of the same step apart.
    """
    drawn = np.empty((len(index), *shape), dtype=np.float32)
    for row, number, at in zip(drawn, index.tolist(), step.tolist(), strict=True):
        stream(seed, number, at, purpose).standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(drawn).to(index.device)


def uniform(seed: int, index: Tensor, step: Tensor, shape: Sequence[int], *, purpose: int = 0) -> Tensor:
    """Return draws (n, *shape) float32 uniform in [0, 1), one stream per row; arguments as in :func:`normal`."""
    drawn = np.empty((len(index), *shape), dtype=np.float32)
    for row, number, at in zip(drawn, index.tolist(), step.tolist(), strict=True):
        stream(seed, number, at, purpose).random(out=row, dtype=np.float32)
    return torch.from_numpy(drawn).to(index.device)
