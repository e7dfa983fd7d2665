"""Parameters: papermill's strings become values, mistakes become one line."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import nbformat
import pytest
import torch
from papermill import inspect_notebook
from pydantic import Field

from xaicore.core.errors import UserError
from xaicore.run.params import (
    SCHEMAS,
    ArenaParameters,
    AtlasParameters,
    Fraction,
    NotebookParameters,
    P2Parameters,
    P3Parameters,
    P4Parameters,
    P5Parameters,
    notebooks,
)
from xaicore.run.params.arena import SHIFTED_EXPLANATIONS
from xaicore.run.params.base import alternatives
from xaicore.run.params.checks import among, choices
from xaicore.run.params.notebooks import parameters_cell

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


class Toy(NotebookParameters):
    eps: Fraction = Field(8 / 255, gt=0, le=1, description="step")
    flag: bool = Field(default=True)
    rate: float = Field(1e-3, gt=0)
    classes: list[str] | None = Field(None)
    sizes: list[int] = Field([1])
    augment: Annotated[str | None, among(["none", "noise"])] = Field(None)


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
        ("classes", "['4', '9']", ["4", "9"]),
        ("classes", " ['4','9'] ", ["4", "9"]),
        ("classes", "('4', '9')", ["4", "9"]),
        ("classes", "'4', '9'", ["4", "9"]),
        ("classes", "[4, 9]", ["4", "9"]),
        ("classes", "[cat, big dog]", ["cat", "big dog"]),
        ("classes", "['a, b', \"c'd\"]", ["a, b", "c'd"]),
        ("classes", "O'Brien, Smith", ["O'Brien", "Smith"]),
        ("classes", "'cat'", ["cat"]),
        ("classes", "[8/255, 1]", ["8/255", "1"]),
        ("classes", "null", None),
        ("classes", 4, ["4"]),
        ("sizes", "1, 2", [1, 2]),
        ("sizes", "[1, 2]", [1, 2]),
        ("augment", "none", "none"),
        ("augment", "null", None),
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
        ("classes", "['4', '9'", """parameter classes: "['4', '9'" is not a list"""),
        ("classes", "['4', 9', '1']", """parameter classes: "['4', 9', '1']" is not a list"""),
        ("classes", "('4' '9'", """parameter classes: "('4' '9'" is not a list"""),
        ("sizes", "[1, [2]]", "parameter sizes.1: [2] is not a whole number"),
        (
            "augment",
            "nose",
            "parameter augment: there is no 'nose'; did you mean 'noise'? there are none, noise",
        ),
        ("sizes", 1.5, "parameter sizes.0: 1.5 is not a whole number"),
        ("device", "gpu", "parameter device: 'gpu' is none of auto, cpu, cuda, cuda:N, mps"),
    ],
)
def test_what_does_not_fit_is_one_line(name, typed, message):
    with pytest.raises(UserError) as caught:
        Toy.check({name: typed})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("schema", "given", "message"),
    [
        (P2Parameters, {"models": ["vgg61"]}, "parameter models: there is no 'vgg61'"),
        (
            P2Parameters,
            {"models": "vgg16,vgg16"},
            r"parameter models: \['vgg16', 'vgg16'\] must not name one twice",
        ),
        (P2Parameters, {"models": []}, "parameter models"),
        (P2Parameters, {"eps": "0.1,0.05"}, "parameter eps: .* must rise by at least 0.001"),
        (P2Parameters, {"eps": [0.01, 0.0101]}, "parameter eps: .* must rise by at least 0.001"),
        (P2Parameters, {"eps": [0]}, "parameter eps: .* above 0"),
        (P2Parameters, {"eps": "1.5"}, "parameter eps: .* above 0 and at most to 1"),
        (P2Parameters, {"shares": [0.5, 0.5]}, "parameter shares: .* three positive numbers with the sum 1"),
        (P2Parameters, {"shares": [0.6, 0.1, 0.1]}, "parameter shares"),
        (P2Parameters, {"weights": "my.safetensors"}, "a weights file fits one network"),
        (P3Parameters, {"strengths": "0.5,2"}, "parameter strengths: .* with 1 among them"),
        (P3Parameters, {"strengths": "1,0.5"}, "parameter strengths: .* must rise"),
        (P3Parameters, {"strengths": "0,1"}, "parameter strengths: .* must rise from above 0"),
        (P3Parameters, {"fidelity": "exact"}, "parameter fidelity"),
        (
            P3Parameters,
            {"other_attacks": "fgsm,fgms"},
            "there is no 'fgms'; did you mean 'fgsm'",
        ),
        (P3Parameters, {"other_attacks": "bim,bim"}, "parameter other_attacks: .* must not name one twice"),
        (
            P3Parameters,
            {"second_dataset": "imagenet-21"},
            "parameter second_dataset: there is no 'imagenet-21'",
        ),
        (P3Parameters, {"second_model": "vgg61"}, "parameter second_model: there is no 'vgg61'"),
        (P3Parameters, {"shares": [0.5, 0.5]}, "parameter shares: .* three positive numbers with the sum 1"),
        (P3Parameters, {"dataset": "imagenet-20"}, "imagenet-20 has no training images: give weights"),
        (P3Parameters, {"step_size": 0}, "parameter step_size"),
        (P4Parameters, {"sigmas": [1.0, 0.5]}, "parameter sigmas: .* must rise by at least 0.01"),
        (P4Parameters, {"sigmas": [0.5, 0.502]}, "parameter sigmas: .* must rise by at least 0.01"),
        (P4Parameters, {"sigmas": [-1, 0.5]}, "parameter sigmas: .* from 0 or more"),
        (P4Parameters, {"sigmas": [0, 0.001]}, "parameter sigmas: .* from 0 or more"),
        (P4Parameters, {"adaptive_eps": [0, 0.1]}, "parameter adaptive_eps: .* above 0 and at most to 1"),
        (P4Parameters, {"adaptive_attacks": ["fgsm"]}, "parameter adaptive_attacks: there is no 'fgsm'"),
        (P4Parameters, {"bits": 9}, "parameter bits"),
        (P4Parameters, {"sigmas": [1.0]}, "parameter sigmas"),
        (P4Parameters, {"sigma": -1}, "parameter sigma"),
        (P4Parameters, {"preset": "deep-tailor"}, "parameter preset: there is no 'deep-tailor'"),
        (P4Parameters, {"eps": "8/255, 2/255"}, "parameter eps: .* must rise"),
        (P4Parameters, {"eps": [1.5]}, "parameter eps: .* above 0 and at most to 1"),
        (P4Parameters, {"coverage": 0}, "parameter coverage"),
        (P4Parameters, {"effort": 0}, "parameter effort"),
        (P4Parameters, {"n_shown": 0}, "parameter n_shown"),
        (P4Parameters, {"model": "vgg91"}, "parameter model: there is no 'vgg91'"),
        (P5Parameters, {"explanation": "smoothgrad"}, "parameter explanation: there is no 'smoothgrad'"),
        (P5Parameters, {"explanations": ["smooth_ig", "lime"]}, "parameter explanations: there is no 'lime'"),
        (P5Parameters, {"explanations": "smooth_ig,smooth_ig"}, "parameter explanations: .*twice"),
        (
            P5Parameters,
            {"explanations": ["gradient"]},
            "explanations must hold the detector's own, smooth_ig",
        ),
        (P5Parameters, {"explanations": []}, "parameter explanations"),
        (P5Parameters, {"strengths": [0.8, 0.82]}, "parameter strengths: .* must rise by at least 0.1"),
        (P5Parameters, {"adaptive_eps": [0.2, 0.1]}, "parameter adaptive_eps: .* must rise"),
        (
            P5Parameters,
            {"adaptive_eps": [0.1, 0.1004]},
            "parameter adaptive_eps: .* must rise by at least 0.001",
        ),
        (P5Parameters, {"libraries": ["median"]}, "there is no 'median'"),
        (P5Parameters, {"strength": 0}, "parameter strength"),
        (P5Parameters, {"size": 27}, "parameter size: 27 is odd"),
        (P5Parameters, {"channels": 2}, "parameter channels: 2 is neither 1 nor 3"),
        (P5Parameters, {"fpr": 0}, "parameter fpr"),
        (P5Parameters, {"fpr": 1}, "parameter fpr"),
        (P5Parameters, {"eps": 1.5}, "parameter eps"),
        (P5Parameters, {"patch_size": 0.9}, "parameter patch_size"),
        (P5Parameters, {"photographs": "imagenet-21"}, "parameter photographs: there is no 'imagenet-21'"),
        (P5Parameters, {"photograph_model": "lenet"}, "parameter photograph_model: there is no 'lenet'"),
        (P5Parameters, {"n_attack": 3}, "unknown parameter 'n_attack'; did you mean 'n_attacked'"),
        (ArenaParameters, {"size": 27}, "27 is odd"),
        (ArenaParameters, {"explanations": ["lime"]}, "there is no 'lime'"),
        (ArenaParameters, {"dropout": 0}, "dropout"),
        (ArenaParameters, {"channels": 2}, "neither 1 nor 3"),
        (AtlasParameters, {"attacks": ["bim", "bim"]}, "must not name one twice"),
        (AtlasParameters, {"attacks": ["boundary"]}, "there is no 'boundary'"),
    ],
)
def test_what_makes_no_sense_is_one_line(schema, given, message):
    with pytest.raises(UserError, match=message) as caught:
        schema.check(given)
    assert "\n" not in str(caught.value)


def test_each_schema_takes_what_is_typed():
    assert P2Parameters.check({"models": "vgg16,xception", "shares": "null"}).models == ["vgg16", "xception"]
    params = P3Parameters.check({"step_size": "2/255", "strengths": "1/4, 1, 4", "second_dataset": "null"})
    assert (params.step_size, params.strengths, params.second_dataset) == (2 / 255, [0.25, 1, 4], None)
    assert AtlasParameters.check({"explanations": list(SHIFTED_EXPLANATIONS)})


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
        "import os, numpy, torch, threadpoolctl; from xaicore.run.params import NotebookParameters as P\n"
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_parameters_cell_of_a_notebook_is_made_from_its_schema(path):
    schema = SCHEMAS[path.stem]
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert cell.source == parameters_cell(schema), "run: python -m xaicore.run.params.notebooks --write"
    given = {}
    exec(cell.source, given)
    assert schema.resolve(given) == schema.check({})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_helps_with_every_parameter(path):
    """What it is, its bounds if it is a number, the names it may have, and what None means."""
    helped = inspect_notebook(str(path))
    fields = SCHEMAS[path.stem].model_fields
    assert set(helped) == set(fields)
    for name, field in fields.items():
        shown = helped[name]
        assert field.description, name
        assert shown["help"].startswith(field.description), name
        kind = shown["inferred_type_name"]
        assert kind in ("str", "int", "float", "bool", "list[str]", "list[int]", "list[float]"), name
        if kind in ("int", "float", "list[float]"):
            assert re.search(r"at least|at most|above|below|\d to \d|1 or 3", shown["help"]), name
        for choice in choices(field.metadata):
            assert choice in re.split(r"[ ,]+", shown["help"]), (name, choice)
        if type(None) in alternatives(field.annotation):
            assert re.search("none|null", shown["help"]), name


def test_a_cell_has_bounds_names_and_readable_defaults():
    lines = parameters_cell(Toy).splitlines()
    assert 'eps: float = "8/255"  # step; above 0 and at most 1' in lines
    assert "flag: bool = True  # " in lines
    assert "sizes: list[int] = [1]  # " in lines
    assert "augment: str = None  # ; one of: none, noise" in lines
    assert lines[-1].startswith("output_dir: str = None  # where the record goes")


def test_the_command_says_which_notebooks_are_not_as_their_schemas_and_writes_them(
    tmp_path, monkeypatch, capsys
):
    for path in NOTEBOOKS:
        shutil.copy(path, tmp_path)
    path = tmp_path / "metrics.ipynb"
    path.write_text(
        path.read_text(encoding="utf-8").replace("n_images: int = 60", "n_images: int = 61"), "utf-8"
    )
    assert notebooks.NOTEBOOKS == ROOT / "notebooks"
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    for arguments, status, said in (
        ([], 1, "not as their schemas: metrics\n"),
        (["--write"], 0, "written: metrics\n"),
        ([], 0, ""),
    ):
        monkeypatch.setattr(sys, "argv", ["notebooks", *arguments])
        assert notebooks.main() == status
        assert capsys.readouterr().out == said
    assert path.read_bytes() == (ROOT / "notebooks" / "metrics.ipynb").read_bytes()
