"""The subjects of the instrument notebooks: only images that their network gets right, of all classes alike."""

from pathlib import Path

import numpy as np
import pytest
import torch

from xaicore import models
from xaicore.core.errors import UserError
from xaicore.data import ImageSet
from xaicore.run.params import InstrumentParameters
from xaicore.run.records import Run
from xaicore.run.store import Store
from xaicore.studies.subjects import evenly, subjects

GIVEN = {"n_train": 600, "epochs": 2, "n_images": 10, "n_photographs": 3, "photograph_size": 96}


def test_of_a_sorted_set_images_of_all_classes_are_taken() -> None:
    assert evenly(np.repeat([0, 1], 10), 4).tolist() == [0, 0, 1, 1]
    assert evenly(torch.arange(5), 9).tolist() == [0, 1, 2, 3, 4]


def test_every_image_is_classified_correctly(tmp_path: Path) -> None:
    params = InstrumentParameters.check(GIVEN)
    store = Store(tmp_path)
    run = Run("attacks", params, store=store)
    both = subjects(params, store, run)
    assert list(both) == ["digits", "photographs"]
    for name, count in (("digits", 10), ("photographs", 3)):
        subject = both[name]
        assert len(subject.images) == len(subject.labels) == count
        assert torch.equal(models.predict(subject.model, subject.images).argmax(1), subject.labels)
        assert (subject.labels.diff() >= 0).all()
        assert 0 < subject.accuracy <= 1
        assert subject.names[int(subject.labels[0])]
    assert len(both["digits"].labels.unique()) >= 4
    assert {item["label"] for item in run.provenance()["models"]} == set(both)


def test_a_network_that_gets_nothing_right_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    params = InstrumentParameters.check(GIVEN)
    monkeypatch.setattr(
        models,
        "predict",
        lambda model, images: torch.eye(len(model.classes))[torch.zeros(len(images)).long()],
    )
    monkeypatch.setattr(
        ImageSet, "stack", lambda self, *a: (torch.rand(4, 1, 28, 28), torch.ones(4, dtype=torch.int64))
    )
    with pytest.raises(UserError, match="classifies no test image of mnist-5k correctly: train it longer"):
        subjects(params, store, Run("attacks", params, store=store))
