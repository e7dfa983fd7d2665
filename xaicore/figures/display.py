"""How the notebooks show their tables: words to the left, numbers to the right, and only digits that mean something.

Every number of a table is in the record of its run, unrounded; what is shown here is for reading.
"""

import html
import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML

from xaicore.core.machine import machine_name
from xaicore.core.units import table_number
from xaicore.metrics import Estimate

WIDE, WIDEST = 7, 11
"""From so many columns on, a table is set in smaller type, and in the smallest."""
CROWDED = 10
"""Likewise in smaller type, where columns with intervals count twice."""

LONG = 20
"""A table of more rows may be folded."""

_NUMERIC = re.compile(r"[\s\d.,:+\-–−/×±%\[\]()∞e]*")
_SECOND = re.compile(r"(?<=\S) (\[[^\]]*\]|: \S+)$")
"""What may go to a line of its own: an interval behind its number, the second of two numbers with a colon between."""


def table(frame: pd.DataFrame) -> HTML:
    """Return ``frame``, without its index, as a table of a page.

    A column of whole numbers has no decimals; others are written by :func:`xaicore.core.units.table_number`.
    Undefined values are a dash. A column with a letter in one of its entries is one of words.
    Where room is short, the interval behind a number goes below it as a whole, and long names break after underscores.

    Args:
        frame: column names to numbers or strings.
    """
    columns = [_column(frame[name].tolist()) for name in frame.columns]
    classes = ["words" if wordy else "number" for _, wordy in columns]
    head = _row("th", [str(name) for name in frame.columns], classes)
    body = "\n".join(
        _row("td", cells, classes) for cells in zip(*(texts for texts, _ in columns), strict=True)
    )
    count = len(columns)
    crowd = count + sum(any(_SECOND.search(text) for text in texts) for texts, _ in columns)
    kind = "dataframe" + " wide" * (count >= WIDE or crowd >= CROWDED) + " widest" * (count >= WIDEST)
    return HTML(f'<table class="{kind}">\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>')


def folded(frame: pd.DataFrame) -> HTML:
    """Return ``frame`` as :func:`table` does, behind a click where it has more than :data:`LONG` rows."""
    shown = table(frame)
    if len(frame) <= LONG:
        return shown
    return HTML(f"<details><summary>{len(frame)} rows</summary>\n{shown.data}\n</details>")


def cell(estimate: Estimate | None, digits: int = 2, interval_digits: int | None = None) -> str:
    """Return an estimate with its interval, in its unit, as an entry of a table.

    Args:
        estimate: a dash stands for None and for what is not finite.
        digits: decimals.
        interval_digits: decimals of the interval; None: as many.
    """
    if estimate is None or not math.isfinite(estimate.value):
        return "–"
    ends = digits if interval_digits is None else interval_digits
    return f"{estimate.value:.{digits}f} [{estimate.low:.{ends}f}, {estimate.high:.{ends}f}]"


def spread(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` with a column of estimates as three: its values, and ``from`` and ``to`` of their intervals.

    Raises:
        ValueError: several columns hold estimates; ``from`` and ``to`` could not say whose they are.
    """
    held = [name for name in frame.columns if any(isinstance(each, Estimate) for each in frame[name])]
    if len(held) > 1:
        raise ValueError(
            f"only one column may hold estimates, write each as cell(estimate): {', '.join(held)}"
        )
    for name in held:
        none = Estimate(math.nan, math.nan, math.nan, 0)
        given = [each if isinstance(each, Estimate) else none for each in frame[name]]
        place = frame.columns.to_list().index(name)
        frame = frame.assign(**{name: [each.value for each in given]})
        frame.insert(place + 1, "from", [each.low for each in given])
        frame.insert(place + 2, "to", [each.high for each in given])
    return frame


def provenance(source: dict[str, Any]) -> HTML:
    """Return what a run rests on as a table: device, time, memory, versions, fingerprints.

    Args:
        source: from :meth:`xaicore.run.records.Run.provenance`.
    """
    rows = {
        "device": machine_name(source),
        "threads": source["threads"],
        "seconds": source["seconds"],
        "peak memory (MiB)": source["peak_memory_bytes"] // 2**20,
        "torch": source["packages"]["torch"],
        **{f"{item['name']}, {item['split']}": item["fingerprint"][:16] for item in source["data"]},
        **{f"weights, {item['label']}": item["fingerprint"][:16] for item in source["models"]},
    }
    return table(pd.DataFrame(rows.items(), columns=["provenance", "here"]))


def _row(tag: str, cells: Sequence[str], classes: Sequence[str]) -> str:
    inner = "".join(
        f'<{tag} class="{kind}">{_number(cell) if _NUMERIC.fullmatch(cell) else _words(cell)}</{tag}>'
        for cell, kind in zip(cells, classes, strict=True)
    )
    return f"<tr>{inner}</tr>"


def _words(cell: str) -> str:
    return html.escape(cell).replace("_", "_<wbr>")


def _number(cell: str) -> str:
    return _SECOND.sub(r' <span class="interval">\1</span>', html.escape(cell.replace("-", "−")))


def _column(values: list[Any]) -> tuple[list[str], bool]:
    numbers = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    whole = all(value.is_integer() for value in numbers)
    texts = [_text(value, whole) for value in values]
    return texts, not all(_NUMERIC.fullmatch(text) for text in texts)


def _text(value: Any, whole: bool) -> str:
    if value is None or value is pd.NA:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u2009") if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return _text(int(value), True) if whole and math.isfinite(value) else table_number(value)
    return str(value)
