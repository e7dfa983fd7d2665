"""The authors' pictures: made ones of known maps, read, inverted and counted."""

import json

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from xaicore.core.errors import UserError
from xaicore.metrics import proportion_ci
from xaicore.studies import authors_pictures

LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1")


def _save(folder, name, levels):
    folder.mkdir(parents=True, exist_ok=True)
    colours = (255 * mpl.colormaps["jet"](levels)[..., :3]).round().astype(np.uint8)
    Image.fromarray(np.kron(colours, np.ones((4, 4, 1), np.uint8))).save(folder / f"{name}_heatmap.png")


@pytest.fixture
def root(tmp_path):
    """Two seeds; three examples, whose maps are the seed's but for the last layer's, which is another."""
    rng = np.random.default_rng(0)
    base, maps = tmp_path / authors_pictures.FOLDER, {}
    for seed in (55, 227):
        for layer in LAYERS:
            maps[seed, layer] = rng.integers(0, 256, (6, 6), dtype=np.uint8)
            name = f"ILSVRC2012_test_{seed:08d}"
            _save(base / "heatmaps" / "clean" / name, f"{name}_{layer}", maps[seed, layer])
    for number, seed in enumerate((55, 227, 227)):
        for layer in LAYERS:
            heat = maps[seed, layer] if layer != LAYERS[-1] else rng.integers(0, 256, (6, 6), dtype=np.uint8)
            maps[number, layer] = heat
            _save(base / "heatmaps" / f"06{number:02d}", f"{seed:08d}_ibex_goat_1_{layer}", heat)
    (base / "coverage").mkdir()
    growth = np.linspace(0.1, 0.4, 20)
    normal = {"0.25": (growth + 0.01).tolist(), "1": (growth + 0.03).tolist()}
    random = {name: [*growth, *np.full(80, 0.45)] for name in normal}
    for side, values in (("normal", normal), ("random", random)):
        text = json.dumps({name: list(map(float, each)) for name, each in values.items()})
        (base / "coverage" / f"dlfuzz_{side}.json").write_text(text)
    return tmp_path, maps


def test_maps_are_inverted_and_examples_belong_to_their_seeds(root):
    folder, maps = root
    found = authors_pictures.read(folder)
    assert found.layers == LAYERS
    assert found.seeds.tolist() == [55, 227, 227]
    assert found.maps[:, :2] == pytest.approx(1)
    assert found.pictures[:, :2] == pytest.approx(1)
    one, other = (maps[key, LAYERS[-1]].astype(float).ravel() for key in (227, 2))
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert found.maps[2, 2] == pytest.approx(expected, abs=0.01)  # jet has few colours alike at its ends


def test_intervals_draw_seeds(root):
    found = authors_pictures.read(root[0])
    depth, order, lowest = authors_pictures.quantities(found, found.maps, n_resamples=50)
    assert depth.n == 2
    assert depth.value < 0
    assert order[2].value == 1
    assert [each.value for each in lowest] == [0, 0, 1]
    assert lowest[0][1:3] == proportion_ci(0, 2)  # no width by the bootstrap
    grouped = authors_pictures.by_seed(found.seeds, found.maps)
    assert grouped.shape == (2, 2, 3)
    assert np.isnan(grouped[0, 1]).all()


def test_coverage_is_compared_at_one_strength_and_with_all_up_to_it(root):
    gaps = authors_pictures.coverage_gaps(authors_pictures.read(root[0]).coverage)
    assert gaps == pytest.approx(
        (3, 1, 43 - 45)
    )  # 20 entries at 0.25 and 20 at 1: the random side is at 0.45


def test_what_is_missing_is_told(root, tmp_path):
    with pytest.raises(UserError, match="there is no folder p3-authors"):
        authors_pictures.read(tmp_path / "nothing")
    next((root[0] / authors_pictures.FOLDER / "heatmaps" / "0600").iterdir()).unlink()
    with pytest.raises(UserError, match="incomplete"):
        authors_pictures.read(root[0])
