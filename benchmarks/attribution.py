"""How fast our explanations and metrics are beside other libraries', at equal output.

``python -m benchmarks.attribution [results.json] [--only explanations,metrics] [--threads T] [--repeats R] [--quick]``

Explanations: Grad-CAM of all layers of VGG16 at 224 px against Captum and pytorch-grad-cam layer by layer
(:mod:`benchmarks.attribution_grad_cam`), LRP with ``preset-a-flat`` against zennit (:mod:`benchmarks.attribution_lrp`).
Metrics: NISSIM, entropy and the bootstrap against scikit-image and scipy (:mod:`benchmarks.attribution_metrics`). Both
sides run in turn in the same process (pytorch-grad-cam in an environment of its own), and the fastest of each counts. A
ratio is the peer's time over ours: above 1, ours is faster. It counts only where the outputs agree: the largest
difference, relative to the largest value, stands beside it.

The goals: 8x for Grad-CAM of all layers, 1.8x for LRP, 10x for NISSIM and entropy, no slower for the bootstrap.

The JSON, ``schema`` 1::

    date, machine {processor, cores, system}, versions {package: version}, threads, repeats, quick
    rows       kind ("explanations" or "metrics"), name, peer, subject, n, ours_ms, peer_ms, ratio, goal (null without),
               met (bool), max_relative_error, note
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import attribution_grad_cam, attribution_lrp, attribution_metrics, command

SCHEMA = 1
PARTS: dict[str, tuple[Callable[..., list[dict[str, Any]]], ...]] = {
    "explanations": (attribution_grad_cam.rows, attribution_lrp.rows),
    "metrics": (attribution_metrics.rows,),
}
PACKAGES = ("xaicore", "torch", "captum", "zennit", "scikit-image", "scipy", "numpy", "numba")
DIFFERENT = 1e-2
"""A relative difference above this is not the same output."""

HEADER = f"{'what':26s} {'peer':38s} {'n':>4s} {'ms, ours/peer':>19s} {'ratio':>7s}  goal       difference"


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of the table."""
    goal = "" if row["goal"] is None else f"{row['goal']:g}x {'met' if row['met'] else 'MISSED'}"
    times = f"{row['ours_ms']:.4g}/{row['peer_ms']:.4g}"
    return (
        f"{row['name']:26s} {row['peer']:38s} {row['n']:4d} {times:>19s} {row['ratio']:6.2f}x  {goal:10s}"
        f" {row['max_relative_error']:.1e}"
    )


def rows(kinds: Sequence[str], repeats: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of the parts named in ``kinds``."""
    for kind in kinds:
        for part in PARTS[kind]:
            for row in part(repeats=repeats, quick=quick):
                same = row["max_relative_error"] <= DIFFERENT
                yield {"kind": kind, **row, "met": bool(row["met"]) and same}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = command.parser(
        "attribution",
        "Time our explanations and metrics against others'.",
        quick="tiny networks and images",
        threads=True,
        repeats=(5, "most turns of a pair"),
    )
    parser.add_argument("--only", metavar="KINDS", help="explanations or metrics")
    options = parser.parse_args(arguments)
    settings = {"threads": options.threads, "repeats": options.repeats, "quick": options.quick}

    def work() -> command.Report:
        kinds = command.only(options.only or ",".join(PARTS), PARTS)
        with command.threads_of(options.threads):
            found = command.printed(HEADER, rows(kinds, options.repeats, options.quick), line)
        return {**command.made_here(SCHEMA, PACKAGES, **settings), "rows": found}

    return command.produce(options.path, work)


if __name__ == "__main__":
    sys.exit(main())
