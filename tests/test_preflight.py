"""What is found wrong with folders before a notebook starts, told so that one reading is enough."""

from pathlib import Path

import pytest
from PIL import Image

from xaicore.book.editions import load_edition
from xaicore.book.preflight import check_data, check_folders, check_model
from xaicore.book.runner import plan
from xaicore.errors import UserError
from xaicore.params import SCHEMAS, NotebookParameters

ROOT = Path(__file__).parents[1]


def pictures(root: Path, classes: tuple[str, ...], each: int = 12) -> Path:
    for split in ("train", "test"):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(each):
                Image.new("RGB", (16, 16), (20 * number, 100 * label, 0)).save(folder / f"{number}.png")
    return root


def own(root: Path, neighbours: int = 10) -> NotebookParameters:
    given = {
        "dataset": "folder",
        "data_root": str(root),
        "classes": None,
        "neighbours": neighbours,
        "device": "cpu",
    }
    return SCHEMAS["p1_inspecting_attacks"].check(given)


def test_missing_folders_are_told_together_with_what_runs_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path))
    edition = load_edition(ROOT, "reference")
    chosen = {name: SCHEMAS[name].check(run.parameters) for name, run in edition.notebooks.items()}
    with pytest.raises(UserError) as caught:
        check_folders(chosen)
    line = str(caught.value)
    assert "cats-vs-dogs (for p1_inspecting_attacks); faces (for p2_gradcam_shift); imagenet (for p3_" in line
    assert "$XAICORE_DATA holds no folder whose name starts with cats-vs-dogs" in line
    assert line.endswith("without them: --only arena")
    assert "\n" not in line
    with pytest.raises(UserError, match="image sets are missing"):
        plan(ROOT, edition, tmp_path / "runs", overrides={})


def test_one_missing_folder_is_told_by_the_notebook_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path))
    edition = load_edition(ROOT, "reference")
    with pytest.raises(UserError, match=r"^p1_inspecting_attacks: \$XAICORE_DATA holds no folder"):
        plan(ROOT, edition, tmp_path / "runs", only="p1,arena", overrides={})


def test_a_single_class_is_no_set_for_a_network(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder has a single class, 'cat', but a network needs at least two"):
        check_model(own(pictures(tmp_path, ("cat",))))
    check_model(own(pictures(tmp_path / "more", ("cat", "dog", "eel"))))


@pytest.mark.parametrize(("each", "neighbours", "enough"), [(5, 10, False), (6, 10, True), (1, 1, False)])
def test_chapter_1_needs_more_test_images_than_neighbours(
    tmp_path: Path, each: int, neighbours: int, enough: bool
) -> None:
    parameters = own(pictures(tmp_path / "own", ("cat", "dog"), max(each, 2)), neighbours=neighbours)
    for name in ("cat", "dog"):
        for file in sorted((tmp_path / "own" / "test" / name).iterdir())[each:]:
            file.unlink()
    if enough:
        check_data(parameters, tmp_path / "memory")
        return
    with pytest.raises(
        UserError, match=f"folder has {2 * each} test images here, but each is compared with its"
    ):
        check_data(parameters, tmp_path / "memory")
