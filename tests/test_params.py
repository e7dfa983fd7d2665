"""Parameters: papermill's strings become values, mistakes become one line."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from pydantic import Field

from xaicore.errors import UserError
from xaicore.params import SCHEMAS, Fraction, NotebookParameters

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


class Toy(NotebookParameters):
    eps: Fraction = Field(8 / 255, gt=0, le=1, description="step")
    flag: bool = Field(default=True)
    rate: float = Field(1e-3, gt=0)
    classes: list[str] | None = Field(None)
    sizes: list[int] = Field(default_factory=lambda: [1])


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("eps", "8/255", 8 / 255),
        ("eps", " 8 / 255 ", 8 / 255),
        ("eps", "0.03", 0.03),
        ("eps", 0.03, 0.03),
        ("eps", 1, 1.0),
        ("eps", "1e-3", 1e-3),
        ("flag", "false", False),
        ("flag", "True", True),
        ("flag", False, False),
        ("rate", "1e-4", 1e-4),
        ("n_images", "null", None),
        ("n_images", "None", None),
        ("n_images", " 12 ", 12),
        ("weights", "null", None),
        ("model", "vgg19", "vgg19"),
        ("classes", "4,9", ["4", "9"]),
        ("classes", '["4", "9"]', ["4", "9"]),
        ("classes", [4, 9], ["4", "9"]),
        ("classes", "null", None),
        ("classes", 4, ["4"]),
        ("sizes", "1, 2", [1, 2]),
        ("sizes", "3", [3]),
        ("sizes", 3, [3]),
        ("seed", "7", 7),
    ],
)
def test_texts_become_the_values_they_stand_for(name, typed, value):
    found = getattr(Toy.check({name: typed}), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("eps", "abc", "parameter eps: 'abc' is not a number or a fraction such as 8/255"),
        ("eps", "1/0", "parameter eps: '1/0' is not a number or a fraction such as 8/255"),
        ("eps", float("nan"), "parameter eps: nan is not a number or a fraction such as 8/255"),
        ("eps", True, "parameter eps: 'True' is not a number or a fraction such as 8/255"),
        ("eps", 2, "parameter eps: 2.0: input should be less than or equal to 1"),
        ("flag", "maybe", "parameter flag: 'maybe' is not true or false"),
        ("n_images", "many", "parameter n_images: 'many' is not a whole number"),
        ("n_images", 1.5, "parameter n_images: 1.5 is not a whole number"),
        ("n_images", 0, "parameter n_images: 0: input should be greater than or equal to 1"),
        ("seed", True, "parameter seed: 'True' is not a whole number"),
        ("seed", None, "parameter seed: None is not a whole number"),
        ("rate", "fast", "parameter rate: 'fast' is not a number"),
        ("weights", 3, "parameter weights: 3 is not text"),
        ("classes", True, "parameter classes: 'True' is not a list"),
        ("sizes", 1.5, "parameter sizes.0: 1.5 is not a whole number"),
        ("device", "gpu", "parameter device: 'gpu' is none of auto, cpu, cuda, cuda:N, mps"),
    ],
)
def test_what_does_not_fit_is_one_line(name, typed, message):
    with pytest.raises(UserError) as caught:
        Toy.check({name: typed})
    assert str(caught.value) == message


def test_unknown_names_are_told_with_the_nearest_known_one():
    with pytest.raises(
        UserError, match=r"^unknown parameter 'epss'; did you mean 'eps'\? \(known: dataset, .*\)$"
    ):
        Toy.check({"epss": 1})
    with pytest.raises(UserError, match=r"^unknown parameter 'zzzzzz'; \(known: dataset"):
        Toy.check({"zzzzzz": 1})


@pytest.mark.parametrize(("name", "value"), [("model", "vgg61"), ("dataset", "mnist-5000")])
def test_unknown_models_and_sets_are_told(name, value):
    with pytest.raises(UserError, match=f"parameter {name}: there is no '{value}'; did you mean"):
        Toy.check({name: value})


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="asks for a GPU, but torch sees none here"):
        Toy.check({"device": "cuda"})
    assert Toy.check({}).torch_device == torch.device("cpu")


def test_resolve_takes_plain_values_and_leaves_everything_else():
    namespace = {
        "__name__": "__main__",
        "_i1": "eps = 1",
        "In": ["", "eps = 1"],
        "Out": {},
        "get_ipython": print,
        "Path": Path,
        "torch": torch,
        "eps": "8/255",
        "n_images": "20",
        "threads": None,
    }
    parameters = Toy.resolve(namespace)
    assert (parameters.eps, parameters.n_images) == (8 / 255, 20)
    namespace |= {"accuracy": 0.5, "n_images": 30}
    assert Toy.resolve(namespace).n_images == 30, "running the cell again must work"
    with pytest.raises(UserError, match="unknown parameter 'epss'"):
        Toy.resolve({"epss": 0.1})


def test_resolve_sets_the_threads_that_are_asked_for():
    code = (
        "import os, numpy, torch, threadpoolctl; from xaicore.params import NotebookParameters as P\n"
        "P.resolve({'threads': '3'})\n"
        "print(torch.get_num_threads(), {pool['num_threads'] for pool in threadpoolctl.threadpool_info()})"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split(maxsplit=1) == ["3", "{3}\n"]


def test_what_is_shown_and_recorded_names_no_folder():
    parameters = Toy.check({"data_root": "/a/private/cats", "weights": "/b/vgg.pt", "output_dir": "/c/out"})
    table = parameters.show()
    assert table.loc["data_root", "value"] == "cats"
    assert table.loc["weights", "value"] == "vgg.pt"
    assert "output_dir" not in table.index
    assert table.loc["eps", "meaning"] == "step"
    recorded = parameters.recorded()
    assert (recorded["data_root"], recorded["weights"]) == ("cats", "vgg.pt")
    assert "output_dir" not in recorded


def test_parameters_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Toy.check({}).seed = 1


@pytest.mark.parametrize("notebook", sorted(SCHEMAS))
def test_every_parameter_says_what_it_is(notebook):
    for name, field in SCHEMAS[notebook].model_fields.items():
        assert field.description, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_parameters_cell_of_a_notebook_is_its_schema(path):
    schema = SCHEMAS[path.stem]
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    given = {}
    for node in ast.parse(cell.source).body:
        assert isinstance(node, (ast.Assign, ast.AnnAssign)), (
            "only assignments belong into the parameters cell"
        )
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        given[target.id] = ast.literal_eval(node.value)
    assert set(given) == set(schema.model_fields)
    assert schema.check(given) == schema.check({})


def test_every_notebook_has_a_schema():
    assert not NOTEBOOKS or {path.stem for path in NOTEBOOKS} <= set(SCHEMAS)
