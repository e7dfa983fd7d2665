"""Parameters of chapter 4, its figures, and a folder of photographs as it takes them."""

import numpy as np
import pytest
import torch

from xaicore import figures


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
