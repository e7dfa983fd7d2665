"""Parameters of chapter 2, Generalizing Adversarial Explanations with Grad-CAM."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from xaicore.models import REGISTRY
from xaicore.models.augmentation import AUGMENTATIONS
from xaicore.run.params.base import DatasetName, Fraction, LearningRate, NetworkName, NotebookParameters, Side
from xaicore.run.params.checks import Shares, among, rising
from xaicore.run.params.readings import Reading

NETWORKS = ["vgg16", "resnet50", "resnet101", "inception_v3", "xception"]


class P2Parameters(NotebookParameters):
    """Parameters of the notebook ``p2_gradcam_shift``."""

    dataset: DatasetName = Field("orl-faces", description="image set of faces")
    model: NetworkName = Field("resnet50", description="network on which the black-box images are made")
    models: Annotated[list[str], among(REGISTRY)] = Field(
        list(NETWORKS), min_length=1, description="networks under attack"
    )
    shares: Shares = Field(
        [0.6, 0.1, 0.3],
        description="training, validation, test images of a person: shares above 0 with the sum 1; "
        "none: the set's own split",
    )
    n_images: int | None = Field(
        40, ge=1, description="test images at most, evenly over the people; none: all"
    )
    size: Side = Field(48, description="height and width of the images in pixels")
    width: float = Field(
        1.0, gt=0, le=1, description="channels of networks trained here relative to their own"
    )
    eps: Annotated[list[Fraction], rising(1, 1000)] = Field(
        [0.01, 0.05, 0.075, 0.1],
        min_length=1,
        description="attack sizes, each above 0 and at most 1, rising by at least 0.001",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        description="epochs of training a whole network, without given weights; none: each network's own",
    )
    batch_size: int | None = Field(
        None, ge=2, description="images in a training step; none: each network's own"
    )
    learning_rate: Fraction | None = Field(
        None, gt=0, le=10, description="largest learning rate of that training; none: each network's own"
    )
    augment: Annotated[str | None, among(AUGMENTATIONS)] = Field(
        None, description="changes to training images; null: noise"
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32", description="arithmetic of training a whole network; auto: bfloat16 where there is"
    )
    head_epochs: int = Field(60, ge=1, description="epochs of training the head alone")
    head_learning_rate: LearningRate = Field(1e-3, description="largest learning rate of the head")
    cells: int = Field(
        3, ge=1, description="fewest cells a side of the map taken for MOD and VID; 1: the last layer"
    )
    published: Annotated[list[str], among(REGISTRY)] = Field(
        ["efficientnet_lite0", "efficientnet_lite1"],
        description="networks with published weights, of which only the head is trained; "
        "from a file <network>-….safetensors in the folder weights of the data, else ImageNet's",
    )
    published_size: Side = Field(64, description="height and width of the images for these")
    robust_eps: Fraction = Field(
        0.05, gt=0, le=1, description="radius of the ball that one network is trained against"
    )
    robust_epochs: int = Field(25, ge=1, description="epochs of that training")
    robust_steps: int = Field(3, ge=1, description="steps of PGD in each of its updates")
    n_layer_images: int = Field(12, ge=1, description="test images whose maps of all layers are compared")
    n_layers_shown: int = Field(14, ge=2, description="layers in the grids of Figs. 6 to 10; VGG has 13")

    @property
    def readings(self) -> list[Reading]:
        """The images that the notebook reads."""
        return self._faces(self.shares)

    @model_validator(mode="after")
    def _one_file(self) -> "P2Parameters":
        if self.weights not in (None, "imagenet") and (len(self.models) > 1 or self.models[0] != self.model):
            raise ValueError(
                "a weights file fits one network: give it as model and as the only one of models, or weights=imagenet"
            )
        return self
