"""NDCG of predictions: worked by hand, against scikit-learn's and a plain loop, and its properties."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import ndcg_score
from torch import Tensor

from xaicore.metrics import ndcg, relevances

few = settings(max_examples=40, deadline=None)
# Softmax 1/2, 1/4, 1/8, 1/8: the logits are ln 4, ln 2, 0, 0, and the least one is 0 already.
REFERENCE = torch.tensor([[4.0, 2.0, 1.0, 1.0]], dtype=torch.float64).log()
# 0.8 takes in the first two: relevances ln 4 / (ln 4 + ln 2) = 2/3 and 1/3.
FIRST, SECOND = 2 ** (2 / 3) - 1, 2 ** (1 / 3) - 1
IDEAL = FIRST / math.log(2) + SECOND / math.log(3)


def prediction(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_relevances_by_hand() -> None:
    values, counts = relevances(REFERENCE, coverage=0.8)
    torch.testing.assert_close(values, torch.tensor([[2 / 3, 1 / 3, 0, 0]], dtype=torch.float64))
    assert counts.tolist() == [2]
    for shift, scale in ((5.0, 1), (-5.0, 1)):
        torch.testing.assert_close(relevances(scale * REFERENCE + shift, coverage=0.8).values, values)


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        ("all", [5 / 8, 3 / 8, 0]),
        ("graded", [1, 0, 0]),
        ("cut", [1, 0, 0]),
        ("probabilities", [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2)), 0]),
    ],
)
def test_four_readings_by_hand(reading: str, expected: list[float]) -> None:
    values, counts = relevances(torch.tensor([[2.0, 0.0, -3.0]]), coverage=0.995, reading=reading)
    assert counts.tolist() == [2]
    torch.testing.assert_close(values, torch.tensor([expected], dtype=torch.float64))


def test_with_no_negative_logit_among_the_graded_the_cut_reading_is_equation_3() -> None:
    logits = torch.tensor([[4.0, 3.0, 1.0, -9.0]], dtype=torch.float64)
    values, counts = relevances(logits, coverage=0.999999, reading="cut")
    assert counts.tolist() == [3]
    torch.testing.assert_close(values, torch.tensor([[0.5, 0.375, 0.125, 0]], dtype=torch.float64))
    lost = torch.tensor([[0.0, 5.0, 0.0, 0.0]], dtype=torch.float64)
    expected = (2**0.375 - 1) / (2**0.5 - 1)
    assert ndcg(logits, lost, coverage=0.999999, k=1, reading="cut").item() == pytest.approx(expected)


def test_graded_classes_without_a_logit_above_0_share_their_grade() -> None:
    values, counts = relevances(torch.tensor([[-1.0, -1.5, -9.0]]), coverage=0.9998, reading="cut")
    assert (values.tolist(), counts.tolist()) == ([[0.5, 0.5, 0.0]], [2])
    with pytest.raises(ValueError, match="reading must be one of all, graded, cut, probabilities"):
        relevances(torch.zeros(1, 3), reading="raw")


@pytest.mark.parametrize(
    ("coverage", "count"),
    [(0.1, 1), (0.5, 1), (0.74, 1), (0.75, 2), (0.874, 2), (0.875, 3), (0.99, 3), (1.0, 4)],
)
def test_how_many_classes_are_graded(coverage: float, count: int) -> None:
    assert relevances(REFERENCE, coverage=coverage).counts.item() == count


def test_a_sure_prediction_grades_its_class_alone() -> None:
    values, counts = relevances(torch.tensor([[30.0, 0.0, -5.0]]))
    assert (values.tolist(), counts.tolist()) == ([[1.0, 0.0, 0.0]], [1])
    assert ndcg(torch.tensor([[30.0, 0.0, -5.0]]), torch.tensor([[0.0, 30.0, 1.0]])).item() == 0


def test_equal_logits() -> None:
    values, counts = relevances(torch.full((1, 4), 3.0), coverage=0.8)
    assert (values.tolist(), counts.tolist()) == ([[1 / 3, 1 / 3, 1 / 3, 0.0]], [3])


@pytest.mark.parametrize(
    ("logits", "k", "expected"),
    [
        (prediction(0.5, 0.25, 0.125, 0.125), None, 1.0),
        (prediction(0.5, 0.25, 0.125, 0.125), 1, 1.0),
        # The first two change places.
        (prediction(0.25, 0.5, 0.125, 0.125), None, (SECOND / math.log(2) + FIRST / math.log(3)) / IDEAL),
        (prediction(0.25, 0.5, 0.125, 0.125), 1, SECOND / FIRST),
        # Another class comes first, the second one second; 0.6 + 0.15 + 0.13 > 0.8 ends it there.
        (prediction(0.13, 0.15, 0.6, 0.12), None, SECOND / math.log(3) / IDEAL),
        (prediction(0.13, 0.15, 0.6, 0.12), 1, 0.0),
        (prediction(0.13, 0.15, 0.6, 0.12), 5, SECOND / math.log(3) / IDEAL),
        # Sure of another class: its coverage ends with that one.
        (prediction(0.01, 0.01, 0.97, 0.01), None, 0.0),
        # Sure of the right class: the second is beyond its coverage.
        (prediction(0.97, 0.01, 0.01, 0.01), None, FIRST / math.log(2) / IDEAL),
        (prediction(0.97, 0.01, 0.01, 0.01), 1, 1.0),
    ],
)
def test_ndcg_by_hand(logits: Tensor, k: int | None, expected: float) -> None:
    assert ndcg(REFERENCE, logits, coverage=0.8, k=k).item() == pytest.approx(expected, abs=1e-12)


def naive(reference: np.ndarray, logits: np.ndarray, coverage: float, k: int | None) -> float:
    """Equations 3 to 7, one class after the other."""

    def ranked(values: np.ndarray) -> tuple[list[int], int]:
        order = sorted(range(len(values)), key=lambda j: (-values[j], j))
        chances = np.exp(values - values.max())
        chances /= chances.sum()
        count, total = 0, 0.0
        for j in order:
            total += chances[j]
            if total > coverage:
                break
            count += 1
        return order, max(count, 1)

    order, count = ranked(reference)
    graded = {j: reference[j] - reference.min() for j in order[:count]}
    relevance = {j: value / sum(graded.values()) for j, value in graded.items()}

    def gain(order: list[int], count: int) -> float:
        total = 0.0
        for place, j in enumerate(order[:count][:k], start=1):
            total += (2 ** relevance.get(j, 0.0) - 1) / math.log(1 + place)
        return total

    return gain(*ranked(logits)) / gain(order, count)


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("k", [None, 1, 3, 20])
def test_ndcg_is_a_plain_loops(coverage: float, k: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(30, 12, generator=generator)
    logits = reference + torch.randn(30, 12, generator=generator)
    expected = [
        naive(*pair, coverage, k)
        for pair in zip(reference.double().numpy(), logits.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(ndcg(reference, logits, coverage=coverage, k=k), expected, atol=1e-12)
    assert len(set(expected)) > 5


@pytest.mark.parametrize("k", [None, 1, 3])
def test_ndcg_is_scikit_learns_where_everything_is_covered(k: int | None) -> None:
    generator = torch.Generator().manual_seed(1)
    reference, logits = torch.randn(2, 20, 6, generator=generator, dtype=torch.float64)
    gains = 2 ** relevances(reference, coverage=1.0).values - 1
    expected = [
        ndcg_score(gain[None], scores[None], k=k)
        for gain, scores in zip(gains.numpy(), logits.numpy(), strict=True)
    ]
    np.testing.assert_allclose(ndcg(reference, logits, coverage=1.0, k=k), expected, atol=1e-12)


logit_rows = arrays(np.float64, (3, 6), elements=st.integers(-40, 40).map(lambda n: n / 4)).map(
    torch.from_numpy
)
rows_without_ties = st.lists(
    st.lists(st.integers(-40, 40), min_size=6, max_size=6, unique=True), min_size=3, max_size=3
).map(lambda rows: torch.tensor(rows, dtype=torch.float64) / 4)
coverages = st.sampled_from([0.3, 0.9, 0.99, 1.0])
ends = st.sampled_from([None, 1, 2, 5])


@few
@given(logit_rows, logit_rows, coverages, ends)
def test_bounds_identity_and_shift(reference: Tensor, logits: Tensor, coverage: float, k: int | None) -> None:
    value = ndcg(reference, logits, coverage=coverage, k=k)
    assert ((value >= 0) & (value <= 1)).all()
    own = ndcg(reference, reference, coverage=coverage, k=k)
    torch.testing.assert_close(own, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        ndcg(reference + 8, logits - 16, coverage=coverage, k=k), value, rtol=0, atol=1e-9
    )
    torch.testing.assert_close(ndcg(reference[1:2], logits[1:2], coverage=coverage, k=k), value[1:2])
    graded = relevances(reference, coverage=coverage)
    assert (graded.values >= 0).all()
    torch.testing.assert_close(graded.values.sum(1), torch.ones(3, dtype=torch.float64))


@few
@given(rows_without_ties, rows_without_ties, st.permutations(range(6)), coverages, ends)
def test_classes_have_no_order_of_their_own(
    reference: Tensor, logits: Tensor, order: list[int], coverage: float, k: int | None
) -> None:
    # But for ties, which go by the order of classes.
    value = ndcg(reference, logits, coverage=coverage, k=k)
    torch.testing.assert_close(
        ndcg(reference[:, order], logits[:, order], coverage=coverage, k=k), value, atol=1e-12, rtol=0
    )


@few
@given(logit_rows, rows_without_ties, ends, st.randoms())
def test_irrelevant_classes_may_change_places(
    reference: Tensor, logits: Tensor, k: int | None, random: Any
) -> None:
    reference[:, 4:] = -40  # never graded at this coverage, whatever the others are
    assume((relevances(reference, coverage=0.99).values[:, 4:] == 0).all())
    ungraded = [[j for j in range(6) if row[j] == 0] for row in relevances(reference, coverage=0.99).values]
    changed = logits.clone()
    for row, classes in enumerate(ungraded):
        mixed = random.sample(classes, len(classes))
        changed[row, classes] = logits[row, mixed]
    torch.testing.assert_close(
        ndcg(reference, changed, k=k), ndcg(reference, logits, k=k), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: ndcg(x, x[:, :2]), ValueError, "same shape"),
        (lambda x: ndcg(x, x, coverage=0), ValueError, "coverage must be"),
        (lambda x: ndcg(x, x, coverage=1.5), ValueError, "coverage must be"),
        (lambda x: ndcg(x, x, k=0), ValueError, "k must be an integer"),
        (lambda x: ndcg(x * torch.nan, x), ValueError, "reference_logits must be finite"),
        (lambda x: ndcg(x, x / 0), ValueError, "logits must be finite"),
        (lambda x: ndcg(x, x.long()), TypeError, "logits must be a floating-point"),
        (lambda x: relevances(x[0]), ValueError, "logits must have the shape"),
        (lambda x: relevances(x[:, :1]), ValueError, "at least two classes"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[Tensor], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call(torch.tensor([[1.0, 2.0, 3.0]]))


def test_no_images() -> None:
    assert ndcg(torch.empty(0, 3), torch.empty(0, 3)).shape == (0,)
