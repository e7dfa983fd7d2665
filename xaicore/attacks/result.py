"""What an attack hands back: the images, whether they fool the model, and what they cost.

The norms are those of the perturbation d = adversarial - image in [0, 1] units: l0 counts the pixels that
differ in any channel (Su et al. 2019), l2 = sqrt(sum d^2) and linf = max abs(d) run over all channels
and pixels (Carlini & Wagner 2017).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

_INFO = "info."
_PER_IMAGE = ("adversarial", "success", "l0", "l2", "linf", "queries")


@dataclass(frozen=True)
class AttackResult:
    """The outcome of an attack on N images, image by image.

    Attributes:
        adversarial: (N, C, H, W) float32 in [0, 1]. Where the attack failed, its last or best attempt; where
            the model was wrong about the clean image, that image, bit for bit.
        success: (N,) bool, recomputed from a fresh forward pass of ``adversarial``: the prediction differs
            from the label (untargeted) or equals the target (targeted). It holds also for an image that was
            misclassified from the start; leave those out with ``info["initially_wrong"]`` or
            :meth:`success_rate`.
        l0: (N,) int64, pixels that changed in any channel.
        l2: (N,) float32, Euclidean norm of the perturbation.
        linf: (N,) float32, largest change of one value.
        queries: (N,) int64, forward passes the attack made for this image; a gradient counts one. The clean
            pass before and the success check after the attack are measurements, not part of it, and do not
            count.
        seconds: wall-clock time of the whole call, both measurements included.
        info: further tensors with first dimension N. Always ``initially_wrong`` (bool: misclassified before
            the attack, thus not attacked) and ``nonfinite`` (bool: the model gave NaN or infinite logits for
            the clean or the final image; never a success) and ``margin`` (float32: by how many logits the best
            wrong class leads the label, or the target all others, in the final image; positive at success). In
            the attacks' own entries, images that were not attacked hold NaN, -1 or False.
    """

    adversarial: Tensor
    success: Tensor
    l0: Tensor
    l2: Tensor
    linf: Tensor
    queries: Tensor
    seconds: float
    info: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.success)

    def success_rate(self) -> float:
        """Return the share of successes among the images classified correctly before; NaN without any."""
        attacked = ~self.info["initially_wrong"]
        return self.success[attacked].float().mean().item() if attacked.any() else math.nan

    def arrays(self) -> dict[str, Tensor]:
        """Return the per-image tensors by name, ``info`` entries as ``info.<name>``, for the store."""
        own = {name: getattr(self, name) for name in _PER_IMAGE}
        return own | {_INFO + name: tensor for name, tensor in self.info.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor], seconds: float) -> Self:
        """Rebuild a result from :meth:`arrays` and the time it took.

        Raises:
            ValueError: a tensor is missing or unknown.
        """
        info = {name.removeprefix(_INFO): tensor for name, tensor in arrays.items() if name.startswith(_INFO)}
        own = {name: tensor for name, tensor in arrays.items() if not name.startswith(_INFO)}
        if set(own) != set(_PER_IMAGE):
            found = ", ".join(sorted(own)) or "nothing"
            raise ValueError(f"arrays must hold {', '.join(_PER_IMAGE)}; got {found}")
        return cls(**own, seconds=seconds, info=info)

    @classmethod
    def cat(cls, results: Sequence[Self]) -> Self:
        """Join results of one attack on several batches, in order; the seconds add up.

        Raises:
            ValueError: there is nothing to join, or the results carry different ``info``.
        """
        if not results:
            raise ValueError("results must hold at least one AttackResult")
        parts = [result.arrays() for result in results]
        if any(set(part) != set(parts[0]) for part in parts):
            raise ValueError("results must come from the same attack: their info entries differ")
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return cls.from_arrays(joined, seconds=sum(result.seconds for result in results))


def perturbation_norms(images: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return l0 (int64), l2 and linf of ``adversarial - images``, each (N,), for (N, C, H, W) inputs."""
    difference = adversarial - images
    l0 = (difference != 0).any(dim=1).flatten(1).sum(dim=1)
    flat = difference.flatten(1)
    return l0, torch.linalg.vector_norm(flat, dim=1), flat.abs().amax(dim=1)
