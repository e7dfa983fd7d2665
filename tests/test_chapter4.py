"""Parameters of chapter 4, its figures, and a folder of photographs as it takes them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xaicore import data, figures
from xaicore.core.errors import UserError
from xaicore.run.params import P4Parameters


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigmas": [1.0, 0.5]}, "parameter sigmas: .* must rise by at least 0.1"),
        ({"sigmas": [0.5, 0.52]}, "parameter sigmas: .* must rise by at least 0.1"),
        ({"sigmas": "0, 1"}, "parameter sigmas: .* above 0"),
        ({"sigmas": [1.0]}, "parameter sigmas"),
        ({"sigma": -1}, "parameter sigma"),
        ({"preset": "deep-tailor"}, "parameter preset: there is no 'deep-tailor'"),
        ({"eps": "8/255, 2/255"}, "parameter eps: .* must rise"),
        ({"eps": [1.5]}, "parameter eps: .* above 0 and at most to 1"),
        ({"coverage": 0}, "parameter coverage"),
        ({"effort": 0}, "parameter effort"),
        ({"n_shown": 0}, "parameter n_shown"),
        ({"model": "vgg91"}, "parameter model: there is no 'vgg91'"),
    ],
)
def test_what_makes_no_sense_is_one_line(given, message):
    with pytest.raises(UserError, match=message):
        P4Parameters.check(given)


def test_fractions_and_lists_as_they_are_typed():
    params = P4Parameters.check({"eps": "2/255, 8/255", "sigmas": "0.5,1,2", "distance": "1/50"})
    assert params.eps == [2 / 255, 8 / 255]
    assert params.sigmas == [0.5, 1.0, 2.0]
    assert params.distance == 0.02


def test_a_table_of_pictures_shows_images_masks_and_gaps():
    image = torch.zeros(3, 8, 8)
    image[0] = 1.0
    mask = torch.ones(8, 8, dtype=torch.bool)
    figure = figures.picture_table([("one", [image, mask]), ("two", [None, mask])], ["image", "mask"])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["image", "mask"]
    shown = [drawn.get_array() for drawn in figure.axes[0].images]
    assert len(shown) == 3
    assert (shown[0][..., 0] == 1).all()
    assert shown[1].all()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_photograph_of_the_target_stands_beside_the_attacked_image():
    image, target, heat = torch.zeros(3, 8, 8), torch.ones(3, 8, 8), torch.linspace(-1, 1, 64).reshape(8, 8)
    rows = [("a\nas b", image, [heat]), ("b\nas a", target, [heat])]
    figure = figures.explanation_grid(rows, ["map"], image="attacked", beside=("target", [target, image]))
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles == ["attacked", "target", "map", "", "", ""]
    shown = [axes.images[0].get_array() for axes in figure.axes[:6]]
    assert [float(shown[k].mean()) for k in (0, 1, 3, 4)] == [0, 1, 1, 0]
    np.testing.assert_allclose(shown[2], heat)
    alone = figures.explanation_grid(rows, ["map"])
    assert [axes.get_title() for axes in alone.axes[:4]] == ["image", "map", "", ""]


def test_long_names_of_layers_break_where_they_have_a_joint():
    names = ["Mixed_6d.branch7x7dbl_4.conv", "layer4.0.conv1", "features.28"]
    maps = {name: [torch.rand(3, 3)] for name in names}
    figure = figures.shift_grid([torch.rand(1, 6, 6)], maps, ["clean"])
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes[:2]]
    assert labels == [["", "Mixed_6d.\nbranch7x7dbl\n_4.conv", "layer4.0.\nconv1"], ["", "features.28", ""]]


def test_curves_in_panels_keep_their_colours():
    x = np.arange(1.0, 4)
    one, two = (x, x / 4, np.stack([x / 5, x / 3], 1)), (x, x / 5, None)
    figure = figures.curve_panels(
        {"left": ("share", {"a": one, "b": two}), "right": ("share", {"b": two})}, xlabel="k", low=0, high=1
    )
    left, right = figure.axes
    colours = {line.get_label(): line.get_color() for line in left.lines}
    assert right.lines[0].get_color() == colours["b"] != colours["a"]
    assert left.get_ylim() == (0, 1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match="at most 7 labels"):
        figures.curve_panels({"t": ("y", {str(k): two for k in range(8)})}, xlabel="k")


def test_a_folder_with_one_photograph_of_a_class(tmp_path: Path) -> None:
    """The chapter takes such a folder whole: there is nothing to split, and labels are ImageNet's."""
    synsets = {index: name for name, index in data.embedded.imagenet_synsets().items()}
    for label in (7, 954):
        (tmp_path / synsets[label]).mkdir()
        Image.new("RGB", (80, 90), (label % 256, 0, 0)).save(tmp_path / synsets[label] / "1.png")
    photographs = data.load("imagenet", str(tmp_path), split="all", n=None, seed=0, size=64)
    images, labels = photographs.stack()
    assert images.shape == (2, 3, 64, 64)
    assert labels.tolist() == [7, 954]
    assert len(photographs.classes) == 1000
