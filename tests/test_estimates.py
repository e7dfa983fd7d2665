"""What notebooks record with an interval, and what they read: each scaled once, each written once."""

import ast
import re
import shutil
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm
from sklearn.metrics import roc_auc_score

from xaicore import figures, metrics
from xaicore.book.running import planning
from xaicore.core.errors import UserError
from xaicore.core.units import UNITS
from xaicore.figures import display
from xaicore.metrics import Estimate
from xaicore.metrics.proportions import difference_of_shares
from xaicore.run import params
from xaicore.run.committed import attribution_rows, benchmark, missed_rows, missing, paper
from xaicore.run.estimates import Estimates
from xaicore.run.records import Run, eps_level, slug

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SEED = 3


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("p1_test", {"seed": SEED}, tmp_path / "out")


def _cells(path: Path) -> list[ast.Module]:
    cells = nbformat.read(path, as_version=4).cells
    return [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize(
    ("unit", "factor"), [("%", 100), ("points", 100), ("‱", 10_000), ("share", 1), (None, 1)]
)
def test_an_estimate_is_scaled_by_its_unit_once(run: Run, unit: str | None, factor: int) -> None:
    found = run.estimate("a.b", Estimate(0.25, 0.125, 0.5, 7), unit)
    assert found == (0.25 * factor, 0.125 * factor, 0.5 * factor, 7)
    assert run.values["a.b"] == {"value": found.value, "n": 7, "ci": [found.low, found.high], "unit": unit}
    with pytest.raises(ValueError, match="recorded already"):
        run.estimate("a.b", found, unit)


def test_percentages_scaled_twice_are_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="which must be at most 100"):
        run.estimate("twice", Estimate(36.09, 35.0, 37.0, 9).scaled(100), "points")
    assert all(UNITS[unit].of_one == 100 for unit in ("%", "points", "relative %"))


def test_what_is_undefined_is_not_recorded(run: Run) -> None:
    nothing = Estimate(float("nan"), float("nan"), float("nan"), 4)
    assert np.isnan(run.estimate("a", nothing).value)
    assert run.share("b", []) is run.mean("c", [1.0]) is run.mean("d", []) is run.median("e", [2.0]) is None
    assert run.auroc("f", [1.0, 2.0], [1.0]) is run.detected("g", [1.0], [1.0, 2.0], fpr=0.1) is None
    assert run.difference("h", [1.0], [1.0, 2.0]) is run.change("i", [1.0], [2.0]) is None
    assert not run.values


def test_share_is_wilsons(run: Run) -> None:
    outcomes = torch.arange(20) < 5
    z, p, n = norm.ppf(0.975), 0.25, 20
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    found = run.share("share", outcomes)
    assert found == pytest.approx(
        (25, *(100 * (middle + side * half) / (1 + z**2 / n) for side in (-1, 1)), 20)
    )
    assert run.values["share"]["unit"] == "%"


def test_mean_draws_the_rows_of_an_image_together(run: Run) -> None:
    """Four attacks on each of nine images whose outcomes are equal tell no more than one attack on each."""
    values, images = np.tile(np.arange(9.0) % 2, 4), np.tile(np.arange(9) * 7 + 3, 4)
    rows = run.mean("by.rows", values, images=images)
    assert rows == run.mean("by.image", values.reshape(4, 9).T, images=images[:9])
    assert rows.n == 9
    assert rows.high - rows.low > 1.5 * np.ptp([(alone := run.mean("alone", values)).low, alone.high])
    change = run.change("by.change", 0 * values, values, images=images)
    assert (change.low, change.high, change.n) == (rows.low, rows.high, 9)
    assert run.mean("too.few", values[:3], images=[5, 5, 5]) is None  # one image


def test_mean_leaves_undefined_values_out_and_draws_images(run: Run) -> None:
    values = np.random.default_rng(0).normal(size=30)
    known = bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(SEED)
    )
    found = run.mean("plain", np.append(values, np.nan))
    assert found.n == 30
    assert found[:3] == pytest.approx((values.mean(), *known.confidence_interval), abs=1e-12)
    several = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    assert run.mean("several", several)[::3] == (3, 2)
    assert run.mean("one", [2.0], least=1) == (2, 2, 2, 1)
    assert run.mean("all", torch.ones(9).bool(), "%").low == pytest.approx(
        100 * metrics.proportion_ci(9, 9).low
    )


def test_the_seed_of_intervals_may_differ_from_the_notebooks(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=30)
    found = [
        Run("p1_test", {"seed": seed}, tmp_path, interval_seed=given).mean("m", values)
        for seed, given in ((3, None), (3, 0), (0, None), (7, 3))
    ]
    assert found[0] == found[3] != found[1] == found[2]


def test_change_is_paired(run: Run) -> None:
    before, after = np.array([0.0, 1, 1, np.nan]), np.array([1.0, 1, 1, 1])
    found = run.change("paired", before, after, "points")
    assert found == metrics.ratio([1.0, 0, 0], seed=SEED).scaled(100)
    still = run.change("none", after, after, "points")
    most = 100 * metrics.proportion_ci(0, 4).high
    assert still == (0, -most, most, 4)
    assert run.mean("differences", np.zeros(4), "points", least=1) == still
    assert run.mean("share", np.zeros(4), "%") == (0, 0, most, 4)


def test_difference_is_of_independent_groups(run: Run) -> None:
    first, second = np.arange(12) < 6, np.arange(8) < 2
    found = run.difference("d", first, second, "points")
    assert found == difference_of_shares(first, second).scaled(100)._replace(n=8)
    sizes = np.arange(12.0), np.arange(8.0)
    interval = metrics.bootstrap_difference_ci(*sizes, seed=SEED)
    assert run.difference("e", *sizes) == (2, *interval, 8)


def test_groups_wholly_apart_leave_an_interval_with_width(run: Run) -> None:
    found = run.auroc("apart", np.zeros(30), np.ones(10))
    assert found == (1, metrics.proportion_ci(10, 10).low, 1, 10)
    assert run.auroc("turned", np.ones(30), np.zeros(10)) == (0, 0, metrics.proportion_ci(0, 10).high, 10)


def test_median_of_an_even_number(run: Run) -> None:
    values = torch.tensor([4.0, 1.0, 3.0, 2.0])
    assert run.median("mean", values).value == 2.5
    assert run.median("lower", values, "s", lower=True).value == values.median().item() == 2
    assert run.median("odd", values[:3], lower=True).value == 3


def test_scores_of_a_detector(run: Run) -> None:
    generator = np.random.default_rng(1)
    clean, other = generator.normal(size=40), generator.normal(1, size=25)
    area = run.auroc("area", clean, torch.from_numpy(other))
    assert area.value == pytest.approx(
        roc_auc_score(np.repeat([0, 1], [40, 25]), np.concatenate([clean, other]))
    )
    assert area.low < area.value < area.high
    rate = run.detected("rate", clean, other, fpr=0.05)
    assert rate.n == area.n == 25
    assert rate.value == pytest.approx(100 * (other > np.sort(clean)[37]).mean())


@settings(deadline=None)
@given(st.integers(20, 60), st.integers(2, 60), st.integers(0, 3), st.floats(0, 6), st.integers(0, 1000))
def test_no_rate_of_a_detector_is_sure(n: int, m: int, unlike: int, apart: float, seed: int) -> None:
    """Also where a few clean images score as high as attacked ones, so that few draws flag less than all of those."""
    generator = np.random.default_rng(seed)
    clean, other = generator.normal(size=n), generator.normal(apart, 0.5, size=m)
    clean[:unlike] = 3 * apart
    for turned, sign in enumerate((1, -1)):
        found = Estimates(seed).detected(f"rate.{turned}", sign * clean, sign * other, fpr=0.1)
        assert 0 <= found.low < found.high <= 100


def test_show_records_the_table(run: Run) -> None:
    shown = run.show("rows", [{"a": 1, "b": "x"}])
    assert "<td" in shown.data
    pd.testing.assert_frame_equal(run._tables["rows"], pd.DataFrame({"a": [1], "b": ["x"]}))


def test_show_spreads_one_column_of_estimates(run: Run) -> None:
    rows = [{"a": "x", "mean": None, "n": 1}, {"a": "y", "mean": Estimate(2.0, 1.0, 3.0, 9), "n": 2}]
    run.show("rows", rows)
    shown = {"a": ["x", "y"], "mean": [np.nan, 2], "from": [np.nan, 1], "to": [np.nan, 3], "n": [1, 2]}
    pd.testing.assert_frame_equal(run._tables["rows"], pd.DataFrame(shown))
    with pytest.raises(ValueError, match=r"cell\(estimate\): mean, share"):
        run.show("more", [rows[0], {**rows[1], "share": rows[1]["mean"]}])
    with pytest.raises(ValueError, match="from"):
        run.show("again", [{**rows[1], "from": 0.5}])


def test_estimates_in_tables_and_lines() -> None:
    estimate = Estimate(12.345, 10.0, 15.55, 9)
    assert display.cell(estimate) == "12.35 [10.00, 15.55]".replace("12.35", f"{12.345:.2f}")
    assert display.cell(estimate, 1, 0) == "12.3 [10, 16]"
    assert display.cell(None) == display.cell(Estimate(float("nan"), 0, 0, 1)) == "–"
    x, y, band = figures.estimated([1, 2, 3], [estimate, None, estimate])
    assert (x.tolist(), y.tolist(), band.tolist()) == ([1, 3], [12.345] * 2, [[10.0, 15.55]] * 2)


def test_a_line_without_estimates_is_empty() -> None:
    x, values, band = figures.estimated([0.1, 0.2], [None, None])
    assert (x.shape, values.shape, band.shape) == ((0,), (0,), (0, 2))


def test_parts_of_ids() -> None:
    assert slug("EXPLAINER, IG + σ") == "explainer__ig"
    assert [eps_level(eps) for eps in (0.0, 0.01, 2 / 255, 0.1)] == [
        "eps_000",
        "eps_010",
        "eps_008",
        "eps_100",
    ]


def test_a_number_of_a_paper_is_read_from_its_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "notebooks")
    assert paper("p4.adaptive.success") == 1
    assert paper("p2.table3.mean.eps_075") == 0.241252
    with pytest.raises(UserError, match=r"claims/p1\.yml reports no number p1\.nothing"):
        paper("p1.nothing")
    monkeypatch.chdir(tmp_path)
    assert np.isnan(paper("p4.adaptive.success"))


def test_a_changed_number_of_a_paper_runs_its_notebook_anew(tmp_path: Path) -> None:
    source, addresses = ROOT / "notebooks" / "p4_heat_and_blur.ipynb", []
    for name, changed in (("as it is", "number: 1,"), ("again", "number: 1,"), ("changed", "number: 2,")):
        for folder in ("notebooks", "claims"):
            (tmp_path / name / folder).mkdir(parents=True)
        shutil.copy(source, tmp_path / name / "notebooks")
        text = (ROOT / "claims" / "p4.yml").read_text(encoding="utf-8").replace("number: 1,", changed)
        (tmp_path / name / "claims" / "p4.yml").write_text(text, encoding="utf-8")
        copied = tmp_path / name / "notebooks" / source.name
        addresses.append(planning._address(copied, {}, params.P4Parameters.check({}), "", 1))
    assert addresses[0] == addresses[1] != addresses[2]


def test_benchmarks_are_read_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rows = [attribution_rows(benchmark("attribution"), kind) for kind in ("explanations", "metrics")]
    assert all(rows)
    assert sum(map(len, rows)) == len(benchmark("attribution")["rows"])
    monkeypatch.chdir(tmp_path)
    assert benchmark("attribution") is None
    assert missed_rows(None)[0]["what"] == "nothing"
    assert "python -m benchmarks.attacks results/benchmarks/attacks.json" in missing("attacks")


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if re.match(r"p\d", path.stem)], ids=lambda path: path.stem
)
def test_no_cell_repeats_a_number_of_its_paper(path: Path) -> None:
    reported = yaml.safe_load((ROOT / "claims" / f"{path.stem[:2]}.yml").read_text(encoding="utf-8"))[
        "reported"
    ]
    telling = {
        entry["number"] for entry in reported if len(f"{entry['number']:g}".strip("0").replace(".", "")) > 2
    }
    cells = [node for cell in _cells(path) for node in ast.walk(cell) if isinstance(node, ast.Constant)]
    numbers = [node.value for node in cells if type(node.value) in (int, float)]
    assert not telling & set(numbers)


def test_no_function_is_defined_in_two_notebooks() -> None:
    names, bodies = defaultdict(set), defaultdict(set)
    for path in NOTEBOOKS:
        for cell in _cells(path):
            for node in ast.walk(cell):
                if isinstance(node, ast.FunctionDef):
                    if node.name not in ("compute",):
                        names[node.name].add(path.stem)
                    bodies[ast.unparse(node.body)].add(path.stem)
    assert {name: where for name, where in names.items() if len(where) > 1} == {}
    assert {body: where for body, where in bodies.items() if len(where) > 1} == {}


def test_a_parameter_whose_name_a_module_takes_keeps_its_value() -> None:
    """As when the cell that checks the parameters is run again after the one that imports."""
    namespace = {"steps": 7, "seed": 5}
    assert params.P5Parameters.resolve(namespace).steps == 7
    namespace |= {"steps": ModuleType("steps"), "seed": 6}
    again = params.P5Parameters.resolve(namespace)
    assert (again.steps, again.seed) == (7, 6)
