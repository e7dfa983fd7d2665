"""Parameters of the notebooks across the papers: ``arena`` and ``atlas``, which share digits, network and attacks."""

from typing import Annotated

from pydantic import Field

from xaicore.run.params.base import DatasetName, Fraction, NetworkName, NotebookParameters, Side
from xaicore.run.params.chapter5 import EXPLANATIONS
from xaicore.run.params.checks import DETERMINISTIC, SIZED_ATTACKS, Channels, EvenSide, among
from xaicore.run.params.readings import Reading, Subject

SHIFTED_EXPLANATIONS = tuple(name for name in DETERMINISTIC if name not in ("clrp", "sglrp"))
"""Explanations of the class asked for alone; ``lrp`` is deep Taylor's."""


class SharedParameters(NotebookParameters):
    """What both notebooks have: the digits, the network and the attacks on it."""

    n_images: int | None = Field(50, ge=4, description="clean test images at most; none: all")
    model: NetworkName = Field(
        "small_cnn", description="name of the network that is trained here, with dropout"
    )
    channels: Channels = Field(None, description="1 or 3 colour channels; none: as the set has")
    size: EvenSide = Field(28, ge=8, le=1024, description="height and width of the images in pixels, even")
    width: float = Field(0.25, gt=0, le=4, description="channels of the network relative to its own")
    dropout: float = Field(0.3, gt=0, lt=1, description="rate of dropout in training and for its uncertainty")
    n_train: int | None = Field(1600, ge=10, description="number of training images; none: all")
    epochs: int = Field(5, ge=1, description="epochs of training")
    n_attacked: int = Field(40, ge=2, description="images for the attacks, at most")
    eps: Fraction = Field(0.2, gt=0, le=1, description="largest change of a value: FGSM, BIM, PGD, MIM")
    steps: int = Field(10, ge=1, le=10_000, description="steps of BIM, PGD and MIM")
    effort: float = Field(1.0, gt=0, le=100, description="factor on the steps of the other attacks")

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads: of the digits."""
        return self._digits(self.n_train)

    @property
    def subjects(self) -> list[Subject]:
        """What the notebook attacks or explains."""
        return [self._subject(width=self.width, channels=self.channels)]


class ArenaParameters(SharedParameters):
    """Parameters of the notebook ``arena``."""

    n_costly: int = Field(20, ge=2, description="images for CW-L0, CW-L∞ and boundary, at most")
    n_learned: int = Field(
        200,
        ge=4,
        description="training images attacked by BIM, for those that learn from it; not for retraining",
    )
    fpr: Fraction = Field(0.05, gt=0, lt=1, description="false-positive rate at which detectors are compared")
    explanations: Annotated[list[str], among(EXPLANATIONS)] = Field(
        ["smooth_ig", "integrated_gradients", "deep_lift", "grad_cam"],
        min_length=1,
        description="explanations of EXPLAINER",
    )
    leave_one_out: bool = Field(False, description="detectors that leave out each value by itself, too: slow")
    n_known: int = Field(16, ge=2, description="images for the attacks that ask or know a detector, at most")
    known_steps: int = Field(20, ge=1, le=10_000, description="their steps")
    known_restarts: int = Field(3, ge=1, le=1000, description="their random starts, of three kinds in turn")
    points: int = Field(4, ge=1, le=10_000, description="gradients in a map that averages")
    masks: int = Field(16, ge=2, le=10_000, description="dropout masks of the uncertainty")
    n_magnet: int | None = Field(
        1200, ge=10, description="training images of MagNet and of those that look at features; none: all"
    )
    magnet_epochs: int = Field(3, ge=1, description="MagNet: epochs of training")
    magnet_batch_size: int = Field(16, ge=1, description="MagNet: images in a training step")
    magnet_learning_rate: Fraction = Field(0.02, gt=0, le=1, description="MagNet: learning rate")
    sigma: Fraction = Field(1.0, gt=0, le=10, description="Heat and Blur: σ of the blur in pixels")
    temperature: Fraction = Field(20.0, ge=1, le=1000, description="temperature of the distillation")
    retraining_epochs: int = Field(2, ge=1, description="epochs of adversarial retraining")
    robust_epochs: int = Field(4, ge=1, description="epochs of adversarial training")
    robust_steps: int = Field(5, ge=1, le=10_000, description="steps of its PGD")
    bits: int = Field(1, ge=1, le=8, description="input rounding: bits of a value")
    quality: int = Field(50, ge=1, le=95, description="JPEG: quality")
    denoiser_epochs: int = Field(5, ge=1, description="epochs of the denoising autoencoder")
    n_defended: int = Field(20, ge=2, description="images for the attacks on the defences, at most")
    n_defended_costly: int = Field(10, ge=2, description="of these for DeepFool, CW-L2 and boundary, at most")
    budget: Fraction = Field(
        2.0, gt=0, description="largest L2 that counts for DeepFool and CW-L2 on the defences"
    )


class AtlasParameters(SharedParameters):
    """Parameters of the notebook ``atlas``."""

    attacks: Annotated[list[str], among(SIZED_ATTACKS)] = Field(
        ["fgsm", "bim", "cw_l2"], min_length=1, description="attacks on the digits"
    )
    explanations: Annotated[list[str], among(SHIFTED_EXPLANATIONS)] = Field(
        ["gradient", "integrated_gradients", "guided_backprop", "grad_cam", "lrp"],
        min_length=1,
        description="explanations of digits",
    )
    samples: int = Field(8, ge=2, description="steps of integrated gradients")
    photographs: DatasetName = Field("imagenet-20", description="image set for the published network")
    n_photographs: int | None = Field(6, ge=2, description="photographs at most; none: all")
    photograph_size: Side = Field(128, description="height and width of the photographs in pixels")
    photograph_eps: Fraction = Field(
        2 / 255, gt=0, le=1, description="of photographs: largest change of a value"
    )
    photograph_attacks: Annotated[list[str], among(SIZED_ATTACKS)] = Field(
        ["bim", "cw_l2"], min_length=1, description="attacks on photographs"
    )
    photograph_explanations: Annotated[list[str], among(SHIFTED_EXPLANATIONS)] = Field(
        ["guided_backprop", "grad_cam", "lrp"], min_length=1, description="explanations of photographs"
    )
    side: int = Field(7, ge=2, le=64, description="height and width of the maps that are clustered")
    clusters: int = Field(10, ge=2, le=50, description="clusters at most")
    permutations: int = Field(999, ge=19, description="permutations of the test of the clusters")

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads: ten times as many photographs as it looks for right ones among them."""
        n = 10 * self.n_photographs if self.n_photographs else None
        photographs = Reading(self.photographs, self.other_root, "test", n, at_most=True)
        return [*self._digits(self.n_train), photographs]

    @property
    def subjects(self) -> list[Subject]:
        """What the notebook attacks or explains: digits and photographs."""
        photographs = Subject(self.photographs, self.other_root, self.n_photographs, self.photograph_size)
        return [*super().subjects, photographs]
