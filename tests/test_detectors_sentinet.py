"""SentiNet on a network whose regions, fooled carriers and confidences are worked by hand."""

import pytest
import torch
from torch import Tensor, nn

from xaicore.core.errors import UserError
from xaicore.detectors import SentiNet


def network() -> nn.Sequential:
    """Two classes of its own for what is bright: the corner of 2 x 2 pixels, which counts more, and the right half."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    weight = torch.zeros(3, 8, 8)
    weight[1, :2, :2], weight[2, :, 4:] = 4, 0.25
    with torch.no_grad():
        model[0].weight.fill_(1), model[0].bias.zero_()
        model[3].weight.copy_(weight.flatten(1)), model[3].bias.copy_(torch.tensor([2.0, 0, 0]))
    return model.eval()


def image(corner: float = 0, right: float = 0) -> Tensor:
    drawn = torch.zeros(1, 8, 8)
    drawn[:, :2, :2], drawn[:, :, 4:] = corner, right
    return drawn


DARK, CORNER, RIGHT = image(), image(corner=1), image(right=1)


def fitted(*carriers: Tensor, proposals: int = 0) -> SentiNet:
    clean = torch.stack(carriers)
    return SentiNet(network(), proposals=proposals).fit(clean, clean)


def test_a_region_that_carries_its_answer_fools_every_carrier():
    detector = fitted(DARK, RIGHT)
    ((fooled, confidence),) = detector.points(CORNER[None])[0]
    assert fooled == 1
    noise = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))[:, :2, :2]
    covered = torch.stack([DARK, RIGHT])
    covered[:, :, :2, :2] = noise
    expected = network()(covered).double().softmax(1).amax(1).mean()
    torch.testing.assert_close(confidence, expected.detach())
    assert detector.score(CORNER[None]).item() == pytest.approx(1 + confidence.item())


def test_carriers_that_have_the_answer_already_do_not_count():
    detector = fitted(
        DARK, RIGHT, CORNER
    )  # of the two others, the corner counts more than the half pasted on it
    assert detector.points(RIGHT[None])[0, 0, 0] == 0.5


def test_regions_are_where_the_map_is_high_and_without_those_of_the_next_class():
    both = image(corner=1, right=0.6)
    regions, answers = fitted(DARK, RIGHT, proposals=1).regions(torch.stack([both, CORNER]))
    assert answers.tolist() == [1, 1]
    assert torch.equal(regions[0, 0], both[0] > 0)
    assert not regions[0, 1].any()  # the map of the other class is high in the same places
    assert torch.equal(regions[1, 0], CORNER[0] > 0)
    assert torch.equal(
        regions[1, 1], CORNER[0] > 0
    )  # the gradient of the class of nothing is 0: no map, nothing taken


def test_an_image_without_a_map_is_not_suspicious():
    assert fitted(DARK, RIGHT).score(DARK[None]).tolist() == [0.0]


def test_carriers_of_one_answer_are_refused():
    with pytest.raises(UserError, match="at least two of the network's answers"):
        fitted(DARK, DARK)
