"""What is found wrong with folders before a notebook starts, told so that one reading is enough."""

import json
from pathlib import Path

import pytest
from PIL import Image

from xaicore.book.running.editions import load_edition
from xaicore.book.running.planning import check_data, check_folders, check_model
from xaicore.book.running.runner import plan
from xaicore.core.errors import UnreadableFiles, UserError
from xaicore.data import SETS, ImageSet
from xaicore.run.params import SCHEMAS, NotebookParameters

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
    others = [
        n for n, each in chosen.items() if all(SETS[r.dataset].read_root is None for r in each.readings)
    ]
    assert "arena" in others
    assert line.endswith(f"without them: --only {','.join(others)}")
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


def chapter1(root: Path, **given: object) -> NotebookParameters:
    own = {"dataset": "folder", "data_root": str(root), "classes": ["cat", "dog"], "neighbours": 3}
    return SCHEMAS["p1_inspecting_attacks"].check({**own, "device": "cpu", **given})


def test_only_what_the_parameters_select_is_looked_at(tmp_path: Path) -> None:
    root = pictures(tmp_path / "own", ("cat", "dog", "eel"))
    parameters = chapter1(root, n_images=8)
    before = check_data(parameters, tmp_path / "one")
    for split in ("train", "test"):
        (root / split / "eel" / "0.png").write_bytes(b"no image")
        (root / split / "eel" / "notes.txt").touch()
    test = next(reading for reading in parameters.readings if reading.split == "test")
    (chosen,) = test.load()
    left = set((root / "test" / "dog").iterdir()) - set(chosen.files)
    assert len(left) == 8
    for file in left:
        file.write_bytes(b"no image")
    assert check_data(parameters, tmp_path / "two") == before, "a class and images that no one asked for"
    with pytest.raises(UserError, match=r"dog/\d+\.png"):
        check_data(chapter1(root), tmp_path / "two")
    with pytest.raises(UserError, match=r"own/train/eel/notes\.txt is no image file"):
        check_data(chapter1(root, classes=["cat", "eel"]), tmp_path / "two")


def test_only_a_changed_file_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "own", ("cat", "dog"))
    before = check_data(chapter1(root), tmp_path / "memory")
    with monkeypatch.context() as patch:
        patch.setattr(ImageSet, "verify", lambda self: pytest.fail("decoded again"))
        assert check_data(chapter1(root), tmp_path / "memory") == before
    Image.new("RGB", (16, 16), "red").save(root / "test" / "dog" / "3.png")
    assert check_data(chapter1(root), tmp_path / "memory") != before
    (root / "test" / "dog" / "3.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"own/test/dog/3\.png is corrupt or no image"):
        check_data(chapter1(root), tmp_path / "memory")


def test_unreadable_files_of_all_parts_and_notebooks_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cats-vs-dogs", "faces"):
        pictures(tmp_path / name, ("cat", "dog"), each=20)
        for split in ("train", "test"):
            (tmp_path / name / split / "cat" / "0.png").write_bytes(b"no image")
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path))
    edition = load_edition(ROOT, "reference")
    with pytest.raises(UnreadableFiles, match=r"^4 image files cannot be read") as caught:
        plan(ROOT, edition, tmp_path / "runs", only="p1,p2", overrides={"device": "cpu"})
    assert {reason.partition(" ")[0] for reason in caught.value.reasons.values()} == {
        f"{name}/{split}/cat/0.png" for name in ("cats-vs-dogs", "faces") for split in ("train", "test")
    }


RECORDS = sorted((ROOT / "results").glob("*/*/record.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}")
def test_what_is_checked_is_what_the_notebook_read(path: Path) -> None:
    """The image sets that a committed record names are among those that the parameters say are read."""
    record = json.loads(path.read_text(encoding="utf-8"))
    parameters = SCHEMAS[path.parts[-2]].check({**record["parameters"], "device": "cpu", "data_root": None})
    read = {
        (images.name, images.split, len(images))
        for reading in parameters.readings
        if SETS[reading.dataset].read is not None
        for images in reading.load()
    }
    recorded = {(item["name"], item["split"], item["n"]) for item in record["provenance"]["data"]}
    assert {item for item in recorded if SETS[item[0]].read is not None} <= read
    asked = {(reading.dataset, reading.split) for reading in parameters.readings}
    assert {item[:2] for item in recorded} <= asked
