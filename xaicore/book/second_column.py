"""Tables of several editions as one: a second column of numbers where the rows are the same.

Only tables made by :func:`xaicore.figures.display.table` are read. They are joined where nothing can be mistaken: the
same head, the same rows in the same order, told apart by their words, and few enough columns for a page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from xaicore.figures.display import WIDE

MOST, MOST_REPEATED = 8, 2
"""The most columns of a joined table, where a number with an interval counts twice, and of one edition's part in it."""

_TABLE = re.compile(
    r'<table class="dataframe[^"]*">\n<thead>\n<tr>(?P<head>.*?)</tr>\n</thead>\n'
    r"<tbody>\n(?P<body>.*?)\n?</tbody>\n</table>",
    re.DOTALL,
)
_CELL = re.compile(r'<(t[hd]) class="(?P<kind>words|number)">(?P<text>.*?)</\1>', re.DOTALL)
_ROW = re.compile(r"<tr>(.*?)</tr>", re.DOTALL)


@dataclass(frozen=True)
class _Table:
    """A table's head, kinds of columns (``words`` or ``number``) and rows, as HTML."""

    head: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, index: int) -> tuple[str, ...]:
        return tuple(row[index] for row in self.rows)


def joined(tables: Sequence[tuple[str, str]]) -> str | None:
    """Return one table with the numbers of all, column beside column; None where they do not fit together.

    Args:
        tables: edition and HTML of each, at least two; the first gives the order.
    """
    read = [_read(text) for _, text in tables]
    first = read[0]
    if first is None or not first.rows:
        return None
    others = [table for table in read[1:] if table is not None and _alike(first, table)]
    if len(others) < len(tables) - 1:
        return None
    columns = range(len(first.head))
    several = [k for k in columns if any(table.column(k) != first.column(k) for table in others)]
    told_apart = [k for k in columns if first.kinds[k] == "words" or (several and k < several[0])]
    rows = [tuple(row[k] for k in told_apart) for row in first.rows]
    if not several or any(first.kinds[k] == "words" for k in several) or len(set(rows)) < len(rows):
        return None
    crowd = sum(
        (len(tables) if k in several else 1)
        * (1 + any('class="interval"' in cell for cell in first.column(k)))
        for k in columns
    )
    if crowd > MOST or len(several) > MOST_REPEATED:
        return None
    return _write([name for name, _ in tables], [first, *others], several)


def _read(text: str) -> _Table | None:
    match = _TABLE.fullmatch(text.strip())
    if match is None:
        return None
    head = [(cell["text"], cell["kind"]) for cell in _CELL.finditer(match["head"])]
    rows = tuple(
        tuple(cell["text"] for cell in _CELL.finditer(row[1])) for row in _ROW.finditer(match["body"])
    )
    if not head or any(len(row) != len(head) for row in rows):
        return None
    return _Table(tuple(name for name, _ in head), tuple(kind for _, kind in head), rows)


def _alike(one: _Table, other: _Table) -> bool:
    return (one.head, one.kinds, len(one.rows)) == (other.head, other.kinds, len(other.rows))


def _write(names: Sequence[str], tables: Sequence[_Table], several: Sequence[int]) -> str:
    first = tables[0]
    above, below = [], []
    for k, (title, kind) in enumerate(zip(first.head, first.kinds, strict=True)):
        if k in several:
            above.append(f'<th class="number over" colspan="{len(names)}" scope="colgroup">{title}</th>')
            below += [
                f'<th class="number{_other(n)}" scope="col">{name}</th>' for n, name in enumerate(names)
            ]
        else:
            above.append(f'<th class="{kind}" rowspan="2" scope="col">{title}</th>')
    rows = []
    for number in range(len(first.rows)):
        cells = []
        for k, kind in enumerate(first.kinds):
            shown = tables if k in several else tables[:1]
            cells += [
                f'<td class="{kind}{_other(n)}">{table.rows[number][k]}</td>' for n, table in enumerate(shown)
            ]
        rows.append("<tr>" + "".join(cells) + "</tr>")
    count = len(first.head) + len(several) * (len(names) - 1)
    head = f"<tr>{''.join(above)}</tr>\n<tr>{''.join(below)}</tr>"
    kind = "dataframe editions" + " wide" * (count >= WIDE)
    body = "\n".join(rows)
    return f'<table class="{kind}">\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def _other(position: int) -> str:
    return " other" if position else ""
