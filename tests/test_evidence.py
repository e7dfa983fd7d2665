"""Runs of several seeds pooled: from outcomes of known images, from the runs' own intervals, and from one run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xaicore.book.claims.evidence import Measured
from xaicore.core.errors import UserError
from xaicore.metrics import proportion_ci
from xaicore.metrics.pooling import pooled_outcomes
from xaicore.run.evidence import OUTCOMES, load_evidence, load_outcomes, pool
from xaicore.run.records import Run, load_record

NOTEBOOK = "p1_inspecting_attacks"
SHARE, MEAN, AUROC = "p1.accuracy.clear.fgsm", "p1.rank_correlation.fgsm", "p1.pixel_rank"
DIFFERENCE = "p1.mixing.difference"
"""Ids that claims read, so that their outcomes are kept."""


def made(folder: Path, seed: int, *, images: bool = True, **parameters: object) -> Path:
    rng = np.random.default_rng(seed)
    run = Run(NOTEBOOK, {"seed": seed, **parameters}, folder / str(seed), edition="embedded")
    known = {"images": np.arange(40) + seed} if images else {}
    run.share(SHARE, rng.random(40) < 0.7, **known)
    values = np.where(np.arange(40) % 9 == 0, np.nan, rng.normal(size=40))
    run.mean(MEAN, values, "correlation" if abs(values[np.isfinite(values)]).max() < 1 else None, **known)
    run.auroc(AUROC, rng.normal(size=30), rng.normal(1, size=20))
    run.value("p1.count.nobody_reads", seed)
    run.finish()
    return folder / str(seed)


def pooled(folders: list[Path]) -> dict:
    return pool([load_record(f) for f in folders], [load_outcomes(f) for f in folders])


def test_outcomes_of_known_images_are_pooled_over_images_and_runs(tmp_path: Path) -> None:
    folders = [made(tmp_path, seed) for seed in range(3)]
    found = pooled(folders)
    share = found["values"][SHARE]
    records = [load_record(folder)["values"][SHARE] for folder in folders]
    assert share["each"] == [record["value"] for record in records]
    assert share["value"] == pytest.approx(np.mean(share["each"]))
    assert (share["n"], share["runs"], share["method"], share["unit"]) == (42, 3, "images and runs", "%")
    outcomes = [np.random.default_rng(seed).random(40) < 0.7 for seed in range(3)]
    _, interval = pooled_outcomes(outcomes, [np.arange(40) + seed for seed in range(3)])
    assert share["ci"] == pytest.approx([100 * end for end in interval])
    mean = found["values"][MEAN]
    assert mean["method"] == "images and runs"
    assert mean["value"] == pytest.approx(np.mean(mean["each"]), abs=1e-6)
    assert found["values"][AUROC]["method"] == "runs"
    assert 0 <= share["prediction"][0] < share["value"] < share["prediction"][1] <= 100


def test_unknown_images_leave_the_runs_own_intervals(tmp_path: Path) -> None:
    found = pooled([made(tmp_path, seed, images=False) for seed in range(3)])
    assert {found["values"][id]["method"] for id in (SHARE, MEAN, AUROC)} == {"runs"}
    assert found["values"][SHARE]["n"] == 40


def test_outcomes_are_kept_of_what_claims_read(tmp_path: Path) -> None:
    outcomes = load_outcomes(made(tmp_path, 0))
    assert outcomes is not None
    assert set(outcomes["id"]) == {SHARE, MEAN, AUROC}
    assert len(outcomes[outcomes["id"] == MEAN]) == 35, "undefined outcomes are left out"
    share = outcomes[outcomes["id"] == SHARE]
    assert set(share["outcome"]) == {0, 100}, "in the unit of the value"
    assert share["image"].tolist() == list(range(40))
    groups = outcomes[outcomes["id"] == AUROC].groupby("group").size()
    assert groups.to_dict() == {"clean": 30, "other": 20}


def test_an_estimate_that_is_no_mean_of_its_outcomes_is_not_pooled_from_them(tmp_path: Path) -> None:
    folders = []
    for seed in range(2):
        run = Run(NOTEBOOK, {"seed": seed}, tmp_path / str(seed), edition="embedded")
        outcomes = np.arange(10) < 4 + seed
        run.share(SHARE, outcomes, images=np.arange(10))
        run.outcomes[SHARE]["outcome"] = 0.0
        run.finish()
        folders.append(tmp_path / str(seed))
    assert pooled(folders)["values"][SHARE]["method"] == "runs"


def test_a_difference_of_two_groups_is_pooled_from_them(tmp_path: Path) -> None:
    folders = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        run = Run(NOTEBOOK, {"seed": seed}, tmp_path / str(seed), edition="embedded")
        groups = np.arange(30), np.arange(20) + 30
        run.difference(DIFFERENCE, rng.random(30) < 0.8, rng.random(20) < 0.4, "points", images=groups)
        run.finish()
        folders.append(tmp_path / str(seed))
    found = pooled(folders)["values"][DIFFERENCE]
    assert (found["n"], found["method"]) == (20, "images and runs")
    assert found["value"] == pytest.approx(np.mean(found["each"]))


def test_where_no_outcome_differs_the_runs_own_intervals_stay(tmp_path: Path) -> None:
    folders = []
    for seed in range(3):
        run = Run(NOTEBOOK, {"seed": seed}, tmp_path / str(seed), edition="embedded")
        run.change(DIFFERENCE, np.ones(12), np.ones(12), "points", images=np.arange(12))
        run.finish()
        folders.append(tmp_path / str(seed))
    found = pooled(folders)["values"][DIFFERENCE]
    assert found["method"] == "runs"
    assert found["ci"][0] < 0 < found["ci"][1]


def test_several_outcomes_of_an_image_keep_the_value_of_the_runs(tmp_path: Path) -> None:
    folders = []
    for seed in range(2):
        values = np.random.default_rng(seed).random((9, 3))
        values[::2, 1:] = np.nan
        run = Run(NOTEBOOK, {"seed": seed}, tmp_path / str(seed), edition="embedded")
        run.mean(MEAN, values, images=np.arange(9))
        run.finish()
        folders.append(tmp_path / str(seed))
    found = pooled(folders)["values"][MEAN]
    assert (found["n"], found["method"]) == (9, "images and runs")
    assert found["value"] == pytest.approx(np.mean(found["each"]))


def test_one_record_is_evidence_of_one_run(tmp_path: Path) -> None:
    found = load_evidence(made(tmp_path, 4))
    share = found["values"][SHARE]
    assert (found["seeds"], share["runs"], share["method"], share["prediction"]) == ([4], 1, "one run", None)
    true = round(share["value"] * 0.4)
    assert share["ci"] == pytest.approx([100 * end for end in proportion_ci(true, 40)])
    assert found["values"]["p1.count.nobody_reads"]["ci"] is None


def test_equal_outcomes_of_one_run_keep_their_interval(tmp_path: Path) -> None:
    """A share of 0 in 53 images is not certain: the interval without width tells a verdict to take the binomial bound."""
    run = Run(NOTEBOOK, {"seed": 0}, tmp_path / "0", edition="reference")
    run.value(SHARE, 0.0, n=53, ci=(0.0, 0.0), unit="%")
    run.finish()
    entry = load_evidence(tmp_path / "0")["values"][SHARE]
    assert entry["ci"] == [0, 0]
    assert Measured.from_record(entry).high == pytest.approx(6.72, abs=0.01)  # Clopper-Pearson, 0 of 53


def test_a_value_that_a_run_lacks_is_pooled_over_the_others(tmp_path: Path) -> None:
    folders = [made(tmp_path, seed) for seed in range(3)]
    records = [load_record(folder) for folder in folders]
    del records[1]["values"][SHARE]
    share = pool(records)["values"][SHARE]
    assert share["runs"] == 2
    assert share["each"][1] is None


def test_the_interval_of_an_area_under_a_curve_ends_at_one(tmp_path: Path) -> None:
    folders = []
    for seed, area in enumerate((0.9, 1.0, 0.99)):
        run = Run(NOTEBOOK, {"seed": seed}, tmp_path / str(seed), edition="embedded")
        for name in ("p1.auroc.made", "p1.auroc_gap.made"):
            run.value(name, area, n=20, ci=(area - 0.05, 1.0))
        run.finish()
        folders.append(tmp_path / str(seed))
    values = pooled(folders)["values"]
    assert values["p1.auroc_gap.made"]["ci"][1] > 1
    assert values["p1.auroc_gap.made"]["prediction"][1] > 1
    assert values["p1.auroc.made"]["ci"] == [values["p1.auroc_gap.made"]["ci"][0], 1]
    assert values["p1.auroc.made"]["prediction"][1] == 1


def test_other_experiments_are_not_pooled(tmp_path: Path) -> None:
    folders = [made(tmp_path, 0), made(tmp_path, 1, n_images=5)]
    with pytest.raises(UserError, match="differ in more than their seed"):
        pooled(folders)
    with pytest.raises(UserError, match="no run to pool"):
        pool([])


def test_a_new_run_leaves_no_outcomes_of_the_one_before(tmp_path: Path) -> None:
    folder = made(tmp_path, 0)
    assert (folder / OUTCOMES).is_file()
    Run(NOTEBOOK, {"seed": 0}, folder, edition="embedded").finish()
    assert load_outcomes(folder) is None


def test_outcomes_and_images_must_fit() -> None:
    run = Run(NOTEBOOK, {"seed": 0}, Path("nowhere"), edition="embedded")
    with pytest.raises(ValueError, match=r"images must be \(3,\)"):
        run.share(SHARE, [True, False, True], images=pd.Series([1, 2]))
