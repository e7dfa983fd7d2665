"""The parameters cells of the notebooks, made from their schemas: ``python -m xaicore.run.params.notebooks [--write]``.

A parameter is a line ``name: type = default  # description``, which ``papermill --help-notebook`` lists. The description
is the schema's, followed by the bounds and the names that the schema allows. Without ``--write`` the command only says
which notebooks are not as their schemas, and ends with status 1 where there are any.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import nbformat
from pydantic.fields import FieldInfo

from xaicore.run.params import SCHEMAS, NotebookParameters
from xaicore.run.params.base import alternatives
from xaicore.run.params.checks import choices

LAST = ("seed", "device", "threads", "output_dir")
"""Parameters of how a notebook runs, which stand below those of what it does."""
WIDTH = 100
"""Longer lists have a line for each entry."""
DIGITS = 10
"""Longer numbers are written as a fraction, where they are one."""
NOTEBOOKS = Path(__file__).resolve().parents[3] / "notebooks"


def parameters_cell(schema: type[NotebookParameters]) -> str:
    """Return the source of the cell tagged ``parameters`` of a schema's notebook."""
    names = [*(name for name in schema.model_fields if name not in LAST), *LAST]
    return "\n".join(["# fmt: off", *(_line(name, schema.model_fields[name]) for name in names)])


def _line(name: str, field: FieldInfo) -> str:
    default = field.get_default()
    value = _notation(default)
    if isinstance(default, list) and len(value) > WIDTH:
        value = "[\n" + "".join(f"    {_notation(entry)},\n" for entry in default) + "]"
    meaning = "; ".join([field.description or "", *_bounds(field), *_names(field)])
    return f"{name}: {_type(field)} = {value}  # {meaning}"


def _notation(value: Any) -> str:
    """Return a value as one would write it: 2/255 as text, since the schema reads fractions."""
    if isinstance(value, list):
        return f"[{', '.join(map(_notation, value))}]"
    if isinstance(value, float) and len(repr(value)) > DIGITS:
        ratio = Fraction(value).limit_denominator(1000)
        return f'"{ratio}"' if float(ratio) == value else repr(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _type(field: FieldInfo) -> str:
    """Return the annotation, without None, which papermill does not read."""
    kind = next(kind for kind in alternatives(field.annotation) if kind is not type(None))
    if get_origin(kind) is list:
        return f"list[{_name(get_args(kind)[0])}]"
    return _name(kind)


def _name(kind: Any) -> str:
    """Return the name of a plain type, and of the one below ``Annotated`` or of the values of ``Literal``."""
    inner = get_args(kind)
    if not inner:
        return str(kind.__name__)
    return _name(type(inner[0]) if get_origin(kind) is Literal else inner[0])


def _bounds(field: FieldInfo) -> Iterator[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = {
        bound: getattr(item, bound) for bound in words for item in field.metadata if hasattr(item, bound)
    }
    if {"ge", "le"} == set(found):
        yield f"{found['ge']} to {found['le']}"
    elif found:
        yield " and ".join(f"{words[bound]} {value}" for bound, value in found.items())
    for item in field.metadata:
        if hasattr(item, "min_length"):
            yield f"at least {item.min_length} of them"


def _names(field: FieldInfo) -> Iterator[str]:
    literal = [kind for kind in alternatives(field.annotation) if get_origin(kind) is Literal]
    names = choices(field.metadata) or tuple(name for kind in literal for name in get_args(kind))
    if names:
        yield f"{'each' if get_origin(field.annotation) is list else 'one'} of: {', '.join(names)}"


def main() -> int:
    """Compare or write the cells; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m xaicore.run.params.notebooks", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the cells that are not as their schemas")
    write = parser.parse_args().write
    different = []
    for name, schema in SCHEMAS.items():
        path = NOTEBOOKS / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        if cell.source != parameters_cell(schema):
            different.append(name)
            cell.source = parameters_cell(schema)
            if write:
                nbformat.write(notebook, path)
    if different:
        print(f"{'written' if write else 'not as their schemas'}: {', '.join(different)}")
    return 1 if different and not write else 0


if __name__ == "__main__":
    sys.exit(main())
