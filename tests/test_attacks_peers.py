"""Our attacks beside torchattacks and ART on trained digits, at equal budgets: success, and the smallest changes.

Their environment is made by ``python -m benchmarks.attacks``; without it these tests are skipped.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from subjects import digits
from torch import Tensor

from benchmarks import peers
from benchmarks.measure import Judged, judge
from benchmarks.subjects import Subject
from xaicore.attacks import ATTACKS

pytestmark = pytest.mark.skipif(
    peers.python() is None,
    reason="torchattacks and ART are not there; python -m benchmarks.attacks installs them",
)
ARCHITECTURE = {"name": "small_cnn", "classes": 10, "channels": 1, "input_size": 28}
EPS = 0.15
LIMIT = 120

Ask = Callable[..., Judged]


@pytest.fixture(scope="module")
def subject() -> Subject:
    model, images, labels = digits(400)
    turns = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return Subject("digits", model, images[turns], labels[turns], ARCHITECTURE, "digits")


@pytest.fixture(scope="module")
def worker() -> Iterator[peers.Worker]:
    interpreter = peers.python()
    assert interpreter is not None
    with peers.Worker(interpreter, torch.get_num_threads()) as opened:
        yield opened


def theirs(
    worker: peers.Worker, subject: Subject, library: str, attack: str, count: int, by: str, /, **settings: Any
) -> Judged:
    images, labels = subject.images[:count], subject.labels[:count]
    adversarial, _, _ = worker.attack(subject, library, attack, images, labels, settings, LIMIT)
    return judge(subject.model, images, labels, adversarial, by)


def ours(subject: Subject, attack: str, count: int, by: str, /, **settings: Any) -> Judged:
    images, labels = subject.images[:count], subject.labels[:count]
    result = ATTACKS[attack](subject.model, images, labels, **settings)
    judged = judge(subject.model, images, labels, result.adversarial, by)
    assert torch.equal(judged.fooled, result.success)
    return judged


def median(values: Tensor) -> float:
    assert len(values) > 0
    return float(values.quantile(0.5))


STEPS = {"eps": EPS, "steps": 10}
TORCHATTACKS = {"eps": EPS, "alpha": EPS / 4, "steps": 10}
ART = {"eps": EPS, "eps_step": EPS / 4, "max_iter": 10}
L2 = {"eps": 2.0, "steps": 10, "step_size": 0.5}


@pytest.mark.parametrize(
    ("attack", "settings", "library", "peer", "parameters", "slack"),
    [
        ("bim", {**STEPS, "step_size": EPS / 4}, "torchattacks", "BIM", TORCHATTACKS, 0),
        ("bim", {**STEPS, "step_size": EPS / 4}, "art", "BasicIterativeMethod", ART, 0),
        ("mim", {**STEPS, "step_size": EPS / 4}, "torchattacks", "MIFGSM", TORCHATTACKS, 0),
        # Random starts differ, and with them an image or two beside the border.
        ("pgd", {**STEPS, "step_size": EPS / 4}, "torchattacks", "PGD", TORCHATTACKS, 2),
        ("pgd", {"norm": "l2", **L2}, "torchattacks", "PGDL2", {"eps": 2.0, "alpha": 0.5, "steps": 10}, 2),
    ],
)
def test_as_many_fooled_within_the_same_ball(
    subject: Subject,
    worker: peers.Worker,
    attack: str,
    settings: dict[str, Any],
    library: str,
    peer: str,
    parameters: dict[str, Any],
    slack: int,
) -> None:
    norm = settings.get("norm", "linf")
    mine = ours(subject, attack, 48, norm, **settings)
    others = theirs(worker, subject, library, peer, 48, norm, **parameters)
    assert 5 <= others.fooled.sum() < 48
    assert mine.fooled.sum() >= others.fooled.sum() - slack
    assert mine.distance.max() <= settings["eps"] + 1e-6


def test_cw_l2_is_closer_than_torchattacks_and_art(subject: Subject, worker: peers.Worker) -> None:
    single = theirs(worker, subject, "torchattacks", "CW", 16, "l2", c=1, steps=30, lr=0.1)
    mine = ours(subject, "cw_l2", 16, "l2", steps=30, search_steps=1, initial_const=1.0, learning_rate=0.1)
    assert mine.fooled.sum() >= single.fooled.sum()
    searched = theirs(
        worker,
        subject,
        "art",
        "CarliniL2Method",
        4,
        "l2",
        max_iter=10,
        binary_search_steps=4,
        learning_rate=0.1,
        initial_const=1.0,
    )
    mine = ours(subject, "cw_l2", 4, "l2", steps=25, search_steps=4, batch_size=4)
    both = searched.fooled & mine.fooled
    assert mine.fooled.sum() >= searched.fooled.sum()
    assert median(mine.distance[both]) <= median(searched.distance[both])


def test_cw_linf_fools_more_and_closer_than_art(subject: Subject, worker: peers.Worker) -> None:
    mine = ours(subject, "cw_linf", 2, "linf", batch_size=2)
    others = theirs(
        worker,
        subject,
        "art",
        "CarliniLInfMethod",
        2,
        "linf",
        learning_rate=0.1,
        max_iter=30,
        initial_const=1.0,
        const_factor=4.0,
    )
    both = mine.fooled & others.fooled
    assert mine.fooled.all()
    assert mine.fooled.sum() >= others.fooled.sum()
    assert median(mine.distance[both]) < median(others.distance[both])


def test_cw_l0_changes_few_pixels_where_art_changes_many(subject: Subject, worker: peers.Worker) -> None:
    mine = ours(subject, "cw_l0", 2, "l0", batch_size=2)
    others = theirs(
        worker,
        subject,
        "art",
        "CarliniL0Method",
        2,
        "l0",
        max_iter=5,
        binary_search_steps=3,
        learning_rate=0.1,
        initial_const=10.0,
    )
    both = mine.fooled & others.fooled
    assert mine.fooled.all()
    assert median(mine.distance[both]) < median(others.distance[both]) / 2


def test_one_pixel_fools_as_many_as_torchattacks(subject: Subject, worker: peers.Worker) -> None:
    frail = subject.frail()
    mine = ours(frail, "one_pixel", 12, "l0", population=30, generations=6)
    others = theirs(worker, frail, "torchattacks", "OnePixel", 12, "l0", popsize=30, steps=6)
    assert others.distance.max() <= 1
    assert others.fooled.any()
    assert mine.fooled.sum() >= others.fooled.sum()
