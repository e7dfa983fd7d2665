"""How throughput grows with the workers of a Ray cluster, beside the local engine with as many workers.

``python -m benchmarks.cluster [results.json] [--workers 1,2,4] [--images N] [--batch B] [--generations G]
[--repeats R] [--engine ray://…] [--quick]``

The work is one attack (``one_pixel``) on digits that a small network gets right, cut into batches. Each engine computes
all batches into an empty store, with one thread a worker, in turn with the other, and the fastest repeat of each counts.
Workers are started before the clock: how long that takes stands apart. The images of all runs must be the same to the
last bit. Without ``--engine`` the cluster is this machine (``ray://local``), which has no more cores than it has: beyond
them the throughput cannot grow.

The JSON, ``schema`` 1::

    date, machine {processor, cores, system}, versions {package: version}, engine, images, batch, generations,
    repeats, quick
    places     workers that the cluster has room for
    start_seconds   from no connection to the first batch of one worker
    rows       workers, cluster_seconds, local_seconds, cluster_images_per_second, local_images_per_second,
               speedup (over the cluster's own first row), efficiency (speedup per worker, relative to that row),
               overhead (the cluster's time over the local one), identical (bool)
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks import command
from benchmarks.command import positive, print_now
from benchmarks.subjects import Subject, digits
from xaicore.attacks import AttackResult
from xaicore.core.errors import UserError
from xaicore.run import engine
from xaicore.run.cluster import RayEngine
from xaicore.run.engine import Engine, LocalEngine
from xaicore.run.store import Store
from xaicore.studies import steps

SCHEMA = 1
PACKAGES = ("xaicore", "torch", "numpy", "ray")
QUICK_IMAGES, QUICK_BATCH, QUICK_GENERATIONS = 8, 2, 1
HEADER = "workers   cluster     local  images/s  speedup efficiency overhead"


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of the table."""
    return (
        f"{row['workers']:7d} {row['cluster_seconds']:8.3f}s {row['local_seconds']:8.3f}s "
        f"{row['cluster_images_per_second']:9.1f} {row['speedup']:7.2f}x {row['efficiency']:10.2f} "
        f"{row['overhead']:7.2f}x" + ("" if row["identical"] else "  NOT IDENTICAL")
    )


def timed(
    place: Engine, subject: Subject, images: int, batch: int, generations: int
) -> tuple[float, AttackResult]:
    """Return the seconds of one-pixel attacks on the images, into an empty store, and their result."""
    with tempfile.TemporaryDirectory() as folder:
        place.store = Store(folder)
        begin = time.perf_counter()
        result = steps.attacked(
            place,
            "one_pixel",
            subject.model,
            subject.images[:images],
            subject.labels[:images],
            batch_size=batch,
            rows=batch,
            generations=generations,
        )
        return time.perf_counter() - begin, result


def run(options: argparse.Namespace, subject: Subject) -> command.Report:
    """Time each number of workers, print each row, and return the report.

    Raises:
        UserError: the cluster does not answer or has too few places.
    """
    size = (options.batch, options.generations)
    store = Store("unused")
    begin = time.perf_counter()
    first = RayEngine(options.engine, store, workers=1)
    timed(first, subject, options.batch, *size)
    start = time.perf_counter() - begin
    places = first.places({"num_cpus": 1})
    if max(options.workers) > places:
        raise UserError(
            f"the cluster has room for {places} workers, not for {max(options.workers)}; name fewer with --workers"
        )
    rows: list[dict[str, Any]] = []
    print_now(f"first batch of one worker after {start:.1f} s\n{HEADER}")
    for workers in options.workers:
        ray, local = RayEngine(options.engine, store, workers=workers), LocalEngine(store, workers=workers)
        timed(ray, subject, workers * options.batch * 4, *size)  # until all workers are there
        whole = (subject, options.images, *size)
        turns = [(timed(ray, *whole), timed(local, *whole)) for _ in range(options.repeats)]
        seconds = [min(turn[side][0] for turn in turns) for side in (0, 1)]
        found = [turn[side][1] for turn in turns for side in (0, 1)]
        per_second = options.images / seconds[0]
        speedup = per_second / rows[0]["cluster_images_per_second"] if rows else 1.0
        rows.append(
            {
                "workers": workers,
                "cluster_seconds": seconds[0],
                "local_seconds": seconds[1],
                "cluster_images_per_second": per_second,
                "local_images_per_second": options.images / seconds[1],
                "speedup": speedup,
                "efficiency": speedup * options.workers[0] / workers,
                "overhead": seconds[0] / seconds[1],
                "identical": all(torch.equal(found[0].adversarial, each.adversarial) for each in found),
            }
        )
        print_now(line(rows[-1]))
    engine = "ray://local" if options.engine == "ray://local" else "ray://…"
    settings = {
        name: getattr(options, name) for name in ("images", "batch", "generations", "repeats", "quick")
    }
    made = command.made_here(SCHEMA, PACKAGES, engine=engine, **settings)
    return {**made, "places": places, "start_seconds": start, "rows": rows}


def numbers(text: str) -> list[int]:
    """Return the whole numbers above 0 in ``text``, in order, with commas between."""
    return sorted({positive(part) for part in text.split(",")})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = command.parser(
        "cluster",
        "Time the engine of a Ray cluster.",
        quick="few images, once",
        images=(32, "how many"),
        batch=(8, "images in a batch"),
        generations=(10, "of the one-pixel attack"),
        repeats=(3, "turns of each engine"),
    )
    parser.add_argument(
        "--workers", type=numbers, metavar="1,2,4", help="default: 1, 2, 4, … up to the cores"
    )
    parser.add_argument("--engine", metavar="ray://…", default="ray://local")
    options = parser.parse_args(arguments)
    if options.workers is None:
        options.workers = [1 << power for power in range(engine.cores().bit_length())]
    if options.quick:
        options.images, options.batch, options.repeats = QUICK_IMAGES, QUICK_BATCH, 1
        options.generations = QUICK_GENERATIONS

    def work() -> command.Report:
        if options.engine == "local":
            raise UserError("--engine must name a Ray cluster; the local engine is timed beside it")
        engine.check(options.engine)
        with command.threads_of(1):
            return run(options, digits())

    return command.produce(
        options.path, work, good=lambda made: all(row["identical"] for row in made["rows"])
    )


if __name__ == "__main__":
    sys.exit(main())
