"""Parameters of chapter 5, Explanation-based Adversarial Detection with Noise Reduction."""

from typing import Annotated

from pydantic import Field, model_validator

from xaicore.run.params.base import DatasetName, Fraction, NetworkName, NotebookParameters, Side
from xaicore.run.params.checks import Channels, EvenSide, among, rising
from xaicore.run.params.readings import Reading, Subject

EXPLANATIONS = (
    "smooth_ig",
    "integrated_gradients",
    "deep_lift",
    "shap",
    "grad_cam",
    "guided_grad_cam",
    "gradient",
)
"""Those of :data:`xaicore.detectors.EXPLANATIONS`, which takes a second to import."""

LIBRARIES = ("scikit_image", "opencv")
QUANTISATIONS = ("absolute_256", "absolute_16", "signed_256", "decimals_3", "raw")
"""Those of :mod:`xaicore.studies.entropy_readings`, likewise."""


class P5Parameters(NotebookParameters):
    """Parameters of the notebook ``p5_explainer``."""

    n_images: int | None = Field(100, ge=4, description="clean test images at most; none: all")
    model: NetworkName = Field("small_cnn", description="name of the network that is trained here")
    channels: Channels = Field(None, description="1 or 3 colour channels; none: as the set has")
    size: EvenSide = Field(28, ge=8, le=1024, description="height and width of the images in pixels, even")
    width: float = Field(0.5, gt=0, le=4, description="channels of the network relative to its own")
    n_train: int | None = Field(None, ge=10, description="number of training images; none: all")
    epochs: int = Field(3, ge=1, description="epochs of training")
    n_attacked: int = Field(50, ge=2, description="images for BIM, MIM and CW-L2, at most")
    n_costly: int = Field(32, ge=2, description="images for CW-L0 and CW-L∞, at most")
    eps: Fraction = Field(0.3, gt=0, le=1, description="largest change of a value, BIM and MIM")
    steps: int = Field(10, ge=1, le=10_000, description="steps of BIM and MIM")
    effort: float = Field(1.0, gt=0, le=100, description="factor on the steps of the other attacks")
    explanation: Annotated[str, among(EXPLANATIONS)] = Field(
        "smooth_ig", description="explanation of the detector"
    )
    explanations: Annotated[list[str], among(EXPLANATIONS)] = Field(
        list(EXPLANATIONS), min_length=1, description="explanations compared"
    )
    points: int = Field(6, ge=1, le=10_000, description="gradients in a map that averages")
    strength: Fraction = Field(0.8, gt=0, le=100, description="h of the denoising over the noise level")
    strengths: Annotated[list[Fraction], rising(100, 10)] = Field(
        [0.4, 0.8, 1.6, 3.2],
        min_length=2,
        description="h in the readings of the rule, each at least 0.1 and at most 100, rising by at least 0.1",
    )
    libraries: Annotated[list[str], among(LIBRARIES)] = Field(
        list(LIBRARIES), description="libraries whose denoising by default is in them too"
    )
    quantisations: Annotated[list[str], among(QUANTISATIONS)] = Field(
        list(QUANTISATIONS), min_length=1, description="histograms in them"
    )
    n_strength: int = Field(32, ge=2, description="attacked images of each group in them, at most")
    fpr: Fraction = Field(0.05, gt=0, lt=1, description="false-positive rate at which detectors are compared")
    magnet_epochs: int = Field(2, ge=1, description="MagNet: epochs of training")
    magnet_batch_size: int = Field(16, ge=1, description="MagNet: images in a training step")
    magnet_learning_rate: Fraction = Field(0.03, gt=0, le=1, description="MagNet: learning rate")
    n_adaptive: int = Field(16, ge=1, description="images for the attack that knows the detector")
    adaptive_eps: Annotated[list[Fraction], rising(1, 1000)] = Field(
        [0.1, 0.2, 0.3],
        min_length=1,
        description="its balls, each at least 0.001 and at most 1, rising by at least 0.001",
    )
    adaptive_steps: int = Field(30, ge=1, le=10_000, description="its steps")
    adaptive_restarts: int = Field(3, ge=1, le=1000, description="its random starts, of three kinds in turn")
    photographs: DatasetName = Field("imagenet-20", description="image set for the patch")
    photograph_model: NetworkName = Field("efficientnet_lite0", description="network for the photographs")
    photograph_weights: str = Field("imagenet", description="its weights: imagenet or a file")
    photograph_size: Side = Field(128, description="height and width of the photographs in pixels")
    n_photographs: int | None = Field(None, ge=2, description="photographs at most; none: all")
    photograph_points: int = Field(6, ge=1, le=10_000, description="gradients in a photograph's map")
    patch_size: Fraction = Field(0.15, gt=0, le=0.5, description="share of the area that the patch takes")
    patch_steps: int = Field(20, ge=1, description="steps of training a patch, times the effort")
    patch_class: int = Field(859, ge=0, description="class that the patch asks for; 859: toaster")
    n_timed: int = Field(20, ge=3, description="images timed one by one, at most")
    timed_points: int = Field(
        250,
        ge=1,
        le=10_000,
        description="gradients in a map timed as the paper's: 50 of each of 5 noisy copies",
    )
    n_shown: int = Field(2, ge=1, le=6, description="images in the figures")

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads: of the digits and, of all there are, of the photographs."""
        photographs = Reading(self.photographs, self.other_root, "all", self.n_photographs)
        return [*self._digits(self.n_train), photographs]

    @property
    def subjects(self) -> list[Subject]:
        """What the notebook attacks or explains: digits, and the photographs with the patch."""
        name, root, n = self.photographs, self.other_root, self.n_photographs
        patched = Subject(name, root, n, self.photograph_size, self.photograph_model, self.photograph_weights)
        return [self._subject(width=self.width, channels=self.channels), patched]

    @model_validator(mode="after")
    def _detector_is_compared(self) -> "P5Parameters":
        if self.explanation not in self.explanations:
            raise ValueError(f"explanations must hold the detector's own, {self.explanation}")
        return self
