"""Parameters of chapter 5, and its figures of detectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xaicore import data, detectors, figures
from xaicore.core.errors import UserError
from xaicore.figures.style import PALETTE
from xaicore.run.params import P5Parameters
from xaicore.run.params.chapter5 import EXPLANATIONS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"explanation": "smoothgrad"}, "parameter explanation: there is no 'smoothgrad'"),
        ({"explanations": ["smooth_ig", "lime"]}, "parameter explanations: there is no 'lime'"),
        ({"explanations": "smooth_ig,smooth_ig"}, "parameter explanations: .*twice"),
        ({"explanations": ["gradient"]}, "explanations must hold the detector's own, smooth_ig"),
        ({"explanations": []}, "parameter explanations"),
        ({"strengths": [1.0, 0.5]}, "parameter strengths: .* must rise"),
        ({"strengths": [0.8, 0.82]}, "parameter strengths: .* must rise by at least 0.1"),
        ({"strengths": [0.01, 1]}, "parameter strengths: .* at least 0.1"),
        ({"strength": 0}, "parameter strength"),
        ({"size": 27}, "parameter size: 27 is odd"),
        ({"channels": 2}, "parameter channels: 2 is neither 1 nor 3"),
        ({"fpr": 0}, "parameter fpr"),
        ({"fpr": 1}, "parameter fpr"),
        ({"eps": 1.5}, "parameter eps"),
        ({"patch_size": 0.9}, "parameter patch_size"),
        ({"photographs": "imagenet-21"}, "parameter photographs: there is no 'imagenet-21'"),
        ({"photograph_model": "lenet"}, "parameter photograph_model: there is no 'lenet'"),
        ({"n_attack": 3}, "unknown parameter 'n_attack'; did you mean 'n_attacked'"),
    ],
)
def test_what_makes_no_sense_is_one_line(given, message):
    with pytest.raises(UserError, match=message) as caught:
        P5Parameters.check(given)
    assert "\n" not in str(caught.value)


def test_parameters_as_they_are_typed():
    params = P5Parameters.check(
        {"eps": "8/255", "strengths": "1/2,1,2", "channels": "null", "explanations": "gradient,smooth_ig"}
    )
    assert params.eps == 8 / 255
    assert params.strengths == [0.5, 1.0, 2.0]
    assert params.channels is None
    assert params.explanations == ["gradient", "smooth_ig"]


def test_a_record_keeps_no_path():
    params = P5Parameters.check(
        {"photograph_weights": "/home/someone/resnet.pt", "data_root": "/home/someone/digits"}
    )
    assert "someone" not in str(params.recorded())
    assert params.recorded()["photograph_weights"] == "resnet.pt"


def test_the_explanations_are_those_of_the_detector():
    assert EXPLANATIONS == detectors.EXPLANATIONS


def test_own_images_in_grey_from_a_folder(tmp_path: Path) -> None:
    """What the chapter loads with ``-p dataset folder -p channels 1``: three splits of one folder, in one channel."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(20):
            Image.new("RGB", (32, 32), (number, 100, 200)).save(tmp_path / label / f"{number}.png")
    parts = {
        split: data.load("folder", str(tmp_path), split=split, size=28, channels=1).stack()[0]
        for split in ("train", "validation", "test")
    }
    assert {split: len(images) for split, images in parts.items()} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }
    assert all(images.shape[1:] == (1, 28, 28) for images in parts.values())


def test_maps_of_a_row_share_one_scale():
    weak, strong = torch.zeros(4, 4), torch.zeros(4, 4)
    weak[:2], strong[:2] = 1.0, -10.0
    image = torch.rand(1, 8, 8)
    figure = figures.denoising_grid([("one", image, weak, image, strong, 1.25, 2.5)])
    first, second = figure.axes[1], figure.axes[3]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-10.0, 10.0)
    assert "1.25 bits" in first.get_title()
    assert "2.50 bits" in second.get_title()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_boxes_show_medians_without_undefined_values_and_keep_colours():
    figure = figures.group_boxes(
        {
            "above": {"x": {"clean": np.array([1.0, 2, 9, np.nan]), "attacked": np.array([4.0, 5, 6])}},
            "below": {"x": {"attacked": np.array([3.0])}},
        },
        ylabel="bits",
    )
    above, below = figure.axes
    medians = [
        float(line.get_ydata()[0])
        for line in above.lines
        if line.get_color() == "black" and line.get_linewidth() == 1.6
    ]
    assert medians == [2.0, 5.0]
    assert len(above.patches) == 2
    assert above.patches[1].get_facecolor() == below.patches[0].get_facecolor()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["clean", "attacked"]
    with pytest.raises(ValueError, match="at most 7 labels"):
        figures.group_boxes(
            {"t": {"x": {str(k): np.zeros(2) for k in range(len(PALETTE) + 1)}}}, ylabel="bits"
        )


def test_planes_have_the_line_on_which_nothing_changes():
    points = np.array([[1.0, 2.0], [3.0, 3.0]])
    figure = figures.entropy_planes({"one": {"clean": points}, "two": {"clean": points + 4}})
    for axes in figure.axes[:2]:
        x, y = axes.lines[0].get_data()
        assert np.array_equal(x, y)
        assert min(x) < 1
        assert max(x) > 7
    assert np.array_equal(figure.axes[0].collections[0].get_offsets(), points)


def test_roc_curves_end_where_they_should():
    rates = np.array([0.0, 0.5, 1.0])
    figure = figures.roc_panels(
        {"one": {"a": (rates, rates), "b": (rates, rates**2)}, "two": {"b": (rates, rates)}}, mark=0.05
    )
    one, two = figure.axes[:2]
    colours = {line.get_label(): line.get_color() for line in one.lines}
    assert two.lines[1].get_color() == colours["b"] != colours["a"]
    assert one.lines[-1].get_xdata() == [0.05, 0.05]
    assert not figure.axes[2].get_visible()
