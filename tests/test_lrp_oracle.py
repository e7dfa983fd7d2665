"""Our presets against the real iNNvestigate 2.1.2, with its outputs from $XAICORE_ORACLES or beside us."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xaicore.attribution import PRESETS, gradient, input_times_gradient, lrp

DEFAULT_FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "oracles"
FILE = Path(os.environ.get("XAICORE_ORACLES", DEFAULT_FOLDER)) / "innvestigate-2.1.2.npz"
TOLERANCE = 1e-5
ANALYZERS = {
    "z": "lrp.z",
    "epsilon": "lrp.epsilon",
    "w-square": "lrp.w_square",
    "flat": "lrp.flat",
    "alpha1-beta0": "lrp.alpha_1_beta_0",
    "alpha2-beta1": "lrp.alpha_2_beta_1",
    "preset-a": "lrp.sequential_preset_a",
    "preset-a-flat": "lrp.sequential_preset_a_flat",
    "preset-b-flat": "lrp.sequential_preset_b_flat",
    "deep-taylor": "deep_taylor",
    "deep-taylor-bounded": "deep_taylor.bounded",
}
MODES = {"max": None, "index3": 3}


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    if not FILE.is_file():
        pytest.skip(f"no oracle at {FILE.name}: set XAICORE_ORACLES to the folder that holds it")
    with np.load(FILE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def network(oracle: dict[str, np.ndarray]) -> nn.Module:
    layers: list[tuple[str, nn.Module]] = []
    for name, inputs, outputs, pool in (
        ("c1", 3, 16, 0),
        ("c2", 16, 16, 1),
        ("c3", 16, 32, 1),
        ("c4", 32, 32, 1),
    ):
        layers += [(name, nn.Conv2d(inputs, outputs, 3, padding=1)), (f"{name}_relu", nn.ReLU())]
        layers += [(f"{name}_pool", nn.MaxPool2d(2))] * pool
    layers += [
        ("flatten", nn.Flatten()),
        ("d1", nn.Linear(512, 64)),
        ("d1_relu", nn.ReLU()),
        ("d2", nn.Linear(64, 10)),
    ]
    model = nn.Sequential()
    for name, layer in layers:
        model.add_module(name, layer)
    weights = {k: torch.tensor(v) for k, v in oracle.items() if k.endswith((".weight", ".bias"))}
    model.load_state_dict(weights)
    return model.eval()


def error(ours: Tensor, theirs: np.ndarray) -> float:
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


def test_every_preset_has_an_oracle() -> None:
    assert set(ANALYZERS) == set(PRESETS)


def test_logits_agree(oracle: dict[str, np.ndarray], network: nn.Module) -> None:
    with torch.no_grad():
        assert error(network(torch.tensor(oracle["input"])), oracle["logits"]) < TOLERANCE


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("preset", ANALYZERS)
def test_preset_agrees(oracle: dict[str, np.ndarray], network: nn.Module, preset: str, mode: str) -> None:
    bounds = {"low": -1.0, "high": 1.0} if preset == "deep-taylor-bounded" else {}
    ours = lrp(network, torch.tensor(oracle["input"]), MODES[mode], preset, **bounds)
    assert error(ours, oracle[f"{mode}/{ANALYZERS[preset]}"]) < TOLERANCE


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("method", "analyzer"), [(gradient, "gradient"), (input_times_gradient, "input_t_gradient")]
)
def test_gradients_agree(
    oracle: dict[str, np.ndarray], network: nn.Module, method, analyzer: str, mode: str
) -> None:
    ours = method(network, torch.tensor(oracle["input"]), MODES[mode])
    assert error(ours, oracle[f"{mode}/{analyzer}"]) < TOLERANCE
