"""The local engine: batches in order, each kept at once."""

import importlib.util
import json
import re
import time

import pytest
import torch

from xaicore.core.errors import UserError
from xaicore.core.progress import report
from xaicore.run import engine
from xaicore.run.store import Store

IMAGES = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(0))
ARRAYS = {"images": IMAGES, "index": torch.arange(7)}


class Interrupted(Exception):
    pass


class Counter:
    """Works like a batch function and counts its calls; a constant, so it has a fingerprint."""

    fingerprint = "counter"

    def __init__(self, fail_at=None):
        self.rows = []
        self.fail_at = fail_at

    def note(self, index):
        if self.fail_at in index.tolist():
            raise Interrupted
        self.rows += index.tolist()


def double(images, index, *, counter, factor=2):
    counter.note(index)
    return {"doubled": images * factor, "success": index % 2 == 0, "index": index}


def test_results_keep_the_order_and_do_not_depend_on_the_batches(tmp_path):
    results = [
        engine.get("local", Store(tmp_path / str(size))).map(
            "double", double, ARRAYS, constants={"counter": Counter()}, batch_size=size
        )
        for size in (1, 3, 7, 50)
    ]
    for result in results:
        assert torch.equal(result["doubled"], IMAGES * 2)
        assert torch.equal(result["index"], torch.arange(7))
        assert result["success"].dtype == torch.bool
        assert not result.reused


def test_finished_batches_survive_an_interruption(tmp_path):
    broken, rest, again = Counter(fail_at=5), Counter(), Counter()
    with pytest.raises(Interrupted):
        engine.LocalEngine(Store(tmp_path), workers=1).map(
            "double", double, ARRAYS, constants={"counter": broken}, batch_size=2
        )
    store = Store(tmp_path)
    result = engine.LocalEngine(store, workers=1).map(
        "double", double, ARRAYS, constants={"counter": rest}, batch_size=2
    )
    assert (broken.rows, rest.rows) == ([0, 1, 2, 3], [4, 5, 6])
    assert (store.computed, store.reused) == (2, 2)
    assert torch.equal(result["doubled"], IMAGES * 2)
    second = engine.get("local", Store(tmp_path)).map(
        "double", double, ARRAYS, constants={"counter": again}, batch_size=2
    )
    assert again.rows == []
    assert second.reused
    assert second.seconds == result.seconds


def test_constants_and_content_make_another_result(tmp_path):
    runner = engine.get("local", Store(tmp_path))
    for constants in ({"factor": 2}, {"factor": 3}):
        counter = Counter()
        result = runner.map("double", double, ARRAYS, constants={"counter": counter, **constants})
        assert torch.equal(result["doubled"], IMAGES * constants["factor"])
        assert len(counter.rows) == 7
    counter = Counter()
    runner.map(
        "double", double, {**ARRAYS, "images": IMAGES + 1}, constants={"counter": counter, "factor": 2}
    )
    assert len(counter.rows) == 7


def test_progress_is_told_a_line_a_batch(tmp_path, monkeypatch):
    report("nobody listens", 1, 2)
    monkeypatch.setenv("XAICORE_PROGRESS", str(tmp_path / "progress"))
    # One worker: several may finish in another order.
    engine.LocalEngine(Store(tmp_path), workers=1).map(
        "double", double, ARRAYS, constants={"counter": Counter()}, batch_size=3
    )
    events = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert [(event["step"], event["done"], event["total"]) for event in events] == [
        ("double", done, 7) for done in (0, 3, 6, 7)
    ]


def bad_rows(images):
    return {"x": images[:1]}


def bad_kind(images):
    return {"x": 1}


def bad_shape(images):
    return {"x": images[:, : len(images)]}


@pytest.mark.parametrize(
    ("function", "error"), [(bad_rows, ValueError), (bad_kind, TypeError), (bad_shape, ValueError)]
)
def test_results_that_do_not_fit_are_refused(tmp_path, function, error):
    with pytest.raises(error, match="step: x"):
        engine.get("local", Store(tmp_path)).map(
            "step", function, {"images": torch.zeros(5, 3)}, batch_size=2
        )


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({}, {}, "at least one tensor"),
        ({"a": torch.zeros(0, 2)}, {}, "at least one row"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, {}, "first dimension"),
        ({"a": torch.zeros(2)}, {"batch_size": 0}, "batch_size"),
        ({"a": torch.zeros(2)}, {"constants": {"a": 1}}, "'a'"),
    ],
)
def test_arguments_are_checked(tmp_path, arrays, options, message):
    with pytest.raises(ValueError, match=message):
        engine.get("local", Store(tmp_path)).map("step", bad_rows, arrays, **options)


@pytest.fixture
def ray_is_there(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ray" or find(name))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("slurm", "unknown engine 'slurm'"),
        ("ray:", "unknown engine 'ray:'"),
        *(
            (
                spec,
                f"{spec!r} is no address of a Ray cluster; write ray://HOST:PORT, ray://auto or ray://local",
            )
            for spec in ("ray://", "ray://head:x", "ray://head:99999", "ray://me@head", "ray://head/there")
        ),
        ("ray://127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1 (connection refused); is it up"),
        ("ray://no-such-host.invalid", "no Ray cluster answers at no-such-host.invalid:10001 ("),
    ],
)
def test_other_places_are_refused_in_one_line(spec, message, tmp_path, monkeypatch, ray_is_there):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        engine.get(spec, Store(tmp_path))
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("XAICORE_ENGINE", spec)
    with pytest.raises(UserError, match=re.escape(message)):
        engine.get(store=Store(tmp_path))


def test_a_cluster_named_in_the_environment_must_answer(tmp_path, monkeypatch, ray_is_there):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        engine.get("ray://auto", Store(tmp_path))


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find(name) if name != "ray" else None)
    with pytest.raises(UserError, match="extra 'cluster'"):
        engine.get("ray://127.0.0.1:1", Store(tmp_path))


def late(images):
    if images[0] == 0:
        time.sleep(0.3)
        raise Interrupted
    time.sleep(0.01)
    return {"x": images}


def test_the_error_told_is_the_first_one_and_no_cancellation(tmp_path):
    for turn in range(3):
        with pytest.raises(Interrupted):
            engine.LocalEngine(Store(tmp_path / str(turn)), workers=4).map(
                "late", late, {"images": torch.arange(200)}, batch_size=1
            )


def test_workers_change_nothing_and_leave_the_model_alone(tmp_path):
    from xaicore.attacks import one_pixel
    from xaicore.models import load

    model = load("small_cnn", classes=2, channels=1, input_size=16)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(12, 1, 16, 16, generator=generator)
    arrays = {"images": images, "labels": torch.arange(12) % 2, "index": torch.arange(12)}

    def attack(images, labels, index, *, model):
        return one_pixel(
            model, images, labels, index=index, population=6, generations=2, batch_size=8
        ).arrays()

    before = model.fingerprint
    results = [
        engine.LocalEngine(Store(tmp_path / str(workers)), workers=workers).map(
            "one pixel", attack, arrays, constants={"model": model}, batch_size=3, code=one_pixel
        )
        for workers in (1, 4)
    ]
    assert model.fingerprint == before
    for name in results[0]:
        assert torch.equal(results[0][name].nan_to_num(-1), results[1][name].nan_to_num(-1)), name


def test_the_number_of_workers_must_make_sense(tmp_path):
    with pytest.raises(ValueError, match="workers"):
        engine.LocalEngine(Store(tmp_path), workers=0)


class Holder:
    """Holds a model, as detectors do."""

    fingerprint = "holder"

    def __init__(self, model):
        self.model = model


def test_every_worker_has_its_own_copy_of_what_holds_a_model(tmp_path):
    """Hooks of one thread on a model would see the batches of another."""
    holder, seen = Holder(torch.nn.Linear(1, 1)), []

    def note(images, index, *, holder):
        seen.append(holder)
        return {"index": index}

    constants = {"holder": holder}
    engine.LocalEngine(Store(tmp_path), workers=2).map(
        "note", note, ARRAYS, constants=constants, batch_size=1, code=double
    )
    assert all(each is not holder and each.model is not holder.model for each in seen)
