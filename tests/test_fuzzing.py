"""DLFuzz in the order of the images: the table is shared, the limit is that of centred images, orders are independent."""

import warnings

import numpy as np
import pytest
import torch
from test_attacks_dlfuzz import draw, tiny

from xaicore.attacks import dlfuzz
from xaicore.attacks.neurons import Coverage, activations
from xaicore.run.engine import LocalEngine
from xaicore.run.store import Store
from xaicore.studies.fuzzing import IMAGENET_MEAN, L2_LIMIT, centred_norm, fuzzed, in_order

OPTIONS = {"iterations": 2, "step_size": 0.01}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def given(table="shared"):
    model, images = tiny(), draw(6, seed=4)
    model.fingerprint = "tiny"
    return {"model": model, "images": images, "labels": model(images).argmax(1), "table": table, "seed": 3}


def test_the_limit_is_relative_to_the_image_less_its_mean():
    image = torch.tensor(IMAGENET_MEAN)[:, None, None].expand(3, 2, 2) + 0.1
    assert centred_norm(image) == pytest.approx(0.1 * 12**0.5, abs=1e-6)
    gray = torch.full((1, 2, 2), sum(IMAGENET_MEAN) / 3 - 0.2)
    assert centred_norm(gray) == pytest.approx(0.2 * 2, abs=1e-6)


def test_the_table_is_carried_from_image_to_image():
    """Replayed by hand: each call gets what those before have covered, the place in the order, and the code's limit."""
    options = given()
    model, images, labels = (options[name] for name in ("model", "images", "labels"))
    order = torch.tensor([4, 1, 0, 5, 2, 3])
    found = in_order(**options, order=order, number=0, options=OPTIONS)
    coverage = Coverage({name: v.shape[1] for name, v in activations(model, images[:1]).items()})
    seen = []
    seed = int(np.random.SeedSequence([3, 0]).generate_state(1)[0]) >> 1
    for place, row in enumerate(order.tolist()):
        image = images[row : row + 1]
        limit = L2_LIMIT * centred_norm(image[0]) / float(image.norm())
        result = dlfuzz(
            model,
            image,
            labels[row : row + 1],
            coverage=coverage,
            index=torch.tensor([place]),
            l2_limit=limit,
            seed=seed,
            **OPTIONS,
        )
        coverage.update(result.info["covered"])
        assert torch.allclose(found["adversarial"][row], result.adversarial[0], atol=1e-6)
        assert bool(found["success"][row]) == bool(result.success[0])
        seen.append(coverage.share())
    assert seen == sorted(seen)


def test_an_empty_table_for_each_image_is_another_attack():
    shared, alone = (
        in_order(**given(table), order=torch.arange(6), number=0, options=OPTIONS)
        for table in ("shared", "per-image")
    )
    assert torch.equal(shared["adversarial"][0], alone["adversarial"][0])
    assert not torch.equal(shared["adversarial"], alone["adversarial"])


def test_orders_are_batches_and_the_first_is_kept(tmp_path):
    engine = LocalEngine(Store(tmp_path), workers=1)
    options = given()
    model, images, labels = (options.pop(name) for name in ("model", "images", "labels"))
    two = fuzzed(engine, model, images, labels, orders=2, **options, **OPTIONS)
    one = fuzzed(engine, model, images, labels, orders=1, **options, **OPTIONS)
    assert two.every.shape == (2, 6)
    assert torch.equal(two.success, two.every[0])
    assert torch.equal(two.adversarial, one.adversarial)
    changed = model(two.adversarial).argmax(1) != labels
    assert torch.equal(changed, two.success)
    with pytest.raises(ValueError, match="table must be one of"):
        fuzzed(engine, model, images, labels, table="none")
