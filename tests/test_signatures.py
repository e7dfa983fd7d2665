"""Signatures are unit vectors, their map is repeatable, and a classifier on them finds what is there."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from xaicore.attribution import signatures
from xaicore.studies.signatures import classify, embed, evened


def test_a_signature_tells_where_and_not_how_much() -> None:
    maps = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    points = signatures(maps)
    assert points.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(signatures(7.5 * maps), points, atol=1e-6)
    np.testing.assert_allclose(signatures(maps.sum(dim=1)), points, atol=1e-6)


def test_a_zero_map_stays_zero() -> None:
    assert not signatures(torch.zeros(1, 1, 2, 2)).any()


def test_evened_values_compare_within_classes() -> None:
    draws = np.random.default_rng(0)
    classes = [np.repeat([0, 1], of) for of in ((10, 90), (80, 20))]
    groups = [50 * of + draws.normal(size=len(of)) for of in classes]
    one, other = map(evened, groups, classes)
    within = [a[of == k].mean() for a, of in zip(groups, classes, strict=True) for k in (0, 1)]
    np.testing.assert_allclose(one.mean() - other.mean(), np.mean(within[:2]) - np.mean(within[2:]))
    assert abs(one.mean() - other.mean()) < 1 < groups[0].mean() - groups[1].mean()
    stratified = [groups[0][classes[0] == k].var() / (4 * (classes[0] == k).sum()) for k in (0, 1)]
    np.testing.assert_allclose(one.var() / len(one), sum(stratified))


def test_embedding_is_repeatable_and_keeps_far_groups_apart() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat([0, 1], 20)
    points = (generator.normal(size=(40, 6)) + 20 * groups[:, None]).astype(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plane = embed(points, neighbors=5, seed=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(plane, embed(points, neighbors=5, seed=1))
    within = max(
        np.linalg.norm(plane[groups == k] - plane[groups == k].mean(0), axis=1).mean() for k in (0, 1)
    )
    between = np.linalg.norm(plane[groups == 0].mean(0) - plane[groups == 1].mean(0))
    assert between > within


def test_classifier_finds_separable_kinds_and_nothing_in_noise() -> None:
    generator = np.random.default_rng(0)
    kinds = np.arange(120) % 3
    points = generator.normal(size=(120, 5)).astype(np.float32)
    shifted = points + 4 * np.eye(5, dtype=np.float32)[kinds]
    assert (classify(shifted[:90], kinds[:90], shifted[90:]) == kinds[90:]).mean() > 0.9
    assert (classify(points[:90], kinds[:90], points[90:]) == kinds[90:]).mean() < 0.7


@pytest.mark.parametrize("constant", [False, True])
def test_the_classifier_is_that_of_scikit_learn(constant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xaicore.studies.signatures.AT_ONCE", 64)
    generator = np.random.default_rng(3)
    kinds = np.repeat([0, 1, 2], [200, 90, 10])
    points = (
        generator.normal(size=(len(kinds), 12)).astype(np.float32) + 0.6 * np.eye(12, dtype=np.float32)[kinds]
    )
    held_out = generator.normal(size=(150, 12)).astype(np.float32)
    if constant:
        points[:, 5:] = held_out[:, 5:] = 0.25
    reference = make_pipeline(StandardScaler(), SVC(class_weight="balanced", random_state=0)).fit(
        points, kinds
    )
    np.testing.assert_array_equal(classify(points, kinds, held_out), reference.predict(held_out))


@pytest.mark.parametrize("bad", [torch.zeros(2, 3), torch.full((1, 1, 2, 2), torch.nan)])
def test_bad_relevance_is_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="relevance"):
        signatures(bad)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="points"):
        embed(np.zeros((3, 2), dtype=np.float32))
