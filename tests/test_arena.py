"""Shifts, clusters and tables of the pages across the papers, against scikit-learn, SciPy and numbers by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

from xaicore import figures
from xaicore.studies import map_shift
from xaicore.studies.relevance_clusters import paired_agreement, rand_indices, relevance_clusters


def test_equal_maps_do_not_shift_and_zero_maps_are_undefined() -> None:
    maps = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0))
    for name, values in map_shift.map_shifts(maps, maps.clone()).items():
        assert values.abs().max() < 1e-6, name
    maps[1] = 0
    for name, values in map_shift.map_shifts(maps, maps + 0.1).items():
        assert values.isnan().tolist() == [False, True, False], name


def test_shifts_by_hand() -> None:
    """Two opposite maps of one bright pixel each, in different places, of 100."""
    before, after = torch.zeros(1, 10, 10), torch.zeros(1, 10, 10)
    before[0, 2, 2], after[0, 7, 7] = 1.0, -1.0
    found = {name: float(values) for name, values in map_shift.map_shifts(before, after).items()}
    ranks = spearmanr(before.flatten(), after.flatten()).statistic
    assert found["1 − cosine"] == pytest.approx(1)
    assert found["1 − rank"] == pytest.approx(1 - ranks, abs=1e-6)
    assert found["1 − IoU"] == 1
    assert found["|Δ entropy|"] == pytest.approx(0, abs=1e-9)


def test_agreement_is_spearmans_within_a_case() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=30), generator.normal(size=30)
    second[4] = np.nan
    cases = np.repeat([0, 1], [10, 20])
    expected = (
        9 * spearmanr(np.delete(first[:10], 4), np.delete(second[:10], 4)).statistic
        + 20 * spearmanr(first[10:], second[10:]).statistic
    ) / 29
    matrix = map_shift.agreement({"a": first, "b": second + 5 * cases}, cases)
    assert matrix[0, 1] == pytest.approx(expected)
    assert (matrix.diagonal() == 1).all()
    assert np.isnan(map_shift.agreement({"a": first, "b": np.ones(30)}, cases)[0, 1])


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_rand_indices_are_scikit_learns(seed: int) -> None:
    generator = np.random.default_rng(seed)
    clusters = np.concatenate([np.arange(4), generator.integers(0, 4, 20)])
    groups = generator.random((3, 24)) < 0.4
    groups[:, 0], groups[:, 1] = True, False
    expected = [adjusted_rand_score(each, clusters) for each in groups]
    np.testing.assert_allclose(rand_indices(clusters, groups), expected, atol=1e-12)


def test_planted_clusters_are_found() -> None:
    """Three kinds of maps, each bright in a place of its own, with noise."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(60) % 3
    maps = 0.2 * torch.randn(60, 28, 28, generator=generator)
    for kind in range(3):
        maps[kinds == kind, 8 * kind : 8 * kind + 8, 4:24] += 1
    found = relevance_clusters(maps, seed=0)
    assert found.number == 3
    assert adjusted_rand_score(kinds.numpy(), found.labels) == 1
    assert (np.diff(found.eigenvalues) >= -1e-12).all()
    again = relevance_clusters(5 * maps[:, None], seed=0)
    assert (again.labels == found.labels).all(), "maps count by their direction, not by their size"


def test_what_both_versions_share_is_no_agreement() -> None:
    """Clusters by class hold the two versions of an image together: no exchange changes anything."""
    classes = np.arange(30) % 5
    second = np.arange(60) >= 30
    test = paired_agreement(np.concatenate([classes, classes]), second)
    assert test.rand < 0
    assert test.p_value == 1
    perfect = paired_agreement(second.astype(np.int64), second, permutations=199)
    assert perfect.rand == 1
    assert perfect.p_value == pytest.approx(1 / 200)


def test_the_paired_null_is_kept() -> None:
    generator = np.random.default_rng(1)
    second = np.arange(40) >= 20
    p_values = [
        paired_agreement(generator.integers(0, 3, 40), second, permutations=99, seed=k).p_value
        for k in range(200)
    ]
    assert np.mean(np.array(p_values) <= 0.05) < 0.1
    assert 0.35 < np.mean(np.array(p_values) <= 0.5) < 0.65


def test_wrong_arguments_of_clusters() -> None:
    with pytest.raises(ValueError, match="N of at least 4"):
        relevance_clusters(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="most at least 2"):
        relevance_clusters(torch.rand(8, 8, 8), most=1)
    with pytest.raises(ValueError, match="first half"):
        paired_agreement(np.zeros(4, dtype=np.int64), np.array([False, True, False, True]))


def test_arena_table() -> None:
    rows = {"a": {"x": 0.1, "y": 1.0}, "b": {"x": 0.5, "y": float("nan")}}
    figure = figures.arena_table(
        {"one": rows, "two": {"c": {"x": 0.9, "y": 0.0}}}, label="AUROC", ruled=["y"], framed=[("c", "x")]
    )
    axes = figure.axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["0.10", "1.00", "0.50", "0.90", "0.00"], "an undefined cell is empty"
    assert [text.get_color() for text in axes.texts] == ["white", "white", "black", "white", "white"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert figure.axes[1].get_ylabel() == "AUROC"
    with pytest.raises(ValueError, match="a row twice"):
        figures.arena_table({"one": rows, "two": rows}, label="")
    with pytest.raises(ValueError, match="same columns"):
        figures.arena_table({"one": {**rows, "c": {"x": 0.0}}}, label="")
