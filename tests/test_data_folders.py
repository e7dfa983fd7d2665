"""Image sets in folders: layouts, splits, where the folder is looked for, and what can be wrong with it."""

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from xaicore import data
from xaicore.core.errors import UnreadableFiles, UserError
from xaicore.data.embedded import imagenet_synsets


def write(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def make(root: Path, parts: dict[str, int], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    names = [
        (part, name, number) for part, count in parts.items() for name in classes for number in range(count)
    ]
    for seed, (part, name, number) in enumerate(names):
        write(root / part / name / f"{number}.png", seed)
    return root


def files(images: data.ImageSet) -> set[str]:
    return {images._label(i) for i in range(len(images))}


def test_train_and_test_folders(tmp_path: Path) -> None:
    root = make(tmp_path / "cats-vs-dogs-tiny", {"train": 20, "test": 5})
    sizes = {split: len(data.load("cats-vs-dogs", root, split)) for split in data.folders.SPLITS}
    assert sizes == {"train": 36, "validation": 4, "train+validation": 40, "test": 10, "all": 50}
    train, validation = (data.load("cats-vs-dogs", root, split) for split in ("train", "validation"))
    assert not files(train) & files(validation)
    assert train.classes == ("cat", "dog")
    assert train.stack()[0].shape == (36, 3, 10, 12)


def test_a_validation_folder_is_used(tmp_path: Path) -> None:
    root = make(tmp_path / "faces", {"train": 4, "val": 2, "test": 1}, ("id_2", "id_10"))
    images = data.load("faces", root, "validation")
    assert all("/val/" in name for name in files(images))
    assert images.classes == ("id_2", "id_10")
    assert len(data.load("faces", root, "train")) == 8
    assert len(data.load("faces", root, "train+validation")) == 12


def test_class_folders_alone_are_split_80_10_10(tmp_path: Path) -> None:
    root = make(tmp_path / "own", {"": 10}, ("a", "b", "c"))
    parts = [data.load("folder", root, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [24, 3, 3]
    assert len(set.union(*map(files, parts))) == 30


def test_imagenet_keeps_true_labels_of_some_synsets(tmp_path: Path) -> None:
    assert imagenet_synsets()["n01440764"] == 0
    assert len(imagenet_synsets()) == 1000
    for number, synset in enumerate(("n01443537", "n15075141")):
        write(tmp_path / "imagenet-few" / synset / "a.png", number, (300, 260))
    images = data.load("imagenet", tmp_path, size=224)
    assert images.labels.tolist() == [1, 999]
    assert images.classes[1] == "goldfish"
    assert images.stack()[0].shape == (2, 3, 224, 224)
    with pytest.raises(UserError, match="no train split"):
        data.load("imagenet", tmp_path, "train")
    write(tmp_path / "imagenet-few" / "cat" / "a.png")
    with pytest.raises(UserError, match="cat in imagenet-few is no ImageNet synset"):
        data.load("imagenet", tmp_path)


@pytest.mark.parametrize("size", [15, 16])
def test_imagenets_middle_is_taken_at_every_size(tmp_path: Path, size: int) -> None:
    ramp = np.tile(np.arange(0, 256, 16, dtype=np.uint8)[None, :, None], (16, 1, 3))
    (tmp_path / "imagenet" / "n01440764").mkdir(parents=True)
    Image.fromarray(ramp).save(tmp_path / "imagenet" / "n01440764" / "1.png")
    row = data.load("imagenet", tmp_path, size=size)[0][0][0, 0] * 255
    assert row[0] > 14
    assert row[-1] < 226


def test_imagenet_validation_folder_is_the_test_split(tmp_path: Path) -> None:
    write(tmp_path / "val" / "n01440764" / "a.png")
    write(tmp_path / "train" / "n01440764" / "b.png")
    write(tmp_path / "train" / "n01443537" / "c.png")
    assert data.load("imagenet", tmp_path).labels.tolist() == [0]
    assert data.load("imagenet", tmp_path, "train").labels.tolist() == [0, 1]
    assert len(data.load("imagenet", tmp_path, "all")) == 3


def test_where_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make(tmp_path / "faces-3", {"train": 1, "test": 1})
    assert data.find_root("faces", own) == own
    assert data.find_root("faces", tmp_path) == own
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path))
    assert data.find_root("faces") == own
    with pytest.raises(
        UserError, match=r"\$XAICORE_DATA holds no folder whose name starts with cats-vs-dogs"
    ):
        data.load("cats-vs-dogs")
    make(tmp_path / "faces-4", {"train": 1, "test": 1})
    with pytest.raises(UserError, match=r"several folders for faces \(faces-3, faces-4\)"):
        data.find_root("faces")
    make(tmp_path / "faces", {"train": 1, "test": 1})
    assert data.find_root("faces").name == "faces"
    other = make(tmp_path / "mine", {"train": 1, "test": 1})
    assert data.find_root("cats-vs-dogs", other) == other
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="XAICORE_DATA names a folder that is not there") as caught:
        data.load("faces")
    assert str(tmp_path) not in str(caught.value)
    monkeypatch.delenv("XAICORE_DATA")
    with pytest.raises(UserError, match="give data_root, or set XAICORE_DATA"):
        data.load("faces")
    with pytest.raises(UserError, match="there is no folder nowhere"):
        data.load("faces", "nowhere")
    with pytest.raises(UserError, match="give data_root"):
        data.load("folder")


def _empty_class(root: Path) -> None:
    (root / "train" / "eel").mkdir()
    (root / "test" / "eel").mkdir()


def _extra_class(root: Path) -> None:
    write(root / "test" / "eel" / "1.png")


def _note(root: Path) -> None:
    (root / "test" / "cat" / "notes.txt").write_text("hello")


def _no_test(root: Path) -> None:
    for file in sorted((root / "test").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (root / "test").rmdir()


def _no_classes(root: Path) -> None:
    _no_test(root)
    (root / "test").mkdir()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_empty_class, "class folder faces/test/eel has no image"),
        (_extra_class, "class folder 'eel' in one split but not in the other"),
        (_note, "faces/test/cat/notes.txt is no image file"),
        (_no_test, "faces has no folder for the test split, only train"),
        (_no_classes, "faces/test has no class folders"),
    ],
)
def test_wrong_layouts_say_what_is_wrong(tmp_path: Path, harm, words: str) -> None:
    root = make(tmp_path / "faces", {"train": 2, "test": 2})
    harm(root)
    with pytest.raises(UserError, match=words) as caught:
        data.load("faces", root)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_set_that_was_unpacked_one_folder_too_deep(tmp_path: Path) -> None:
    make(tmp_path / "faces" / "faces", {"train": 2, "test": 2})
    with pytest.raises(
        UserError, match=r"faces/faces has no image of its own, only folders \(test, …\); move what"
    ):
        data.load("faces", tmp_path)


def test_clutter_is_passed_over(tmp_path: Path) -> None:
    root = make(tmp_path / "faces", {"train": 2, "test": 2})
    (root / "test" / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "test" / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "test" / "__MACOSX" / "cat").mkdir(parents=True)
    assert len(data.load("faces", root)) == 4


def test_classes_too_small_to_split_are_named(tmp_path: Path) -> None:
    root = make(tmp_path / "own", {"": 2}, ("a", "b"))
    with pytest.raises(UserError, match="class 'a' of own has 2 images, but a split needs at least 3: add"):
        data.load("folder", root)


@pytest.mark.parametrize("content", [b"", b"not an image", "half"])
def test_corrupt_files_are_named(tmp_path: Path, content: bytes | str) -> None:
    root = make(tmp_path / "faces", {"train": 3, "test": 3})
    bad = root / "test" / "dog" / "1.png"
    bad.write_bytes(bad.read_bytes()[:200] if isinstance(content, str) else content)
    images = data.load("faces", root)
    for action in (images.verify, images.stack):
        with pytest.raises(UserError, match=r"faces/test/dog/1.png is corrupt or no image") as caught:
            action()
        assert "\n" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
    bad.unlink()
    with pytest.raises(UserError, match=r"dog/1.png has gone"):
        images.verify()


def test_modes_depths_and_rotation(tmp_path: Path) -> None:
    root = tmp_path / "own"
    for number, mode in enumerate(("L", "RGBA", "P", "1", "CMYK")):
        suffix = ".jpg" if mode == "CMYK" else ".png"
        write(root / "test" / "a" / f"{number}{suffix}", number, mode=mode)
    turned = Image.new("RGB", (12, 10))
    exif = turned.getexif()
    exif[274] = 6
    turned.save(root / "test" / "a" / "9.jpg", exif=exif)
    images = data.load("folder", root, size=(10, 12))
    assert images.stack()[0].shape == (6, 3, 10, 12)
    assert data.load("folder", root)[5][0].shape == (3, 12, 10)
    assert data.load("folder", root, channels=1)[0][0].shape == (1, 10, 12)


def one(tmp_path: Path, **options: Any) -> torch.Tensor:
    """The image of the folder ``own``, which holds a single one."""
    return data.load("folder", tmp_path / "own", **options)[0][0]


def place(tmp_path: Path, name: str = "1.png") -> Path:
    folder = tmp_path / "own" / "test" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


@pytest.mark.parametrize("name", ["1.png", "1.tif", "1.pgm"])
def test_16_bit_grey_is_divided_by_its_white(tmp_path: Path, name: str) -> None:
    levels = np.array([[0, 1, 128, 129], [257, 1000, 32768, 65535]], dtype=np.uint16)
    path = place(tmp_path, name)
    if name == "1.pgm":
        path.write_bytes(b"P5 4 2 65535\n" + levels.astype(">u2").tobytes())
    else:
        Image.fromarray(levels).save(path)
    found = one(tmp_path, channels=1)[0]
    assert torch.equal(found * 255, (found * 255).round()), "every image lies on the 8-bit grid"
    exact = torch.from_numpy(levels.astype(np.float64) / 65535)
    assert (found.double() - exact).abs().max() <= 0.5 / 255 + 1e-7
    assert found[1, 3] == 1
    assert torch.equal(one(tmp_path), found.expand(3, 2, 4))


def test_16_bit_grey_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    exif = image.getexif()
    exif[274] = 6  # to be turned a quarter clockwise
    image.save(place(tmp_path), exif=exif)
    assert one(tmp_path, channels=1)[0].tolist() == [[0.0], [1.0]]


def _sixteen_bit_colour(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG of 16 bits a channel, which Pillow can read but not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_16_bit_colour_keeps_the_upper_byte(tmp_path: Path) -> None:
    pixels = np.array([[[0, 255, 256], [0x80FF, 0xFF00, 0xFFFF]]], dtype=np.uint16)
    _sixteen_bit_colour(place(tmp_path), pixels)
    expected = torch.from_numpy((pixels >> 8).astype(np.float32)).permute(2, 0, 1) / 255
    assert torch.equal(one(tmp_path), expected)


@pytest.mark.parametrize("kind", ["float", "32 bits", "12 bits", "transparent level", "0 is white"])
def test_depths_without_a_known_white_are_refused(tmp_path: Path, kind: str) -> None:
    if kind == "float":
        Image.fromarray(np.ones((2, 2), np.float32)).save(place(tmp_path, "1.tif"))
    elif kind == "32 bits":
        Image.fromarray(np.ones((2, 2), np.int32)).save(place(tmp_path, "1.tif"))
    elif kind == "12 bits":
        content = struct.pack("<2sHIH", b"II", 42, 8, 8)
        entries = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 110), (278, 1), (279, 3)]
        content += b"".join(
            struct.pack("<HHII", tag, 4 if tag == 273 else 3, 1, value) for tag, value in entries
        )
        place(tmp_path, "1.tif").write_bytes(content + struct.pack("<I", 0) + b"\xff\xf0\x00")
    elif kind == "0 is white":
        Image.fromarray(np.ones((2, 2), np.uint16)).save(place(tmp_path, "1.tif"), tiffinfo={262: 0})
    else:
        Image.fromarray(np.ones((2, 2), np.uint16)).save(place(tmp_path), transparency=1)
    with pytest.raises(
        UserError, match=r"own/test/a/1\.(png|tif) is neither an 8-bit nor a plain 16-bit image; save it"
    ):
        one(tmp_path)


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    colours = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], dtype=np.uint8)
    Image.fromarray(colours, "RGBA").save(place(tmp_path))
    share = 51 / 255
    mixed = [round(share * value + (1 - share) * 255) for value in (200, 100, 0)]
    expected = torch.tensor([[200, 100, 0], [255, 255, 255], mixed]).T[:, None] / 255
    assert torch.allclose(one(tmp_path), expected, atol=1.01 / 255)
    assert torch.equal(one(tmp_path)[:, :, :2], expected[:, :, :2])

    Image.fromarray(np.array([[[90, 255], [90, 0]]], dtype=np.uint8), "LA").save(place(tmp_path))
    assert torch.equal(one(tmp_path, channels=1), torch.tensor([[[90 / 255, 1.0]]]))

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    palette.save(place(tmp_path), transparency=1)
    assert torch.equal(one(tmp_path), torch.tensor([[10, 255], [20, 255], [30, 255]])[:, None] / 255)
    palette.save(place(tmp_path))
    assert torch.equal(one(tmp_path), torch.tensor([[10, 40], [20, 50], [30, 60]])[:, None] / 255)

    Image.new("RGB", (1, 1), (1, 2, 3)).save(place(tmp_path), transparency=(1, 2, 3))
    assert one(tmp_path).min() == 1


def test_one_bit_and_cmyk(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(place(tmp_path))
    assert one(tmp_path, channels=1).tolist() == [[[1.0, 0.0]]]
    place(tmp_path).unlink()
    for ink, expected in (((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0)):
        Image.new("CMYK", (8, 8), ink).save(place(tmp_path, "1.jpg"), quality=100)
        assert torch.allclose(one(tmp_path), torch.tensor(expected / 255), atol=2 / 255)


@pytest.mark.parametrize(
    ("orientation", "rows"),
    [
        (1, ["abc", "def"]), (2, ["cba", "fed"]), (3, ["fed", "cba"]), (4, ["def", "abc"]),
        (5, ["ad", "be", "cf"]), (6, ["da", "eb", "fc"]), (7, ["fc", "eb", "da"]), (8, ["cf", "be", "ad"]),
    ],
)  # fmt: skip
def test_exif_turns_and_mirrors_the_pixels(tmp_path: Path, orientation: int, rows: list[str]) -> None:
    image = Image.frombytes("L", (3, 2), b"abcdef")
    exif = image.getexif()
    exif[274] = orientation
    image.save(place(tmp_path), exif=exif)
    assert (one(tmp_path, channels=1)[0] * 255).round().tolist() == [[*map(ord, row)] for row in rows]


@pytest.mark.parametrize("mode", ["LAB", "YCbCr"])
def test_other_colour_spaces_become_rgb(tmp_path: Path, mode: str) -> None:
    colours = Image.fromarray(np.array([[[200, 100, 0], [30, 60, 250], [255] * 3]], dtype=np.uint8))
    if mode == "LAB":
        srgb, lab = map(ImageCms.createProfile, ("sRGB", "LAB"))
        ImageCms.profileToProfile(colours, srgb, lab, outputMode="LAB").save(place(tmp_path, "1.tif"))
    else:
        colours.convert(mode).save(place(tmp_path, "1.tif"))
        try:
            Image.open(place(tmp_path, "1.tif")).load()
        except OSError:
            pytest.skip("Pillow before 13 cannot read the YCbCr that it writes")
    assert np.abs(one(tmp_path).permute(1, 2, 0).numpy() * 255 - np.asarray(colours, float)).max() < 10


@pytest.mark.parametrize("name", ["1.gif", "1.png", "1.webp", "1.tiff"])
def test_the_first_picture_of_an_animation_is_taken(tmp_path: Path, name: str) -> None:
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("white", "black"))
    first.save(place(tmp_path, name), save_all=True, append_images=[second])
    assert one(tmp_path).min() == 1


def test_odd_names_are_read_and_told_in_one_line(tmp_path: Path) -> None:
    names = ["a b.PNG", "ü²-١.png", "line\nbreak.png", "1.tar.png", "'q\".png"]
    for seed, name in enumerate(names):
        write(place(tmp_path, name), seed)
    assert len(data.load("folder", tmp_path / "own").stack()[0]) == len(names)
    for name in names:
        place(tmp_path, name).write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        data.load("folder", tmp_path / "own").verify()
    assert "\n" not in str(caught.value)
    assert "line?break.png" in str(caught.value)


def test_unreadable_files_are_told_all_at_once(tmp_path: Path) -> None:
    root = make(tmp_path / "own", {"test": 8})
    for number in range(7):
        (root / "test" / "cat" / f"{number}.png").write_bytes(b"no image")
    for number in range(1, 6):
        (root / "test" / "dog" / f"{number}.png").write_bytes(b"no image")
    images = data.load("folder", root)
    for action in (images.verify, images.stack):
        with pytest.raises(UnreadableFiles) as caught:
            action()
        line = str(caught.value)
        assert line.startswith(
            "12 image files cannot be read, replace or remove them: own/test/cat/0.png, own/"
        )
        assert (
            "own/test/dog/3.png and 2 more (of the first: own/test/cat/0.png is corrupt or no image" in line
        )
        assert "\n" not in line
        assert len(caught.value.reasons) == 12


def test_files_that_are_no_images_by_their_name_are_told_together(tmp_path: Path) -> None:
    root = make(tmp_path / "own", {"test": 2})
    for name in ("cat", "dog"):
        (root / "test" / name / "notes.txt").touch()
    with pytest.raises(UserError, match=r"own/test/cat/notes.txt, own/test/dog/notes.txt are no image files"):
        data.load("folder", root)


@pytest.mark.parametrize("parts", [{"train": 20, "test": 5}, {"": 30}])
def test_only_the_folders_of_the_classes_asked_for_are_looked_into(
    tmp_path: Path, parts: dict[str, int]
) -> None:
    root = make(tmp_path / "own", parts, ("a", "b", "c", "d"))
    chosen = {
        split: data.load("folder", root, split, classes=["d", "b"])
        for split in ("train", "validation", "test")
    }
    before = {split: (images.fingerprint, sorted(files(images))) for split, images in chosen.items()}
    subset = data.load("folder", root, "train", classes=[3, 1], n=7, seed=2).fingerprint
    for split, (fingerprint, _) in before.items():
        assert data.load("folder", root, split).select(["d", "b"]).fingerprint == fingerprint
    assert data.load("folder", root, "train").select([3, 1]).subset(7, 2).fingerprint == subset
    for part in parts:
        for name in ("a", "c"):
            (root / part / name / "notes.txt").touch()
            (root / part / name / "0.png").write_bytes(b"no image")
    after = {split: data.load("folder", root, split, classes=["d", "b"]) for split in chosen}
    assert {split: (images.fingerprint, sorted(files(images))) for split, images in after.items()} == before
    assert data.load("folder", root, "train", classes=[3, 1], n=7, seed=2).fingerprint == subset
    with pytest.raises(UserError, match=r"notes\.txt"):
        data.load("folder", root, "test", classes=["a"])
    with pytest.raises(UserError, match="no class 'e'; its classes are a, b, c, d"):
        data.load("folder", root, "test", classes=["e", "a-missing"])


def test_only_the_synsets_asked_for_are_looked_into(tmp_path: Path) -> None:
    for number, synset in enumerate(("n01440764", "n01443537")):
        write(tmp_path / "val" / synset / "a.png", number)
    (tmp_path / "val" / "n01440764" / "notes.txt").touch()
    assert data.load("imagenet", tmp_path, classes=["goldfish"]).labels.tolist() == [0]
    assert data.load("imagenet", tmp_path, classes=[1]).labels.tolist() == [0]
    with pytest.raises(UserError, match=r"notes\.txt"):
        data.load("imagenet", tmp_path)


def test_mixed_sizes_need_a_size(tmp_path: Path) -> None:
    root = make(tmp_path / "own", {"test": 2})
    write(root / "test" / "dog" / "7.png", size=(20, 20))
    with pytest.raises(UserError, match=r"differ in shape.*give a size"):
        data.load("folder", root).stack()
    assert data.load("folder", root, size=8).stack()[0].shape == (5, 3, 8, 8)


def test_fingerprint_is_of_content_not_place(tmp_path: Path) -> None:
    images = [data.load("folder", make(tmp_path / name, {"test": 3})) for name in ("one", "two")]
    assert images[0].fingerprint == images[1].fingerprint
    write(tmp_path / "two" / "test" / "cat" / "1.png", seed=77777)
    assert images[0].fingerprint != data.load("folder", tmp_path / "two").fingerprint


def test_covering_keeps_the_aspect_ratio(tmp_path: Path) -> None:
    canvas = np.zeros((40, 80, 3), np.uint8)
    canvas[10:30, 30:50] = 255
    (tmp_path / "test" / "a").mkdir(parents=True)
    Image.fromarray(canvas).save(tmp_path / "test" / "a" / "1.png")
    image, _ = data.load("folder", tmp_path, size=20)[0]
    bright = image[0] > 0.5
    assert torch.equal(bright.any(0), torch.isin(torch.arange(20), torch.arange(5, 15)))
    assert torch.equal(bright.any(1), torch.isin(torch.arange(20), torch.arange(5, 15)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")), st.integers(0, 10_000), st.data())
def test_damaged_bytes_never_give_another_error(
    tmp_path: Path, kind: str, seed: int, draw: st.DataObject
) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(
        stream, kind
    )
    content = bytearray(stream.getvalue())
    for _ in range(draw.draw(st.integers(1, 6))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    folder = tmp_path / "test" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1.png").write_bytes(content[: draw.draw(st.integers(0, len(content)))])
    with contextlib.suppress(UserError):
        assert data.load("folder", tmp_path, size=8).stack()[0].shape == (1, 3, 8, 8)
