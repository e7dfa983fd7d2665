"""What an edition costs before anyone has run it: operations, hours, memory and disk of each notebook.

The operations are counted (:mod:`xaicore.book.operations`) for what each notebook needs (:mod:`xaicore.book.needs`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from xaicore.book.editions import Edition
from xaicore.book.needs import NEEDS, Need
from xaicore.book.operations import operations_of, parameters_of
from xaicore.run.params import SCHEMAS

COLUMNS = ("notebook", "operations", "one GPU", "memory", "disk")
LARGE = 5e8
"""Operations of a forward pass from which on a network keeps a processor busy."""
OPERATIONS_PER_SECOND = {"large": 3e12, "small": 3e11}
"""Sustained in float32, for networks above and below :data:`LARGE`: about a third, and a thirtieth, of what a GPU of
the kind that Colab lends without charge (8 · 10¹² at most) could do."""
BASE_BYTES = 3 * 2**30
"""Of a process that has imported everything and works on a batch; the largest of the embedded edition takes 2.9 GiB."""


@dataclass(frozen=True)
class Cost:
    """What a notebook costs.

    Attributes:
        operations: floating-point operations; a multiplication and an addition are two.
        hours: on one GPU at :data:`OPERATIONS_PER_SECOND`.
        memory_bytes: of the notebook's process, mostly images that it holds at once.
        disk_bytes: of its entries in the store.
    """

    operations: float
    hours: float
    memory_bytes: float
    disk_bytes: float


def edition_costs(edition: Edition) -> dict[str, Cost]:
    """Return notebook → cost, for the notebooks of an edition that :data:`NEEDS` knows."""
    found = {}
    for name, run in edition.notebooks.items():
        if name in NEEDS:
            given = {key: value for key, value in run.parameters.items() if key != "device"}
            found[name] = _cost(NEEDS[name](SCHEMAS[name].check(given)))
    return found


def _cost(need: Need) -> Cost:
    operations = hours = 0.0
    for work in need.work:
        one = operations_of(work.network)
        operations += one * work.passes
        rate = OPERATIONS_PER_SECOND["large" if one >= LARGE else "small"]
        hours += one * work.passes / rate / 3600
    weights = sum(4 * parameters_of(network) for network in need.trained)
    return Cost(operations, hours, BASE_BYTES + 4 * need.values + weights, 4 * need.values + weights)


def cost_rows(edition: Edition) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the rows of a table: notebook, operations, GPU hours, memory, disk; the last row is for the whole edition."""
    costs = edition_costs(edition)
    for name, cost in costs.items():
        yield (name, *_shown(cost))
    whole = list(costs.values())
    if whole:
        yield (
            "all, one after the other",
            *_shown(
                Cost(
                    sum(cost.operations for cost in whole),
                    sum(cost.hours for cost in whole),
                    max(cost.memory_bytes for cost in whole),
                    sum(cost.disk_bytes for cost in whole),
                )
            ),
        )


def _shown(cost: Cost) -> tuple[str, str, str, str]:
    return (
        f"{cost.operations:.1e}",
        f"{cost.hours:.1f} h",
        f"{cost.memory_bytes / 2**30:.1f} GiB",
        f"{cost.disk_bytes / 2**30:.1f} GiB",
    )
