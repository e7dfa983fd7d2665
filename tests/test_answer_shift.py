"""MOD taken apart by kept and changed answers, against loops and values worked out by hand; networks made narrower."""

import numpy as np
import pytest
import torch
from scipy.stats import linregress, spearmanr

from xaicore import attribution, figures, metrics, models
from xaicore.core.errors import UserError
from xaicore.metrics import shift
from xaicore.run.engine import LocalEngine
from xaicore.run.store import Store
from xaicore.studies import answer_shift, layer_depth
from xaicore.studies.narrow_networks import narrowed

NAN = float("nan")


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def engine(tmp_path):
    return LocalEngine(Store(tmp_path), workers=1)


def nissim_of(model, layer, first, first_class, second, second_class):
    """NISSIM of two maps, one image at a time."""
    maps = []
    for image, label in ((first, first_class), (second, second_class)):
        found = attribution.grad_cam(model, image[None], torch.tensor([label]), layers=[layer])[layer]
        if not found.any():
            return NAN
        maps.append(shift.comparable(found, (28, 28)))
    return metrics.nissim(*maps).item()


def test_the_class_alone_is_the_clean_image_with_two_classes(model, images, engine) -> None:
    layer = shift.deepest_layer(model, images, 3)
    before = torch.tensor([0, 1, 2, 3, 0])
    after = torch.tensor([[0, 1], [2, 2], [2, 2], [0, 1], [3, 0]])
    found = answer_shift.class_shift(engine, model, images, before, after, layer=layer, step="class alone")
    assert found.shape == (5, 2)
    for i in range(5):
        for v in range(2):
            if before[i] == after[i, v]:
                assert np.isnan(found[i, v])
            else:
                hand = nissim_of(model, layer, images[i], int(before[i]), images[i], int(after[i, v]))
                assert found[i, v] == pytest.approx(hand, abs=1e-6, nan_ok=True)
    unchanged = answer_shift.class_shift(
        engine, model, images, before, before[:, None], layer=layer, step="class alone"
    )
    assert np.isnan(unchanged).all()


def test_what_a_network_makes_of_versions_is_worked_out_image_by_image(images, engine) -> None:
    model = models.load("small_cnn", classes=4, channels=1, input_size=28, seed=3)
    head = list(model.network.modules())[-1]
    head.bias.data -= models.predict(model, images).mean(0)  # else it answers every image the same
    layer, generator = shift.deepest_layer(model, images, 3), torch.Generator().manual_seed(1)
    noise = torch.rand(5, 2, 1, 28, 28, generator=generator)
    given = {
        "half": (images[:, None] + 0.5 * noise).clamp(0, 1),
        "full": torch.stack([1 - images, images / 9], 1),
    }
    found = answer_shift.seen(engine, model, images, given, layer=layer, title="a network", held=["full"])
    assert list(found) == ["half", "full"]
    assert found["half"].held is None
    before = models.predict(model, images).argmax(1).tolist()
    assert any(each.changed.any() for each in found.values())
    for kind, each in found.items():
        classes = models.predict(model, given[kind].flatten(0, 1)).argmax(1).view(5, 2)
        assert torch.equal(each.answer, classes)
        for i in range(5):
            for v in range(2):
                clean, then, now = before[i], int(classes[i, v]), given[kind][i, v]
                assert each.changed[i, v] == (clean != then)
                pairs = {"shift": (now, then)}
                pairs |= {"alone": (images[i], then)} if clean != then else {}
                pairs |= {"held": (now, clean)} if kind == "full" else {}
                for name, (image, label) in pairs.items():
                    hand = nissim_of(model, layer, images[i], clean, image, label)
                    assert getattr(each, name)[i, v] == pytest.approx(hand, abs=1e-6, nan_ok=True), name
                if clean == then:
                    assert np.isnan(each.alone[i, v])


def test_what_an_attack_does_beyond_the_answer_by_hand() -> None:
    def seen(answer, moved, alone):
        answer = torch.tensor([answer])
        return answer_shift.Seen(
            answer, (answer != 1).numpy(), *(np.array([each]) for each in (moved, alone, moved))
        )

    first, second = seen([1, 2], [0.2, 0.5], [NAN, 0.4]), seen([1, 1], [0.3, 0.1], [NAN, NAN])
    noise = answer_shift.pooled([seen([1, 0], [0.1, 0.7], [NAN, 0.6])], torch.tensor([1]))
    attacked = answer_shift.pooled([first, second], torch.tensor([1]))
    assert attacked.right.tolist() == [[[1, 0], [1, 1]]]
    assert attacked.changed.tolist() == [[[0, 1], [0, 0]]]
    found = answer_shift.beyond_answer(attacked, noise)
    # Noise changes the answer at the second size, so nothing is paired there.
    np.testing.assert_allclose(found["kept"], [[[0.1, NAN], [0.2, NAN]]])
    np.testing.assert_allclose(found["changed"], [[[NAN, 0.1], [NAN, NAN]]])


def test_two_people_are_each_image_and_another_person_far_off(model, images, engine) -> None:
    layer = shift.deepest_layer(model, images, 3)
    labels = torch.tensor([0, 0, 1, 1, 0])
    found = answer_shift.between_people(engine, model, images, labels, layer=layer, step="two people")
    classes = models.predict(model, images).argmax(1).tolist()
    assert answer_shift.another(labels).tolist() == [2, 3, 4, 0, 2]
    for i, j in enumerate((2, 3, 4, 0, 2)):
        hand = nissim_of(model, layer, images[i], classes[i], images[j], classes[j])
        assert found[i] == pytest.approx(hand, abs=1e-6, nan_ok=True)


def test_regions_are_measured_on_each_map(model, images) -> None:
    layer = shift.deepest_layer(model, images, 3)
    versions = torch.stack([images, (images + 0.3).clamp(0, 1)], 1)
    classes = torch.zeros(5, 2, dtype=torch.int64)
    found = answer_shift.regions(model, versions, classes, layer)
    for i in range(5):
        drawn = [
            shift.comparable(
                attribution.grad_cam(model, versions[i, v][None], classes[i, v][None], layers=[layer])[layer],
                (28, 28),
            )[0]
            .double()
            .numpy()
            for v in range(2)
        ]
        for v, heat in enumerate(drawn):
            if not heat.any():
                assert np.isnan([part[i, v] for part in found]).all()
                continue
            assert found.area[i, v] == pytest.approx((heat > 0.5).mean())
            assert found.middle[i, v] == pytest.approx(heat[7:21, 7:21].sum() / heat.sum(), abs=1e-6)
            if drawn[0].any():
                rank = spearmanr(drawn[0].ravel(), heat.ravel()).statistic
                assert found.rank[i, v] == pytest.approx(rank, abs=1e-6)
    assert np.isfinite(found.area).any()


def test_shifts_go_where_the_answer_did() -> None:
    shifts, changed = np.array([[0.1, 0.2], [0.3, NAN]]), np.array([[False, True], [True, False]])
    found = answer_shift.split_by_answer(shifts, changed)
    np.testing.assert_array_equal(found["kept"], [[0.1, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(found["changed"], [[NAN, 0.2], [0.3, NAN]])


def test_the_regression_is_that_of_the_means_of_cells() -> None:
    generator = np.random.default_rng(0)
    changed = (generator.random((40, 12)) < np.linspace(0.1, 0.9, 12)).astype(float)
    shifts = 0.05 + 0.3 * changed + 0.1 * generator.random((40, 12))
    shifts[0, 0] = NAN
    share = np.array([changed[np.isfinite(shifts[:, k]), k].mean() for k in range(12)])
    line = linregress(share, np.nanmean(shifts, 0))
    found = answer_shift.answer_regression(shifts, changed)
    np.testing.assert_allclose(found, [line.intercept, line.slope, line.rvalue**2], rtol=1e-9)
    assert np.isnan(answer_shift.answer_regression(shifts, np.ones_like(changed))).all()
    assert np.isnan(answer_shift.answer_regression(shifts[:, :2], changed[:, :2])).all()


def test_two_regressions_are_those_of_each_and_their_difference() -> None:
    generator = np.random.default_rng(1)
    changed = (generator.random((40, 12)) < np.linspace(0.1, 0.9, 12)).astype(float)
    shifts, held = 0.3 * changed + 0.1 * generator.random((40, 12)), generator.random((40, 12))
    found = answer_shift.answer_regressions(shifts, held, changed)
    np.testing.assert_allclose(found[:3], answer_shift.answer_regression(shifts, changed))
    np.testing.assert_allclose(found[3:6], answer_shift.answer_regression(held, changed))
    assert found[6] == pytest.approx(found[2] - found[5])


def test_ranks_are_compared_within_a_column_only() -> None:
    scores = np.array([[0.1, 0.8], [0.2, 0.9], [0.3, 0.7]])
    events = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, NAN]])
    # In the first column the event lies above one of two; the second has no case without.
    assert answer_shift.separation_within(scores, events) == 0.5
    assert metrics.separation(scores, events) > 0.5
    assert np.isnan(answer_shift.separation_within(scores, np.zeros((3, 2))))


def test_regions_that_grow_shrink_leave_or_turn_round() -> None:
    area = np.array([[0.2, 0.26, 0.15], [0.2, 0.2, NAN]])
    middle = np.array([[0.5, 0.5, 0.3], [0.5, 0.45, NAN]])
    rank = np.array([[1.0, -0.4, -0.6], [1.0, -0.51, NAN]])
    found = answer_shift.region_events(answer_shift.Regions(area, middle, rank))
    np.testing.assert_array_equal(found["grows"], [[1, 0], [0, NAN]])
    np.testing.assert_array_equal(found["shrinks"], [[0, 1], [0, NAN]])
    np.testing.assert_array_equal(found["leaves"], [[0, 1], [0, NAN]])
    np.testing.assert_array_equal(found["inverted"], [[0, 1], [1, NAN]])


def test_what_is_left_with_the_class_held_counts_pairs_only() -> None:
    shifts = np.array([[0.4, 0.2], [NAN, 0.6], [0.4, 0.4]])
    held = np.array([[0.2, NAN], [0.9, 0.6], [0.4, 0.0]])
    assert answer_shift.share_left(shifts, held).value == pytest.approx(1.2 / 1.8)
    assert np.isnan(answer_shift.share_left(shifts * NAN, held).value)
    assert answer_shift.share_left(np.full((3, 2), 0.2), np.full((3, 2), 0.3)).value == pytest.approx(1.5)


def test_what_is_lost_is_of_what_was_right() -> None:
    right = np.zeros((20, 2, 3))
    right[:10, 0, 0] = right[:, 0, 1:] = (
        1  # the first network has half of the clean images right, the others all
    )
    right[:5, 1, 0] = right[:15, 1, 1:] = 1  # and keeps half of these, the others three in four
    assert answer_shift.lost_gap(right, 1, floor=0.1).value == pytest.approx(0.25)
    assert answer_shift.lost_gap(right, 1, floor=0.25) is None


def test_groups_are_compared_without_the_source() -> None:
    # Three networks, each the source in turn; the shift is the same throughout, so accuracies are compared as they are.
    right = np.zeros((4, 3, 3, 2))
    right[:, 0] = 1  # the first network is always right
    shifts = np.full(right.shape, 0.2)
    found = answer_shift.accuracy_at_equal_shift(right, shifts, first=[0, 1], second=[2])
    # Without network 0 the first group has network 1 alone; without network 2 the other group is empty.
    np.testing.assert_allclose(found, [0.0, 1.0, NAN])
    right[:, 2] = 1
    assert answer_shift.accuracy_at_equal_shift(right, shifts, first=[0, 1], second=[2])[0] == -1


def test_the_typical_image_has_the_median() -> None:
    assert answer_shift.typical([0.5, NAN, 0.1, 0.3, 0.9]) == 3
    assert answer_shift.typical([0.5, NAN]) == 0
    assert answer_shift.typical([NAN]) is None


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "xception"])
def test_a_narrow_network_has_its_layers_and_a_fraction_of_the_channels(name: str) -> None:
    whole = models.load(name, classes=5, channels=1, input_size=48)
    narrow = narrowed(whole, 0.25, seed=1)
    layers = [
        [(key, type(each)) for key, each in model.network.named_modules() if not list(each.children())]
        for model in (whole, narrow)
    ]
    assert layers[0] == layers[1]
    modules = [dict(model.network.named_modules()) for model in (whole, narrow)]
    for key, each in modules[0].items():
        if isinstance(each, torch.nn.Conv2d):
            assert modules[1][key].out_channels * 4 == each.out_channels
            assert modules[1][key].stride == each.stride
    images = torch.rand(2, 1, 48, 48)
    logits = narrow(images)
    assert logits.shape == (2, 5)
    assert torch.equal(logits, narrowed(whole, 0.25, seed=1)(images))
    assert not torch.equal(logits, narrowed(whole, 0.25, seed=2)(images))
    assert narrowed(whole, 1) is whole


def test_a_width_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="no whole number"):
        narrowed(models.load("xception", classes=5, channels=1, input_size=48), 0.3)


def test_layers_have_a_row_each_and_a_place_in_the_depth(model, images) -> None:
    versions = torch.stack([images, (images + 0.2).clamp(0, 1)], 1)
    found = shift.layer_shift(model, images, versions)
    cells = [9] * len(found.layers)
    cells[-1] = 1
    table = layer_depth.layer_table(found, cells, [0.01, 0.2])
    assert table["layer"].tolist() == list(found.layers)
    assert np.isnan(table["ε = 0.2"].iloc[-1])
    column = found.dissimilarity[:, 1, 0]
    assert table["ε = 0.2"][0] == pytest.approx(column.nanmean().item())
    both = torch.stack([0 * column, found.dissimilarity[:, 0, 0], column], 1)
    assert table["VID"][0] == pytest.approx(metrics.vid(both).nanmean().item())
    profile = layer_depth.by_tenths(table, "ε = 0.2")
    assert list(profile) == list(layer_depth.TENTHS)
    first = layer_depth.TENTHS[int(5 / len(table))]
    assert profile[first] == pytest.approx(table["ε = 0.2"][0], nan_ok=True)


def test_points_and_their_line_are_drawn() -> None:
    groups = {"a": (np.array([0.0, 50.0]), np.array([0.1, 0.3])), "b": (np.array([100.0]), np.array([NAN]))}
    axes = figures.fitted_points(groups, intercept=0.1, slope=0.004, xlabel="x (%)", ylabel="y").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    x, y = axes.lines[0].get_data()
    np.testing.assert_allclose(y, 0.1 + 0.004 * np.asarray(x))
    bare = figures.fitted_points(groups, intercept=NAN, slope=NAN, xlabel="x", ylabel="y").axes[0]
    assert not bare.lines
