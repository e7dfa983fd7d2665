"""Editions: the ones we have are right, wrong ones are told in one line."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from xaicore.book.running.editions import choose, edition_names, load_edition
from xaicore.core.errors import UserError
from xaicore.run.params import SCHEMAS

ROOT = Path(__file__).parents[1]
GOOD = {
    "name": "toy",
    "description": "A toy",
    "notebooks": {"p1_a": {"expected_seconds": 1}, "p10_b": {"expected_seconds": 2, "after": ["p1_a"]}},
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    (tmp_path / "editions").mkdir()
    for name in ("p1_a", "p10_b"):
        monkeypatch.setitem(SCHEMAS, name, SCHEMAS["p1_inspecting_attacks"])

    def write(content, name="toy"):
        text = content if isinstance(content, str) else yaml.safe_dump({**GOOD, **content}, sort_keys=False)
        (tmp_path / "editions" / f"{name}.yml").write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize("name", ["quick", "embedded", "reference", "paper"])
def test_a_cell_may_take_twice_as_long_as_the_longest_notebook_should(name):
    edition = load_edition(ROOT, name)
    assert edition.cell_seconds >= 2 * max(run.expected_seconds for run in edition.notebooks.values())


@pytest.mark.parametrize("name", ["quick", "embedded"])
def test_binder_has_the_memory_that_an_edition_asks_for(name):
    """2 GB for the kernel and the server beside it; a run that takes more than its edition says tells so."""
    for notebook, run in load_edition(ROOT, name).notebooks.items():
        assert run.expected_memory_mb <= 1536, notebook


@pytest.mark.parametrize("name", ["quick", "embedded", "reference", "paper"])
def test_optional_figures_are_figures_of_their_notebook(name):
    for notebook, run in load_edition(ROOT, name).notebooks.items():
        cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
        figures = {cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells}
        assert set(run.optional_figures) <= figures


def test_a_limit_of_no_time_is_refused(write):
    with pytest.raises(UserError, match=r"^editions/toy.yml: cell_seconds: input should be greater than"):
        load_edition(write({"cell_seconds": 0}), "toy")


@pytest.mark.parametrize("name", ["quick", "embedded", "reference", "paper"])
def test_our_editions_are_right(name):
    edition = load_edition(ROOT, name)
    assert edition.notebooks
    for notebook, run in edition.notebooks.items():
        given = {key: value for key, value in run.parameters.items() if key != "device"}
        SCHEMAS[notebook].check(given)


def test_what_ships_in_packages_needs_nothing():
    for name in ("quick", "embedded"):
        edition = load_edition(ROOT, name)
        assert (edition.needs.network, edition.needs.gpu, edition.data) == (False, False, [])


def test_the_image_sets_of_an_edition_are_those_that_its_notebooks_read():
    assert load_edition(ROOT, "reference").data == ["cats-vs-dogs", "faces", "imagenet", "mnist"]
    assert load_edition(ROOT, "paper").data == ["cats-vs-dogs", "faces", "imagenet", "mnist"]


def test_names_and_defaults(write):
    root = write({})
    assert edition_names(root) == ["toy"]
    edition = load_edition(root, "toy")
    assert edition.expected_seconds() == edition.expected_seconds(cores=2) == 3
    assert (edition.threads, edition.needs.gpu) == (1, False)


def test_notebooks_are_chosen_by_their_beginnings(write):
    edition = load_edition(write({}), "toy")
    assert choose(edition, None) == ["p1_a", "p10_b"]
    assert choose(edition, "p1") == ["p1_a"], "p1 is not p10"
    assert choose(edition, "p10, p1") == ["p1_a", "p10_b"]
    for only in ("p2", "", "p1,x"):
        with pytest.raises(UserError, match="no notebook"):
            choose(edition, only)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: [", "cannot be read"),
        ("- a", "must be a mapping"),
        ({"name": "other"}, "name must be toy"),
        ({"notebooks": {"p1_a": {}}}, "notebooks.p1_a.expected_seconds: field required"),
        ({"notebooks": {"p7": {"expected_seconds": 1}}}, "there is no notebook 'p7'"),
        ({"notebooks": {"p1_a": {"expected_seconds": 1, "after": ["x"]}}}, "comes after 'x'"),
        (
            {
                "notebooks": {
                    "p1_a": {"expected_seconds": 1, "after": ["p10_b"]},
                    "p10_b": {"expected_seconds": 1, "after": ["p1_a"]},
                }
            },
            "in a circle",
        ),
        ({"threads": 0}, "threads"),
        ({"colour": "red"}, "colour: extra inputs"),
    ],
)
def test_wrong_files_are_told_in_one_line(write, content, message):
    with pytest.raises(UserError, match=message) as caught:
        load_edition(write(content), "toy")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("editions/toy.yml")


def test_an_edition_that_is_not_there():
    with pytest.raises(UserError, match=r"no edition 'enbedded'; there are .*embedded"):
        load_edition(ROOT, "enbedded")


def test_cores_share_the_time_of_an_edition(write):
    times = {"p1_a": (3, []), "p10_b": (5, []), "attacks": (4, ["p1_a"])}
    notebooks = {name: {"expected_seconds": s, "after": after} for name, (s, after) in times.items()}
    root = write({"notebooks": notebooks})
    assert [load_edition(root, "toy").expected_seconds(count) for count in (1, 2, 3)] == [12, 7, 7]
    assert load_edition(write({"notebooks": notebooks, "threads": 2}), "toy").expected_seconds(2) == 12


def test_the_readme_names_the_time_that_is_computed():
    """Both are for the first build on two cores; the notebooks take most of it."""
    low, high = re.search(r"`make book` \| (\d+) to (\d+) minutes", (ROOT / "README.md").read_text()).groups()
    assert int(low) <= load_edition(ROOT, "embedded").expected_seconds(2) / 60 <= int(high)
