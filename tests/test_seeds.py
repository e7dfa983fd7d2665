"""The seed of a notebook chooses networks, attacks and draws, and no image: runs of several seeds see the same ones."""

import ast
from pathlib import Path

import nbformat
import pytest
import torch

from xaicore.run.params import SCHEMAS
from xaicore.run.records import Run
from xaicore.run.store import Store
from xaicore.studies import arena

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STUDIES = sorted((ROOT / "xaicore" / "studies").glob("*.py"))


def code(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def seeded_choices(text: str) -> list[str]:
    """The calls in a source that choose images by a seed."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            named = {keyword.arg for keyword in node.keywords}
            loads = called in ("data.load", "face_sets") and "seed" in named
            splits = called.endswith((".subset", ".partition")) and ("seed" in named or len(node.args) > 1)
            orders = "randperm" in called and "params.seed" in ast.unparse(node)
            if loads or splits or orders:
                found.append(ast.unparse(node))
        if isinstance(node, ast.Dict):  # options that data.load takes
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if "seed" in keys and keys & {"n", "split"}:
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", [*NOTEBOOKS, *STUDIES], ids=lambda path: path.stem)
def test_nothing_chooses_images_by_the_seed(path: Path) -> None:
    assert seeded_choices(code(path)) == []


@pytest.mark.parametrize(
    "source",
    [
        "data.load(params.dataset, n=5, seed=params.seed)",
        "images.subset(5, params.seed)",
        "images.partition(shares, seed=seed)",
        "options = {'n': n, 'seed': params.seed}",
        "torch.randperm(9, generator=torch.Generator().manual_seed(params.seed))",
    ],
)
def test_a_choice_by_the_seed_is_seen(source: str) -> None:
    assert seeded_choices(source)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_what_a_notebook_reads_is_the_same_for_each_seed(name: str) -> None:
    first, second = (SCHEMAS[name].check({"seed": seed}).readings for seed in (0, 1))
    assert first == second


def test_two_seeds_train_other_networks_on_the_same_images(tmp_path: Path) -> None:
    settings, runs = [], []
    for seed in (0, 1):
        params = SCHEMAS["arena"].check({"seed": seed, "n_train": 20, "epochs": 1, "width": 0.1})
        run = Run("arena", params, tmp_path / str(seed))
        settings.append(arena.setting(params, Store(tmp_path / "store"), run))
        runs.append(run.provenance())
    assert runs[0]["data"] == runs[1]["data"]
    assert runs[0]["models"] != runs[1]["models"]
    for name in ("train", "validation", "test"):
        for first, second in zip(getattr(settings[0], name), getattr(settings[1], name), strict=True):
            assert torch.equal(first, second)
