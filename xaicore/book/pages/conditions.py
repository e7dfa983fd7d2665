"""What a run looked at, in a few words taken from its record: image sets, how many images, their size, the network."""

from collections.abc import Mapping
from typing import Any

from xaicore.run.params import SCHEMAS
from xaicore.run.params.readings import Subject


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
