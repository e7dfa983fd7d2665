"""The page of execution statistics: what ran where, on which data and weights, for how long."""

from collections.abc import Mapping
from typing import Any

from xaicore.book.claims.schema import EDITIONS
from xaicore.book.pages.markdown import table
from xaicore.core.machine import machine_name
from xaicore.run.params import SCHEMAS
from xaicore.run.params.readings import Subject

COSTS_MARK, RUNS_MARK = "<!-- chapters -->", "<!-- runs -->"


def run_label(edition: str, notebook: str) -> str:
    """Return the label of a run's section, which other pages refer to."""
    return f"run-{edition}-{notebook}".replace("_", "-")


def statistics_page(text: str, records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page with what the runs cost, and a section for each run, in the places that it has for them.

    Args:
        text: ``book/statistics.md``.
        records: edition → notebook → record (see :mod:`xaicore.run.records`).
    """
    editions = sorted(records, key=lambda name: ([*EDITIONS, name].index(name), name))
    runs = [
        line
        for edition in editions
        for notebook, record in sorted(records[edition].items())
        for line in _run(edition, notebook, record)
    ]
    return text.replace(COSTS_MARK, "\n".join(_costs(records, editions))).replace(RUNS_MARK, "\n".join(runs))


def _costs(records: Mapping[str, Mapping[str, Any]], editions: list[str]) -> list[str]:
    """Return a table of time and memory of each edition against the number and size of the images."""
    rows = []
    for notebook in sorted({name for edition in editions for name in records[edition]}):
        for edition in (name for name in reversed(editions) if notebook in records[name]):
            record = records[edition][notebook]
            source = record["provenance"]
            threads = source["threads"]
            rows.append(
                (
                    f"{{doc}}`{notebook.split('_')[0]} </notebooks/{notebook}>`",
                    f"{{ref}}`{edition} <{run_label(edition, notebook)}>`",
                    conditions(record),
                    ("at least\u00a0" if source["store"]["reused"] else "") + _duration(source["seconds"]),
                    f"{source['peak_memory_bytes'] / 2**20:,.0f}",
                    f"{source['device']}, {threads} thread{'s' * (threads != 1)}",
                )
            )
    return table(("Chapter", "Edition", "Images", "Time", "Memory (MiB)", "Device"), rows)


def _run(edition: str, notebook: str, record: Mapping[str, Any]) -> list[str]:
    source = record["provenance"]
    facts = [
        ("Device", machine_name(source)),
        ("Threads", source["threads"]),
        ("Time of this run (steps from the store cost none)", _duration(source["seconds"])),
        ("Peak memory", f"{source['peak_memory_bytes'] / 2**20:,.0f} MiB"),
        ("Steps computed / taken from the store", "{computed} / {reused}".format(**source["store"])),
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
    packages = table(("Package", "Version"), list(source["packages"].items()))
    lines += ["````{dropdown} Package versions", "", *packages, "````", ""]
    return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    text = f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
    return text.replace(" ", "\u00a0")


def conditions(record: Mapping[str, Any]) -> str:
    """Return in a phrase what a run looked at, such as ``mnist-5k, 50 images, 28 px, small_cnn``.

    Where the parameters ask for all images, the number is that of the last part of the set that the run loaded.
    """
    subjects = SCHEMAS[record["notebook"]].of_record(record["parameters"]).subjects
    return "; ".join(_phrase(record, subject) for subject in subjects)


def _phrase(record: Mapping[str, Any], subject: Subject) -> str:
    counts = [item["n"] for item in record["provenance"]["data"] if item["name"] == subject.dataset]
    count = subject.n or next(reversed(counts), None)
    parts = [
        subject.dataset,
        f"{count:,} image{'s' * (count != 1)}" if count else "",
        f"{subject.size} px" if subject.size else "",
        subject.model or "",
    ]
    return ", ".join(part for part in parts if part)
