"""Parameters of the notebooks on the instruments: attacks, explanations and metrics on the same two subjects."""

from pydantic import Field

from xaicore.run.params.base import DatasetName, Fraction, NetworkName, NotebookParameters, Side
from xaicore.run.params.readings import Reading, Subject


class InstrumentParameters(NotebookParameters):
    """What the notebooks on the instruments share: a network trained here, and a published one."""

    n_images: int | None = Field(12, ge=2, description="number of test images; none: all")
    model: NetworkName = Field("small_cnn", description="name of the network")
    n_train: int | None = Field(2000, ge=10, description="number of training images; none: all")
    size: int = Field(28, ge=8, le=1024, description="height and width of the images in pixels")
    epochs: int = Field(3, ge=1, description="epochs of training")
    photographs: DatasetName = Field(
        "imagenet-20", description="image set for the published ImageNet network"
    )
    n_photographs: int = Field(1, ge=1, description="number of photographs")
    photograph_size: Side = Field(224, description="height and width of the photographs in pixels")

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads."""
        return [*self._digits(self.n_train), Reading(self.photographs, self.other_root, "test")]

    @property
    def subjects(self) -> list[Subject]:
        """What the notebook attacks or explains: digits and photographs."""
        photographs = Subject(self.photographs, self.other_root, self.n_photographs, self.photograph_size)
        return [self._subject(), photographs]


class AttacksParameters(InstrumentParameters):
    """Parameters of the notebook ``attacks``."""

    eps: Fraction = Field(0.15, gt=0, le=1, description="largest change of a value, on [0, 1]")
    photograph_eps: Fraction = Field(2 / 255, gt=0, le=1, description="largest change of a value, on [0, 1]")
    effort: float = Field(1.0, gt=0, le=100, description="factor on the steps of the iterative attacks")


class ExplanationsParameters(InstrumentParameters):
    """Parameters of the notebook ``explanations``."""

    samples: int = Field(16, ge=2, description="samples or steps of the methods that average")
    n_planted: int = Field(120, ge=10, description="number of images with a planted mark")

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads: further ones that get a mark."""
        marked = [
            Reading(self.dataset, self.data_root, split, n)
            for split, n in (("train", self.n_train), ("test", self.n_planted))
        ]
        return [*super().readings, *marked]


class MetricsParameters(InstrumentParameters):
    """Parameters of the notebook ``metrics``."""

    n_images: int | None = Field(60, ge=4, description="number of test images; none: all")
    n_photographs: int = Field(2, ge=1, description="number of photographs")
    eps: Fraction = Field(0.15, gt=0, le=1, description="largest change of a value, on [0, 1]")
    photograph_eps: Fraction = Field(2 / 255, gt=0, le=1, description="largest change of a value, on [0, 1]")
