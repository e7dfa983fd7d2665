"""Parameters of chapter 4, Heat and Blur."""

from typing import Annotated

from pydantic import Field, field_validator

from xaicore.attribution import PRESETS
from xaicore.run.params.base import DatasetName, Fraction, NetworkName, NotebookParameters, Side
from xaicore.run.params.checks import among, rising
from xaicore.run.params.readings import Reading, Subject


class P4Parameters(NotebookParameters):
    """Parameters of the notebook ``p4_heat_and_blur``."""

    dataset: DatasetName = Field("imagenet-20", description="image set of ImageNet photographs")
    model: NetworkName = Field("efficientnet_lite0", description="network with ImageNet weights")
    weights: str = Field("imagenet", description="imagenet, or a file of weights")
    size: Side = Field(128, description="height and width of the images in pixels")
    sigma: Fraction = Field(1.0, ge=0, le=20, description="σ of the blur in pixels; the paper has 0.8 to 1.2")
    sigmas: list[Fraction] = Field(
        [0.5, 0.8, 1.0, 1.2, 2.0],
        min_length=2,
        description="σ of the sweep, each above 0 and at most 20, rising by at least 0.1",
    )
    preset: Annotated[str, among(PRESETS)] = Field(
        "deep-taylor-bounded", description="rules of the relevance that makes the mask"
    )
    k_std: Fraction = Field(
        2.0, ge=-10, le=100, description="standard deviations above the mean of a kept pixel"
    )
    coverage: Fraction = Field(0.99, gt=0, le=1, description="probability that NDCG grades")
    distance: Fraction = Field(
        0.02, gt=0, description="largest perturbation of an attack, as a share of the image's length"
    )
    effort: float = Field(1.0, gt=0, le=100, description="factor on the steps of the attacks")
    n_costly: int = Field(8, ge=1, description="images for L-BFGS and the boundary attack")
    eps: list[Fraction] = Field(
        [2 / 255, 8 / 255],
        min_length=1,
        description="attacks that know the defence: largest change of a value, each above 0 and at most 1, rising",
    )
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

    @property
    def subjects(self) -> list[Subject]:
        """What the notebook attacks or explains."""
        return [self._subject(self.size)]

    _tenths = field_validator("sigmas")(rising(20, 10))

    _thousandths = field_validator("eps")(rising(1, 1000))
