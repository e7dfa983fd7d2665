"""Parameters of chapter 5, and its figures of detectors."""

import numpy as np
import pytest
import torch

from xaicore import detectors, figures
from xaicore.figures.style import PALETTE
from xaicore.run.params import P5Parameters
from xaicore.run.params.chapter5 import EXPLANATIONS


def test_a_record_keeps_no_path():
    params = P5Parameters.check(
        {"photograph_weights": "/home/someone/resnet.pt", "data_root": "/home/someone/digits"}
    )
    assert "someone" not in str(params.recorded())
    assert params.recorded()["photograph_weights"] == "resnet.pt"


def test_the_explanations_are_those_of_the_detector():
    assert EXPLANATIONS == detectors.EXPLANATIONS


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
