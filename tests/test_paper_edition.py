"""The paper edition without its data: folders laid out as its image sets are, and the plan of every notebook on them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xaicore import data, models
from xaicore.book import cli
from xaicore.book.running.editions import load_edition
from xaicore.book.running.planning import check_data, check_model, plan
from xaicore.core.errors import UserError
from xaicore.data.embedded import imagenet_synsets
from xaicore.run.params import SCHEMAS

ROOT = Path(__file__).resolve().parent.parent


def picture(path: Path, side: int, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")
    return path


def links(first: Path, names: list[Path]) -> None:
    """Give a file further names: a thousand photographs for the room of one."""
    for name in names:
        name.parent.mkdir(parents=True, exist_ok=True)
        name.hardlink_to(first)


def vggface2(root: Path, identities: int = 5, images: int = 10) -> Path:
    """Identity folders as in VGGFace2, of which a reader puts some into one folder."""
    for k in range(identities):
        for image in range(images):
            picture(root / f"n{k + 2:06d}" / f"{image + 1:04d}_01.jpg", 24, 100 * k + image)
    return root


def imagenet(root: Path, photographs: int = 1000) -> Path:
    """The validation photographs of ImageNet in the folders of their synsets, as torchvision wants them."""
    synsets = list(imagenet_synsets())[:20]
    first = picture(root / "val" / synsets[0] / "ILSVRC2012_val_00000000.JPEG", 32, 1)
    names = [root / "val" / synsets[k % 20] / f"ILSVRC2012_val_{k:08d}.JPEG" for k in range(1, photographs)]
    links(first, names)
    return root


def cats_vs_dogs(root: Path, train: int = 12, test: int = 6) -> Path:
    """Kaggle's cats and dogs with the split of paper 1."""
    for split, count in (("train", train), ("test", test)):
        for name in ("cat", "dog"):
            for k in range(count):
                picture(root / split / name / f"{name}.{k}.jpg", 16, k)
    return root


def idx(values: np.ndarray) -> bytes:
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, 8, values.ndim]) + lengths + values.astype(np.uint8).tobytes()


def mnist(
    root: Path, train: int = 100, test: int = 50, packed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The four files of MNIST where torchvision puts them; returns the test images and labels."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, values in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx(values)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return images, labels


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All image sets of the paper edition, small, in one folder that XAICORE_DATA names; and a GPU, to all appearance."""
    vggface2(tmp_path / "faces")
    imagenet(tmp_path / "imagenet")
    cats_vs_dogs(tmp_path / "cats-vs-dogs")
    mnist(tmp_path, train=400, test=5000)
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return tmp_path


def test_mnist_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    import torchvision

    images, labels = mnist(tmp_path)
    theirs = torchvision.datasets.MNIST(str(tmp_path), train=False)
    ours = data.load("mnist", tmp_path)
    pixels, found = ours.stack()
    assert pixels.shape == (50, 1, 28, 28)
    assert torch.equal((pixels[:, 0] * 255).round().to(torch.uint8), theirs.data)
    assert torch.equal(found, theirs.targets)
    assert torch.equal(theirs.data, torch.from_numpy(images))
    assert found.tolist() == labels.tolist()
    assert ours.classes == tuple("0123456789")
    assert data.load("mnist", tmp_path, size=32)[0][0].shape == (1, 32, 32)


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
def test_the_splits_of_mnist(tmp_path: Path, packed: bool) -> None:
    mnist(tmp_path, packed=packed)
    sizes = {split: len(data.load("mnist", tmp_path, split)) for split in data.folders.SPLITS}
    assert sizes == {"train": 90, "validation": 10, "train+validation": 100, "test": 50, "all": 150}
    train, validation = (data.load("mnist", tmp_path, split) for split in ("train", "validation"))
    assert not set(map(int, train._indices)) & set(map(int, validation._indices))
    assert validation.labels.bincount().tolist() == [1] * 10


def test_mnist_is_the_same_packed_or_not_and_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, packed in (("one", True), ("two", False)):
        mnist(tmp_path / name, packed=packed)
    raw = tmp_path / "two" / "MNIST" / "raw"
    (tmp_path / "three").mkdir()
    raw.rename(tmp_path / "three" / "mnist-files")
    places = [
        tmp_path / "one",
        tmp_path / "one" / "MNIST",
        tmp_path / "one" / "MNIST" / "raw",
        tmp_path / "three",
    ]
    assert len({data.load("mnist", place).fingerprint for place in places}) == 1
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path / "three"))
    assert data.find_root("mnist").name == "mnist-files"


def _shorten(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def _half_unpacked(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte"
    (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:3000])
    path.unlink()


def _other_kind(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"<html>not found</html>")


def _no_labels(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()


def _fewer_labels(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(49)))


def _letters(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(50, 10)))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_shorten, "t10k-images-idx3-ubyte does not hold the 39200 bytes that it announces; fetch it again"),
        (
            _half_unpacked,
            r"t10k-images-idx3-ubyte\.gz is damaged or cannot be read \(EOFError\); fetch it again",
        ),
        (_other_kind, "t10k-images-idx3-ubyte is no IDX file of bytes with 3 dimensions; fetch it again"),
        (_no_labels, "raw has no t10k-labels-idx1-ubyte; expected MNIST/raw/train-images-idx3-ubyte and"),
        (_fewer_labels, "has 50 images and t10k-labels-idx1-ubyte 49 labels; fetch both again"),
        (_letters, "t10k-labels-idx1-ubyte does not hold the labels 0 to 9"),
    ],
)
def test_damaged_mnist_is_told_in_one_line(tmp_path: Path, harm, words: str) -> None:
    mnist(tmp_path)
    harm(tmp_path / "MNIST" / "raw")
    with pytest.raises(UserError, match=words) as caught:
        data.load("mnist", tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_no_mnist_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XAICORE_DATA", raising=False)
    with pytest.raises(UserError, match="mnist is read from a folder: give data_root, or set XAICORE_DATA"):
        data.load("mnist")
    with pytest.raises(UserError, match="there is no folder nowhere"):
        data.load("mnist", "nowhere")
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"\$XAICORE_DATA holds no mnist; expected MNIST/raw/"):
        data.load("mnist")


def test_vggface2_as_it_is_published_is_told_from_a_set_of_people_to_recognise(tmp_path: Path) -> None:
    """Its train and test folders hold different people, so no network trained on one can name those of the other."""
    vggface2(tmp_path / "faces" / "train", 2)
    picture(tmp_path / "faces" / "test" / "n000001" / "0001_01.jpg", 24, 0)
    with pytest.raises(UserError, match="class folder 'n000001' in one split but not in the other"):
        data.load("faces", tmp_path)
    assert len(data.load("faces", tmp_path / "faces" / "train").classes) == 2


def test_every_notebook_of_the_paper_edition_can_be_planned(folders: Path, tmp_path: Path) -> None:
    edition = load_edition(ROOT, "paper")
    tasks = plan(ROOT, edition, tmp_path / "runs", only=None, overrides={})
    assert {task.name for task in tasks} == set(edition.notebooks)
    assert all(task.parameters.torch_device.type == "cuda" for task in tasks)
    assert len({task.address for task in tasks}) == len(tasks)


def test_without_a_gpu_the_paper_edition_says_so_at_once(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(ROOT)
    assert cli.main(["run", "--edition", "paper", "--only", "p4"]) == 2
    assert capsys.readouterr().err == (
        "xaibook: p4_heat_and_blur: parameter device: cuda asks for a GPU, but torch sees none here; use auto or cpu\n"
    )


@pytest.mark.parametrize(
    ("name", "lacks", "words"),
    [
        ("p1_inspecting_attacks", "cats-vs-dogs", "holds no folder whose name starts with cats-vs-dogs"),
        ("p3_layer_by_layer", "imagenet", "holds no folder whose name starts with imagenet"),
        ("p5_explainer", "imagenet", "holds no folder whose name starts with imagenet"),
        ("atlas", "imagenet", "holds no folder whose name starts with imagenet"),
        ("arena", "MNIST", "holds no mnist"),
    ],
)
def test_a_missing_set_is_told_before_anything_starts(
    folders: Path, name: str, lacks: str, words: str
) -> None:
    (folders / lacks).rename(folders / "elsewhere")
    parameters = SCHEMAS[name].check(load_edition(ROOT, "paper").notebooks[name].parameters)
    with pytest.raises(UserError, match=words):
        check_data(parameters, folders / "memory")


def test_the_photographs_beside_the_first_set_count_too(folders: Path) -> None:
    given = {"dataset": "mnist-5k", "photographs": "imagenet"}
    before = check_data(SCHEMAS["p5_explainer"].check(given), folders / "memory")
    only_digits = check_data(SCHEMAS["p5_explainer"].check({}), folders / "memory")
    assert before != only_digits
    synset = next((folders / "imagenet" / "val").iterdir())
    picture(synset / "another.JPEG", 32, 5)
    after = check_data(SCHEMAS["p5_explainer"].check(given), folders / "memory")
    assert after != before, "other photographs make another address, so the notebook runs again"
    (synset / "another.JPEG").write_bytes(b"\xff\xd8 no photograph")
    with pytest.raises(UserError, match=r"another\.JPEG is corrupt or no image"):
        check_data(SCHEMAS["p5_explainer"].check(given), folders / "memory")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (
            "p5_explainer",
            {"photographs": "imagenet", "photograph_model": "resnet18", "photograph_weights": "w.pth"},
        ),
        (
            "p3_layer_by_layer",
            {"second_dataset": "imagenet", "second_model": "resnet18", "second_weights": "w.pth"},
        ),
    ],
)
def test_weights_of_the_second_network_are_tried_beforehand(
    folders: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: dict[str, str]
) -> None:
    monkeypatch.chdir(folders)
    models.save(models.load("resnet18", classes=1000), "w.pth")
    check_model(SCHEMAS[name].check(given))
    Path("w.pth").write_bytes(Path("w.pth").read_bytes()[:10_000])
    with pytest.raises(UserError, match=r"w\.pth is truncated or no weights file"):
        check_model(SCHEMAS[name].check(given))


def test_other_weights_of_the_second_network_make_its_notebook_run_again(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders)
    given = {"second_dataset": "imagenet", "second_model": "resnet18", "second_weights": "w.pth"}
    edition = load_edition(ROOT, "quick")

    def address() -> str:
        (task,) = plan(ROOT, edition, folders / "runs", only="p3", overrides=given)
        return task.address

    models.save(models.load("resnet18", classes=1000, seed=0), "w.pth")
    before = address()
    assert address() == before
    models.save(models.load("resnet18", classes=1000, seed=1), "w.pth")
    assert address() != before


@pytest.mark.parametrize(("there", "kind"), [(True, "cuda"), (False, "cpu")])
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_gpu_is_found_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, name: str, there: bool, kind: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert SCHEMAS[name].check({"device": "auto"}).torch_device.type == kind


def test_every_set_that_is_read_from_a_folder_is_documented() -> None:
    page = (ROOT / "book" / "paper_edition.md").read_text(encoding="utf-8")
    for name in load_edition(ROOT, "paper").data:
        assert f"`{name}`" in page
    assert "book/paper_edition" in (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
