"""What a run looked at, in a few words taken from its record: image sets, how many images, their size, the network."""

from collections.abc import Mapping
from typing import Any

SUBJECTS = (
    ("dataset", "n_images", "size", "model"),
    ("second_dataset", "n_second", "second_size", None),
    ("photographs", "n_photographs", "photograph_size", "photograph_model"),
)
"""The parameters that name an image set, how many of its images, their height and width, and the network."""


def conditions(record: Mapping[str, Any]) -> str:
    """Return in a phrase what a run looked at, such as ``mnist-5k, 50 images, 28 px``.

    Where the parameters ask for all images, the number is that of the last part of the set that the run loaded.

    Args:
        record: the run's record, see :mod:`xaicore.run.records`.
    """
    return "; ".join(_phrase(*subject[:3]) for subject in _subjects(record))


def differences(record: Mapping[str, Any], beside: Mapping[str, Any]) -> str:
    """Return in a phrase what one run looked at that another did not; the images of a subject are named together.

    Args:
        record: the record of the run that is spoken of.
        beside: the record of the run that the reader has seen already.
    """
    seen = _subjects(beside)
    other = [subject for subject in _subjects(record) if subject not in seen]
    networks = {subject[3] for subject in seen}
    named = dict.fromkeys(model for *_, model in other if model and model not in networks)
    return "; ".join([*(_phrase(*subject[:3]) for subject in other), *named]) or "the same images"


def _subjects(record: Mapping[str, Any]) -> list[tuple[str, int | None, int | None, str | None]]:
    parameters = record["parameters"]
    found = []
    for dataset, number, size, model in SUBJECTS:
        name = parameters.get(dataset)
        if name:
            count = parameters.get(number) or _loaded(record, name)
            network = parameters.get(model) if model else None
            found.append((str(name), count, parameters.get(size), network))
    return found


def _loaded(record: Mapping[str, Any], name: str) -> int | None:
    counts = [item["n"] for item in record["provenance"]["data"] if item["name"] == name]
    return counts[-1] if counts else None


def _phrase(name: str, count: int | None, size: int | None) -> str:
    parts = [name, f"{count:,} image{'s' * (count != 1)}" if count else "", f"{size} px" if size else ""]
    return ", ".join(part for part in parts if part)
