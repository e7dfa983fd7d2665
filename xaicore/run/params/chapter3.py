"""Parameters of chapter 3, Exploring Adversarial Attacks on Neural Networks."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from xaicore.data import SETS
from xaicore.models.augmentation import AUGMENTATIONS
from xaicore.run.params.base import DatasetName, Fraction, LearningRate, NetworkName, NotebookParameters, Side
from xaicore.run.params.checks import Shares, among
from xaicore.run.params.readings import Reading, Subject

IMAGENET = ("imagenet", "imagenet-20")
FACES = ("orl-faces", "faces")
OTHERS = ("fgsm", "bim", "mim", "pgd", "cw_l2", "cw_linf")
"""Attacks that the chapter can analyse beside DLFuzz: those that change an image a little and everywhere."""


class P3Parameters(NotebookParameters):
    """Parameters of the notebook ``p3_layer_by_layer``."""

    dataset: DatasetName = Field("orl-faces", description="image set whose images are the seeds")
    n_images: int | None = Field(
        60, ge=2, description="test images at most, evenly over the classes; none: all"
    )
    size: Side = Field(48, description="height and width of the images in pixels")
    fidelity: Literal["corrected", "as-published"] = Field(
        "corrected", description="analysis that Figs. 4 to 7 draw; tables have both"
    )
    strengths: list[Fraction] = Field(
        [0.25, 0.5, 1.0, 2.0, 4.0],
        min_length=2,
        description="multiples of the perturbation, each at least 0.01, rising, 1 among them",
    )
    iterations: int = Field(1, ge=1, le=1000, description="DLFuzz: steps from each seed")
    step_size: Fraction = Field(
        1 / 510,
        gt=0,
        le=1,
        description="DLFuzz: root mean square of a step, on [0, 1]; 1/510: half a grey level",
    )
    neurons: int = Field(10, ge=1, description="DLFuzz: neurons raised at a time")
    coverage_table: Literal["shared", "per-image"] = Field(
        "shared",
        description="DLFuzz: neurons covered so far, of all seeds before as published, or of each seed alone",
    )
    fuzz_orders: int = Field(
        2, ge=1, le=1000, description="DLFuzz: independent orders of the seeds; the first makes the examples"
    )
    n_orders: int = Field(200, ge=20, description="sequences of examples in the coverage curves")
    n_draws: int = Field(
        3, ge=1, le=1000, description="draws of Gaussian noise an example in the coverage curves"
    )
    shares: Shares = Field(
        [0.6, 0.1, 0.3],
        description="faces: training, validation, test images of a person, shares above 0 with the sum 1; "
        "none: the set's own split",
    )
    n_train: int | None = Field(None, ge=2, description="other sets: training images at most; none: all")
    epochs: int | None = Field(
        None, ge=1, description="epochs of training; none: the network's own for faces"
    )
    batch_size: int | None = Field(
        None, ge=2, description="images in a training step; none: the network's own"
    )
    learning_rate: Fraction | None = Field(
        None, gt=0, le=10, description="largest learning rate of that training; none: the network's own"
    )
    augment: Annotated[str | None, among(AUGMENTATIONS)] = Field(
        None, description="changes to training images; null: noise"
    )
    head_epochs: int = Field(60, ge=1, description="epochs of training the head alone")
    head_learning_rate: LearningRate = Field(1e-3, description="largest learning rate of the head")
    other_attacks: Annotated[list[str], among(OTHERS)] = Field(
        ["fgsm", "bim"], description="further attacks analysed in the same way"
    )
    other_eps: Fraction = Field(2 / 255, gt=0, le=1, description="size of the further attacks that have one")
    n_other: int = Field(16, ge=2, description="seeds of the further attacks, at most")
    second_dataset: Annotated[str | None, among(SETS)] = Field(
        "imagenet-20", description="image set of the second network; none: no second network"
    )
    second_model: NetworkName = Field("efficientnet_lite0", description="second network")
    second_weights: str = Field("imagenet", description="its weights: imagenet or a file")
    second_size: Side = Field(128, description="height and width of its images in pixels")
    n_second: int = Field(20, ge=2, description="its images, at most")
    authors_pictures: bool = Field(
        False,
        description="whether to analyse the pictures of the paper's authors, from the folder p3-authors of data_root",
    )

    @property
    def trains(self) -> bool:
        """Whether the first network is trained here, or at least its head."""
        return self.weights is None or (self.weights == "imagenet" and self.dataset not in IMAGENET)

    @property
    def with_faces(self) -> bool:
        """Whether the first network is that of chapter 2, trained on faces."""
        return self.dataset in FACES and self.weights in (None, "imagenet")

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads: of the first network's set and of the second's."""
        if self.with_faces:
            first = self._faces(self.shares)
        else:
            first = [self._reading("test", self.n_images, at_most=True)]
            if self.trains:
                first += [self._reading("train", self.n_train, at_most=True), self._reading("validation")]
        if self.second_dataset is None:
            return first
        all_20 = self.second_dataset == "imagenet-20" and self.n_second >= 20
        n = None if all_20 else self.n_second
        return [*first, Reading(self.second_dataset, self.other_root, "test", n)]

    @property
    def subjects(self) -> list[Subject]:
        """What the notebook attacks or explains: with the first network, and with the second."""
        if self.second_dataset is None:
            return [self._subject()]
        name, root, n = self.second_dataset, self.other_root, self.n_second
        second = Subject(name, root, n, self.second_size, self.second_model, self.second_weights)
        return [self._subject(), second]

    @field_validator("strengths")
    @classmethod
    def _with_one(cls, strengths: list[float]) -> list[float]:
        hundredths = [round(100 * strength) for strength in strengths]
        if min(hundredths) < 1 or hundredths != sorted(set(hundredths)) or 100 not in hundredths:
            raise ValueError(f"{strengths} must rise from above 0, by at least 0.01, with 1 among them")
        return strengths

    @model_validator(mode="after")
    def _imagenet_needs_weights(self) -> "P3Parameters":
        if self.dataset in IMAGENET and self.weights is None:
            raise ValueError(f"{self.dataset} has no training images: give weights=imagenet or a file")
        return self
