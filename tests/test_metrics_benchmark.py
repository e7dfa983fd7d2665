"""The metrics' benchmark runs, and both of its sides give the same numbers."""

from benchmarks.attribution_metrics import rows

KEYS = set("name peer subject n ours_ms peer_ms ratio goal met max_relative_error note".split())  # noqa: SIM905


def test_rows() -> None:
    found = {row["name"]: row for row in rows(repeats=1, quick=True)}
    assert all(row.keys() == KEYS and row["ratio"] > 0 for row in found.values())
    # scikit-image filters in float32: a mean errs by 6e-8, and C2 = 0.0009 divides what becomes of it.
    assert found.pop("nissim")["max_relative_error"] < 4 * 6e-8 / 0.0009
    assert len(found) == 3
    assert all(row["max_relative_error"] < 1e-12 for row in found.values())
