"""The perturbed versions of an image whose maps are compared, in the corrected and in the published way.

Paper 3 adds multiples of an adversarial perturbation N_a and of Gaussian noise N_g to an image S. What an image of
nominal strength s really holds depends on the deviations of the published code
(:mod:`xaicore.studies.as_published`), so a version is told by its multiples. Several analyses share most of their
versions, and all of them need one pass only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from xaicore.studies.as_published import CORRECTED, Deviations, drifted, truncate


@dataclass(frozen=True)
class Version:
    """One perturbed version of an image S, ``clip(S + adversarial N_a + gaussian N_g, 0, 1)``.

    Attributes:
        adversarial: multiple of the adversarial perturbation N_a.
        gaussian: multiple of the Gaussian noise N_g.
        truncated: stored with 8 bits, every value rounded down to a whole grey level.
    """

    adversarial: float = 0.0
    gaussian: float = 0.0
    truncated: bool = False

    def image(self, clean: Tensor, adversarial_noise: Tensor, gaussian_noise: Tensor) -> Tensor:
        """Return the version of images (N, C, H, W) in [0, 1] whose perturbations are given."""
        noise = self.adversarial * adversarial_noise + self.gaussian * gaussian_noise
        image = (clean + noise).clamp(0, 1)
        return truncate(image) if self.truncated else image


@dataclass(frozen=True)
class Pair:
    """The versions that one analysis compares, one of each kind for each strength.

    Attributes:
        adversarial: (S,) those that stand for adversarial noise.
        gaussian: (S,) those that stand for Gaussian noise.
    """

    adversarial: tuple[Version, ...]
    gaussian: tuple[Version, ...]


def versions_of(strengths: Sequence[float], deviations: Deviations = CORRECTED) -> Pair:
    """Return the versions of nominal ``strengths``, as the text has them or as the published code makes them."""
    held = drifted(strengths) if deviations.drift else [(strength, 0.0) for strength in strengths]
    stored = deviations.truncation
    return Pair(
        tuple(Version(multiple, 0.0, stored) for multiple, _ in held),
        tuple(Version(rest, s, stored) for (_, rest), s in zip(held, strengths, strict=True)),
    )


def needed(pairs: Iterable[Pair]) -> tuple[Version, ...]:
    """Return every version of several analyses, each once, in order of appearance."""
    return tuple(dict.fromkeys(v for pair in pairs for v in (*pair.adversarial, *pair.gaussian)))
