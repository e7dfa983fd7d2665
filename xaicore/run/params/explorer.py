"""Parameters of the notebook ``explorer``."""

from typing import Annotated

from pydantic import Field

from xaicore.attribution import PRESETS
from xaicore.run.params.base import Fraction, Side
from xaicore.run.params.checks import DETERMINISTIC, SIZED_ATTACKS, among, rising
from xaicore.run.params.instruments import InstrumentParameters

SHOWN_EXPLANATIONS = (*DETERMINISTIC, *PRESETS)
"""Explanations that draw nothing at random; a preset stands for layer-wise relevance propagation with it."""


class ExplorerParameters(InstrumentParameters):
    """Parameters of the notebook ``explorer``: the digits' lists, and those of the photographs."""

    n_images: int | None = Field(6, ge=1, description="number of test images; none: all")
    n_photographs: int = Field(3, ge=1, description="number of photographs")
    photograph_size: Side = Field(160, description="height and width of the photographs in pixels")
    attacks: Annotated[list[str], among(SIZED_ATTACKS)] = Field(
        ["fgsm", "bim", "pgd", "cw_l2"], min_length=1, description="attacks on the digits"
    )
    eps: Annotated[list[Fraction], rising(1)] = Field(
        [0.05, 0.15, 0.3],
        min_length=1,
        description="sizes: largest change of a value, each above 0 and at most 1, rising",
    )
    explanations: Annotated[list[str], among(SHOWN_EXPLANATIONS)] = Field(
        [
            "preset-a-flat",
            "deep-taylor-bounded",
            "epsilon",
            "grad_cam",
            "guided_backprop",
            "integrated_gradients",
            "input_times_gradient",
        ],
        min_length=1,
        description="explanations of digits; a preset stands for relevance propagation with it",
    )
    photograph_attacks: Annotated[list[str], among(SIZED_ATTACKS)] = Field(
        ["fgsm", "bim", "cw_l2"], min_length=1, description="of photographs: attacks"
    )
    photograph_eps: Annotated[list[Fraction], rising(1)] = Field(
        [2 / 255, 8 / 255],
        min_length=1,
        description="of photographs: sizes, each above 0 and at most 1, rising",
    )
    photograph_explanations: Annotated[list[str], among(SHOWN_EXPLANATIONS)] = Field(
        ["deep-taylor-bounded", "grad_cam", "guided_backprop", "input_times_gradient"],
        min_length=1,
        description="of photographs: explanations",
    )
    iterations: int = Field(10, ge=1, description="steps of the attacks that iterate to a given size")
    cw_steps: int = Field(20, ge=1, description="optimiser's steps of CW in one search")
    cw_searches: int = Field(2, ge=1, description="constants that CW tries")
    samples: int = Field(10, ge=2, description="steps of integrated gradients")
