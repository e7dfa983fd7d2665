"""Parameters of chapter 4, Heat and Blur."""

from typing import Annotated

from pydantic import Field

from xaicore.attribution import PRESETS
from xaicore.metrics.gain import READINGS
from xaicore.run.params.base import DatasetName, Fraction, NetworkName, NotebookParameters, Side
from xaicore.run.params.checks import among, rising
from xaicore.run.params.readings import Reading

Sizes = Annotated[list[Fraction], rising(1, 1000)]


class P4Parameters(NotebookParameters):
    """Parameters of the notebook ``p4_heat_and_blur``."""

    dataset: DatasetName = Field("imagenet-20", description="image set of ImageNet photographs")
    model: NetworkName = Field("efficientnet_lite0", description="network with ImageNet weights")
    weights: str = Field("imagenet", description="imagenet, or a file of weights")
    size: Side = Field(128, description="height and width of the images in pixels")
    sigma: Fraction = Field(1.0, ge=0, le=20, description="σ of the blur in pixels; the paper has 0.8 to 1.2")
    sigmas: Annotated[list[Fraction], rising(20, 100, zero=True)] = Field(
        [0, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.8, 1.0, 1.2, 2.0],
        min_length=2,
        description="σ of the sweep, from 0 or more to at most 20, rising by at least 0.01",
    )
    preset: Annotated[str, among(PRESETS)] = Field(
        "deep-taylor-bounded", description="rules of the relevance that makes the mask"
    )
    k_std: Fraction = Field(
        2.0, ge=-10, le=100, description="standard deviations above the mean of a kept pixel"
    )
    coverage: Fraction = Field(0.99, gt=0, le=1, description="probability that NDCG grades")
    reading: Annotated[str, among(READINGS)] = Field(
        "cut",
        description="what NDCG grades by: logits less the least of all or of the graded, negative ones 0; probabilities",
    )
    bits: int | None = Field(
        8, ge=1, le=8, description="bits a value of a stored adversarial image; none: as the attack left it"
    )
    distance: Fraction = Field(
        0.02, gt=0, description="largest perturbation of an attack, as a share of the image's length"
    )
    effort: float = Field(1.0, gt=0, le=100, description="factor on the steps of the attacks")
    n_costly: int = Field(8, ge=1, description="images for L-BFGS and the boundary attack")
    eps: Sizes = Field(
        [1 / 255, 2 / 255, 8 / 255],
        min_length=1,
        description="attacks that know the defence: largest change of a value, each above 0 and at most 1, rising",
    )
    adaptive_attacks: Annotated[list[str], among(("pgd", "cw_l2"))] = Field(
        ["pgd", "cw_l2"], min_length=1, description="the Att(·) of Algorithm 2"
    )
    adaptive_eps: Sizes = Field(
        [8 / 255],
        description="Algorithm 2: largest change of a value, each above 0 and at most 1, rising; none: not in L∞",
    )
    adaptive_rms: Sizes = Field(
        [0.02],
        description="the same in L2, as root mean square over the values, above 0 and at most 1, rising; none: not in L2",
    )
    stops: Annotated[list[str], among(("early", "late"))] = Field(
        ["early", "late"],
        min_length=1,
        description="whether its PGD stops at its first success, or takes all steps",
    )
    rounds: int = Field(5, ge=1, description="rounds of Algorithm 2, and steps of its attack in each")
    n_masked: int | None = Field(None, ge=1, description="images for Algorithm 2; none: all")
    n_adaptive: int = Field(6, ge=1, description="images for the costly attacks on the defence")
    n_shown: int = Field(3, ge=1, le=6, description="images in the figures")

    @property
    def trains(self) -> bool:
        """Whether the network is trained here: it comes with its weights."""
        return False

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads: of all there are."""
        return [self._reading("all", self.n_images)]
