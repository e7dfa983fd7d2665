"""The page of execution statistics: what ran where, on which data and weights, for how long."""

from collections.abc import Mapping
from typing import Any

from xaicore.book.pages.conditions import conditions
from xaicore.book.pages.markdown import table
from xaicore.book.pages.measured import MARK
from xaicore.core.machine import machine_name

EDITION_ORDER = ("paper", "reference", "embedded")


def run_label(edition: str, notebook: str) -> str:
    """Return the label of a run's section, which other pages refer to."""
    return f"run-{edition}-{notebook}".replace("_", "-")


def statistics_page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page in MyST Markdown.

    Args:
        records: edition → notebook → record (see :mod:`xaicore.run.records`).
    """
    lines = [
        "# Execution statistics",
        "",
        "Each number in this book was computed by a run that left a record behind. This page shows, for every run, the",
        "machine, the data and the weights, so that a reader can tell whether a re-run is the same experiment. The",
        "fingerprints are the first 16 characters of sha256 digests; equal fingerprints mean equal bytes.",
        "",
    ]
    editions = sorted(
        records, key=lambda name: (EDITION_ORDER.index(name) if name in EDITION_ORDER else 9, name)
    )
    lines += _cost(records, editions)
    for edition in editions:
        for notebook, record in sorted(records[edition].items()):
            lines += _run(edition, notebook, record)
    return "\n".join(lines) + "\n"


def _cost(records: Mapping[str, Mapping[str, Any]], editions: list[str]) -> list[str]:
    """What the chapters cost: time and memory of each edition against the number and size of the images."""
    rows = []
    for notebook in sorted({name for edition in editions for name in records[edition]}):
        for edition in reversed(editions):
            record = records[edition].get(notebook)
            if record is None:
                continue
            source = record["provenance"]
            threads = source["threads"]
            rows.append(
                (
                    f"{{doc}}`{notebook.split('_')[0]} </notebooks/{notebook}>`",
                    f"{{ref}}`{edition} <{run_label(edition, notebook)}>`",
                    conditions(record),
                    ("at least " if source["store"]["reused"] else "") + _duration(source["seconds"]),
                    f"{source['peak_memory_bytes'] / 2**20:,.0f}",
                    f"{source['device']}, {threads} thread{'s' * (threads != 1)}",
                )
            )
    head = ("Chapter", "Edition", "Images", "Time", "Memory (MiB)", "Device")
    return [
        "## Time and memory against the number of images",
        "",
        "What each chapter took in each edition that has a record. *Images* are those that are attacked or explained,",
        "not those that a network is trained on. Editions also differ in networks and in the effort of the attacks, so",
        "the time does not only follow the number of images. *Memory* is the most that the process held, without what",
        "lies on a GPU. Where it says *at least*, the run took some steps over from another chapter or from an",
        "interrupted run, and these cost no time here.",
        "",
        ":::{container} costs",
        *table(head, rows),
        ":::",
        "",
        "## What one more image costs",
        "",
        "The same chapters with the parameters of the quick edition, but more and more images, one batch at a time, each",
        "in a new process: `python -m benchmarks.scaling`. Networks were trained before. Memory has a part that does not",
        "depend on the number of images (libraries, the network, one batch with its gradients) and a part that does: the",
        "images, their attacked versions and whatever a table or figure needs of each. The last columns give it for one",
        "image, and how many times the image itself that is. The fewest photographs do not fill a batch, so for",
        "these the slope is steeper than it is from there on.",
        "",
        ":::{container} costs",
        MARK.format("scaling"),
        ":::",
        "",
        "Where the tables name no GPU, none was to be had, and no time on a GPU was measured. What the paper edition",
        "expects of one stands on its page.",
        "",
        "## A detection beside the plain route",
        "",
        "What chapter 5's detector takes for one image, beside scikit-image and Captum called for one image after the",
        "other, at equal output: `python -m benchmarks.detectors`. Attacks and explanations are timed beside other",
        "libraries on their own pages.",
        "",
        MARK.format("detectors"),
        "",
    ]


def _run(edition: str, notebook: str, record: Mapping[str, Any]) -> list[str]:
    source = record["provenance"]
    facts = [
        ("Device", machine_name(source)),
        ("Threads", source["threads"]),
        ("Time of this run (steps from the store cost none)", _duration(source["seconds"])),
        ("Peak memory", f"{source['peak_memory_bytes'] / 2**20:,.0f} MiB"),
        (
            "Steps computed / taken from the store",
            f"{source['store']['computed']} / {source['store']['reused']}",
        ),
        ("Seed", source["seed"]),
        ("Python", source["python"]),
    ]
    lines = [f"({run_label(edition, notebook)})=", f"## {notebook}, {edition} edition", ""]
    lines += table(("", ""), facts)
    data = [
        (item["name"], item["split"], item["n"], f"`{item['fingerprint'][:16]}`") for item in source["data"]
    ]
    lines += ["**Data**", "", *table(("Set", "Split", "Images", "Fingerprint"), data)]
    models = [
        (item["label"], item["name"], f"{item['parameters']:,}", f"`{item['fingerprint'][:16]}`")
        for item in source["models"]
    ]
    lines += ["**Weights**", "", *table(("Model", "Architecture", "Parameters", "Fingerprint"), models)]
    parameters = [(f"`{name}`", f"`{value}`") for name, value in record["parameters"].items()]
    lines += ["````{dropdown} Parameters", "", *table(("Name", "Value"), parameters), "````", ""]
    packages = [(name, version) for name, version in source["packages"].items()]
    lines += ["````{dropdown} Package versions", "", *table(("Package", "Version"), packages), "````", ""]
    return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
