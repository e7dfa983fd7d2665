"""The typed parameters of the notebooks.

A notebook's cell tagged ``parameters`` holds plain assignments; the next cell calls ``resolve(globals())`` of
its schema, which turns what papermill or the reader put there into checked values, or into one clear line.
:data:`SCHEMAS` says which schema belongs to which notebook.
"""

from xaicore.run.params.arena import ArenaParameters, AtlasParameters
from xaicore.run.params.base import Fraction, NotebookParameters
from xaicore.run.params.chapter1 import P1Parameters
from xaicore.run.params.chapter2 import P2Parameters
from xaicore.run.params.chapter3 import P3Parameters
from xaicore.run.params.chapter4 import P4Parameters
from xaicore.run.params.chapter5 import P5Parameters
from xaicore.run.params.explorer import ExplorerParameters
from xaicore.run.params.instruments import (
    AttacksParameters,
    ExplanationsParameters,
    InstrumentParameters,
    MetricsParameters,
)

SCHEMAS: dict[str, type[NotebookParameters]] = {
    "arena": ArenaParameters,
    "atlas": AtlasParameters,
    "attacks": AttacksParameters,
    "explanations": ExplanationsParameters,
    "explorer": ExplorerParameters,
    "metrics": MetricsParameters,
    "p1_inspecting_attacks": P1Parameters,
    "p2_gradcam_shift": P2Parameters,
    "p3_layer_by_layer": P3Parameters,
    "p4_heat_and_blur": P4Parameters,
    "p5_explainer": P5Parameters,
}

__all__ = [
    "SCHEMAS",
    "ArenaParameters",
    "AtlasParameters",
    "AttacksParameters",
    "ExplanationsParameters",
    "ExplorerParameters",
    "Fraction",
    "InstrumentParameters",
    "MetricsParameters",
    "NotebookParameters",
    "P1Parameters",
    "P2Parameters",
    "P3Parameters",
    "P4Parameters",
    "P5Parameters",
]
