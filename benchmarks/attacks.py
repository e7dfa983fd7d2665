"""How fast and how good our attacks are beside foolbox, torchattacks and ART.

``python -m benchmarks.attacks [results.json] [--only fgsm,pgd_linf] [--images N] [--threads T] [--repeats R]
[--quick]``

For each attack that a peer has (:mod:`benchmarks.comparisons`): the time per image on both sides, the images
fooled, and the median distance from the clean images, in the same run, on the same images, at the same
settings. foolbox runs in this process, torchattacks and ART in an environment of their own that is made the
first time (:mod:`benchmarks.peers`); where that fails they are left out and the rest runs. An attack's
preparation (objects, conversion) is not timed. Our times include the check of the clean images and of the
result, which foolbox and ART do in part and torchattacks not at all. A peer gets all images in one batch where
it takes batches; ours takes its own batch size, or the number of images where that is less. Runs of ours and of
a peer alternate, never two at a time, and the fastest of each counts. Success is judged by a fresh pass of the
model, for all alike (:mod:`benchmarks.measure`).

The goals: at least as fast as foolbox (FGSM, BIM, PGD, DeepFool) and, for AutoAttack's parts, torchattacks; 2x for
Carlini-Wagner L2 at equal or smaller distance; 5x for one_pixel against torchattacks at the same population and
generations; 10x for Carlini-Wagner L-infinity against ART; success never lower (where starts are random: the mean over
several draws not lower by two standard errors). A ratio is the peer's time over ours: above 1, ours is faster.

The JSON, ``schema`` 1::

    date, machine {processor, cores, system}, versions {package: version}, threads, repeats, quick
    subjects   {name: what it is}
    rows       one for each attack, peer and variant of our settings:
        name, attack, subject, n, norm, variant ("equal" settings, our "default", or "shorter")
        library, peer_attack, note
        ours, peer   {parameters, fooled (for random starts the mean over draws), median_distance (over images
                      both fooled; null without), ms_per_image, passes_per_image}
        both_fooled, turns, ratio, goal (null without), met (bool), misses [text]
    left_out   [text]: what could not be compared, and why
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks import command, peers
from benchmarks.bench import Bench
from benchmarks.comparison import Comparison
from benchmarks.comparisons import COMPARISONS
from benchmarks.subjects import SUBJECTS

SCHEMA = 1
QUICK_IMAGES = 2
OURS = ("xaicore", "torch", "numpy", "scipy", "foolbox")


def chosen(only: str | None, quick: bool) -> list[Comparison]:
    """Return the comparisons named in ``only``, by their own name or their attack's; all without it.

    Args:
        only: names with commas between; None for all.
        quick: leave out what runs on photographs.

    Raises:
        UserError: a name is unknown.
    """
    subject = {"digits"} if quick else set(SUBJECTS)
    offered = [comparison for comparison in COMPARISONS if comparison.subject in subject]
    if only is None:
        return offered
    known = {name for comparison in COMPARISONS for name in (comparison.name, comparison.attack)}
    names = command.only(only, sorted(known))
    return [comparison for comparison in offered if {comparison.name, comparison.attack} & set(names)]


HEADER = (
    f"{'attack':10s} {'on':11s} {'settings':8s} {'peer':48s} {'n':>3s}  {'fooled':>9s}  {'median distance':>20s}"
    f"  {'ms per image':>19s}  {'ratio':>6s}  goal"
)


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of the table; ours stands before the peer's."""
    ours, peer = row["ours"], row["peer"]
    medians = [side["median_distance"] for side in (ours, peer)]
    distances = "/".join("-" if median is None else f"{median:.4g}" for median in medians)
    goal = "met" if row["met"] else "MISSED: " + "; ".join(row["misses"])
    aim = "" if row["goal"] is None else f"{row['goal']:g}x "
    name = f"{row['library']} {row['peer_attack']}"
    fooled = f"{ours['fooled']:.4g}/{peer['fooled']:.4g}"
    times = f"{ours['ms_per_image']:.4g}/{peer['ms_per_image']:.4g}"
    return (
        f"{row['name']:10s} {row['subject']:11s} {row['variant']:8s} {name:48s} {row['n']:3d}  {fooled:>9s}"
        f"  {row['norm'] + ' ' + distances:>20s}  {times:>19s}  {row['ratio']:5.2f}x  {aim}{goal}"
    )


def run(options: argparse.Namespace) -> command.Report:
    """Run the comparisons, print each row as it comes, and return the report.

    Raises:
        UserError: ``--only`` names what there is not.
    """
    comparisons = chosen(options.only, options.quick)
    bench = Bench(options.repeats, options.images, options.quick, None, command.print_now)
    versions = {}
    with ExitStack() as stack:
        stack.enter_context(command.threads_of(options.threads))
        try:
            bench.worker = stack.enter_context(peers.Worker(peers.prepare(), options.threads))
            versions = bench.worker.versions()
        except peers.PeerError as error:
            bench.leave_out(f"torchattacks and ART: {error}")
            bench.worker = None
        each = (row for comparison in comparisons for row in bench.rows(comparison))
        rows = command.printed(HEADER, each, line)
    command.print_now(f"{len(bench.left_out)} left out")
    used = {row["subject"] for row in rows}
    settings = {"threads": options.threads, "repeats": options.repeats, "quick": options.quick}
    return {
        **command.made_here(SCHEMA, OURS, versions, **settings),
        "subjects": {name: make().about for name, make in SUBJECTS.items() if name in used},
        "rows": rows,
        "left_out": bench.left_out,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = command.parser(
        "attacks",
        "Time our attacks against other libraries'.",
        quick="two images, digits only",
        threads=True,
        images=(None, "most images in a row"),
        repeats=(5, "most turns of a pair"),
    )
    parser.add_argument("--only", metavar="NAMES", help="comparisons or attacks, with commas between")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images = min(QUICK_IMAGES, options.images or QUICK_IMAGES)
    return command.produce(options.path, partial(run, options))


if __name__ == "__main__":
    sys.exit(main())
