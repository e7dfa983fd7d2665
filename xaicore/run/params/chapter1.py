"""Parameters of chapter 1, Explainable AI for Inspecting Adversarial Attacks on Deep Neural Networks."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from xaicore.attribution import PRESETS
from xaicore.core.errors import UserError
from xaicore.models import Recipe
from xaicore.run.params.base import Fraction, LearningRate, NotebookParameters, Side
from xaicore.run.params.checks import among
from xaicore.run.params.readings import Reading, Subject
from xaicore.studies.heads import HEADS

RECIPES = ("one-cycle", "paper")
"""How networks are trained: see :meth:`P1Parameters.training`."""

LEAST_MAPPED = 4
"""Fewer signatures than that have no map, see :func:`xaicore.studies.signatures.embed`."""


class P1Parameters(NotebookParameters):
    """Parameters of the notebook ``p1_inspecting_attacks``."""

    classes: list[str] | None = Field(
        ["4", "9"], description="names of the two classes, in the order of their labels; none: all of the set"
    )
    n_train: int | None = Field(None, ge=4, description="number of training images; none: all")
    n_validation: int | None = Field(None, ge=2, description="number of validation images; none: all")
    size: Side = Field(32, description="height and width of the images in pixels")
    width: float = Field(0.25, gt=0, le=4, description="channels of the network relative to VGG16's")
    epochs: int = Field(8, ge=1, description="epochs of the first training")
    batch_size: int = Field(32, ge=1, description="images in a batch of training")
    learning_rate: LearningRate = Field(2e-3, description="largest learning rate of the first training")
    immune_epochs: int = Field(6, ge=1, description="epochs of the training on attacked images")
    immune_learning_rate: LearningRate = Field(5e-4, description="largest learning rate of that training")
    eps_max: Fraction = Field(
        0.2, gt=0, le=1, description="largest step of FGSM, in units of the [0, 1] range"
    )
    eps_steps: int = Field(51, ge=1, le=10_000, description="number of steps up to eps_max")
    population: int = Field(20, ge=4, description="one-pixel attack: candidates in a generation")
    generations: int = Field(19, ge=1, description="one-pixel attack: generations after the first")
    training_generations: int = Field(
        9, ge=1, description="one-pixel attack: generations on training and validation images"
    )
    n_cited: int = Field(
        10,
        ge=1,
        description="images for the search of the code that the paper cites, of those classified correctly",
    )
    cited_population: int = Field(400, ge=4, description="candidates of that search")
    cited_generations: int = Field(4, ge=1, description="its generations after the first")
    pixels: int = Field(1, ge=1, le=100, description="one-pixel attack: pixels it may change")
    recipe: Annotated[str, among(RECIPES)] = Field(
        "one-cycle",
        description="how networks are trained: AdamW in one cycle, or the paper's SGD with its decay",
    )
    eps_fixed: Fraction = Field(
        0.2, gt=0, le=1, description="a fixed step of FGSM, beside the smallest that turns an image"
    )
    fine_max: Fraction = Field(
        0.4, gt=0, le=1, description="largest step of the fine search along FGSM's direction"
    )
    fine_steps: int = Field(80, ge=1, le=10_000, description="number of steps of the fine search")
    heads: Annotated[list[str], among(HEADS)] = Field(
        list(HEADS), min_length=1, description="readings of the output from which relevance maps start"
    )
    other_networks: int = Field(
        1, ge=0, le=1, description="networks of another seed, never attacked, that read the attacked images"
    )
    least_maps: int = Field(
        50, ge=1, description="training maps of an attack below which no classifier learns it"
    )
    most_maps: int = Field(2000, ge=1, description="most maps of a kind that the classifier learns from")
    preset: Annotated[str, among(PRESETS)] = Field("preset-a-flat", description="rules of the relevance maps")
    neighbours: int = Field(10, ge=1, description="neighbours that measure how classes mix")
    umap_neighbors: int = Field(15, ge=2, description="neighbours that UMAP keeps together")
    umap_seeds: int = Field(3, ge=1, le=100, description="number of UMAP maps with different seeds")

    @field_validator("classes")
    @classmethod
    def _two_classes(cls, classes: list[str] | None) -> list[str] | None:
        if classes is not None and len(set(classes)) != 2:
            raise ValueError(f"{classes!r} does not name two different classes")
        return classes

    def training(self, epochs: int, learning_rate: float) -> Recipe:
        """Return the recipe of a training of so many epochs at this largest learning rate.

        ``paper`` is the SGD of Sec. 4.2, without momentum, whose decay of 1e-6 a step is Keras's; the paper does not
        give epochs and batch size.
        """
        given: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": self.batch_size,
            "learning_rate": learning_rate,
        }
        if self.recipe == "paper":
            given |= {"optimizer": "sgd", "schedule": "inverse-time", "decay": 1e-6, "weight_decay": 0.0}
        return Recipe(**given, seed=self.seed)

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads: of its classes alone."""
        classes = None if self.classes is None else tuple(self.classes)
        counts = {"train": self.n_train, "validation": self.n_validation, "test": self.n_images}
        return [self._reading(split, n, classes=classes) for split, n in counts.items()]

    @property
    def subjects(self) -> list[Subject]:
        """What the notebook attacks or explains."""
        return [self._subject(self.classes, width=self.width)]

    def check_test_images(self, name: str, count: int) -> None:
        """Refuse a test set too small for its neighbourhoods.

        Raises:
            UserError: an image has fewer neighbours than it is to be compared with, or there are too few for a map.
        """
        if count <= max(self.neighbours, LEAST_MAPPED - 1):
            raise UserError(
                f"{name} has {count} test images here, but each is compared with its {self.neighbours} neighbours: "
                f"take more images, at least {LEAST_MAPPED}, or a smaller number of neighbours"
            )
