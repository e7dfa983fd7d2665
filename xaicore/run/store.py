"""Results of expensive steps, addressed by what they were made from.

The address of a result is the digest of the step's name, its code, its inputs and the environment (versions
of the libraries that compute, kind of device, number of threads). So a run that was killed continues where it
stopped, and a change of code, data, weights or parameters that matters gives another address. An entry is one
safetensors file: the tensors, and in its metadata everything else as JSON and a checksum of both (CRC-32, against
damage, not malice). It is written under a temporary name and renamed, so any number of processes may share a store.
"""

import importlib.metadata
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from xaicore.core import progress
from xaicore.core.errors import UserError
from xaicore.core.files import write_atomically
from xaicore.core.fingerprint import checksum, code_digest, digest
from xaicore.core.machine import return_free_memory
from xaicore.run.repository import working_copy

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "captum", "umap-learn", "scikit-learn", "timm")
METADATA = "xaicore"
UNFINISHED = ".unfinished"
STALE_SECONDS = 24 * 3600
TIDY_SECONDS = 1.0
"""Seconds of computing after which freed memory goes back to the system."""


class Result(dict[str, Any]):
    """Arrays and plain values of a step, by name.

    Attributes:
        seconds: how long the computation took when it was made, also if it came out of the store now.
        reused: whether it came out of the store.
    """

    def __init__(self, content: Mapping[str, Any], *, seconds: float, reused: bool) -> None:
        super().__init__(content)
        self.seconds = seconds
        self.reused = reused


class Store:
    """A folder of results.

    Args:
        root: the folder; None takes ``$XAICORE_STORE``, else ``runs/store`` of the working copy that the
            current folder lies in, else the user's cache folder.
        read: whether existing entries are used. None means yes unless ``$XAICORE_STORE_READ`` is ``0``.
            Entries that this very object wrote are always used.

    Attributes:
        computed: steps computed by this object.
        reused: steps found in the store by this object.
    """

    def __init__(self, root: str | Path | None = None, *, read: bool | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.read = os.environ.get("XAICORE_STORE_READ") != "0" if read is None else read
        self.computed = 0
        self.reused = 0
        self._own: set[str] = set()
        self._swept: set[Path] = set()
        self._untidied = 0.0

    def address(self, step: str, inputs: Any, *, code: Callable[..., Any]) -> str:
        """Return the address (64 hex characters) of the result of ``step``; see :meth:`get_or_compute`."""
        return digest(step, code_digest(code), inputs, environment(_device_type(inputs)))

    def get_or_compute(
        self,
        step: str,
        inputs: Any,
        compute: Callable[..., Mapping[str, Any]],
        *,
        code: Callable[..., Any],
        resumes: bool = False,
    ) -> Result:
        """Return the result of a step: from the store, or computed now and stored.

        Args:
            step: what is done, a few words; entries lie in a folder of about that name.
            inputs: everything the result depends on: whatever :func:`xaicore.core.fingerprint.digest` understands
                (models count by their ``fingerprint``). A tensor or module on a GPU makes the result one of
                that kind of device.
            compute: makes the result: names → tensors, arrays, or what JSON can hold. A :class:`Result` brings
                its own ``seconds``, those of another machine, say.
            code: the function that does the work; the result belongs to its code as it is now.
            resumes: whether ``compute`` is called with the path of a file, in which it may keep how far it has come, and
                find it again after it was killed; the file is removed at the end.

        Returns:
            The same values whether computed or found: tensors on the CPU with their dtype, arrays as tensors,
            other values as JSON returns them.

        Raises:
            UserError: the disk is full or the store cannot be written to.
            TypeError: an input has no digest, or a value can be neither a tensor nor JSON.
        """
        address = self.address(step, inputs, code=code)
        path = self.root / _folder(step) / f"{address}.safetensors"
        found = self._load(step, path) if self.read or address in self._own else None
        if found is not None:
            self.reused += 1
            return found
        begin = time.perf_counter()
        unfinished = path.with_suffix(UNFINISHED)
        made = compute(unfinished) if resumes else compute()
        content = plain(step, made)
        spent = time.perf_counter() - begin
        seconds = made.seconds if isinstance(made, Result) else spent
        self._save(step, path, content, seconds)
        unfinished.unlink(missing_ok=True)
        self._own.add(address)
        self.computed += 1
        self._untidied += spent
        if (
            self._untidied > TIDY_SECONDS
        ):  # it takes some hundredths of a second, too long for every short step
            self._untidied = 0.0
            return_free_memory()
        return Result(content, seconds=seconds, reused=False)

    def _save(self, step: str, path: Path, content: dict[str, Any], seconds: float) -> None:
        self._sweep(path.parent)
        tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
        description = {
            "step": step,
            "order": list(content),
            "values": {name: value for name, value in content.items() if name not in tensors},
            "seconds": seconds,
            "checksum": _checksum(content, seconds),
        }
        encoded = safetensors.torch.save(tensors, metadata={METADATA: json.dumps(description)})
        write_atomically(path, encoded, what=f"a result of {step}")

    def _load(self, step: str, path: Path) -> Result | None:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                description = json.loads((file.metadata() or {})[METADATA])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            content = {
                name: tensors[name] if name in tensors else description["values"][name]
                for name in description["order"]
            }
            seconds = float(description["seconds"])
            if description["checksum"] != _checksum(content, seconds):
                raise ValueError("checksum")
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError):
            progress.warn(f"a stored result of {step} is damaged and is computed anew")
            return None
        return Result(content, seconds=seconds, reused=True)

    def _sweep(self, folder: Path) -> None:
        """Remove, once a folder, what processes that were killed left in it: while writing, or a week ago in a step."""
        if folder in self._swept or not folder.is_dir():
            return
        self._swept.add(folder)
        for pattern, age in ((".*.tmp", STALE_SECONDS), (f"*{UNFINISHED}", 7 * STALE_SECONDS)):
            for leftover in folder.glob(pattern):
                with suppress(OSError):
                    if time.time() - leftover.stat().st_mtime > age:
                        leftover.unlink()


def default_root() -> Path:
    """Return the folder of the store where none is named; see :class:`Store`."""
    if named := os.environ.get("XAICORE_STORE"):
        return Path(named).expanduser()
    if project := working_copy():
        return project / "runs" / "store"
    cache_folder = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache_folder) if cache_folder else Path.home() / ".cache") / "xaicore" / "store"
    except RuntimeError as error:
        raise UserError("there is no home folder to keep results in; name one in XAICORE_STORE") from error


def _folder(step: str) -> str:
    """Return a folder name for a step: its letters and digits, in lower case."""
    name = re.sub(r"[^a-z0-9]+", "-", step.lower()).strip("-")[:60]
    if not name:
        raise ValueError(f"step must name what is done, got {step!r}")
    return name


def environment(device_type: str = "cpu") -> dict[str, Any]:
    """Return what a result depends on beside code and inputs: versions, kind of device, number of threads."""
    return {"versions": versions(LIBRARIES), "device": device_type, "threads": torch.get_num_threads()}


@cache
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each of ``packages``, without those that are not installed."""
    found = {}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _device_type(inputs: Any) -> str:
    """Return the kind of the first device other than the CPU that anything in ``inputs`` lies on."""
    return next((kind for kind in _devices(inputs) if kind != "cpu"), "cpu")


def _devices(thing: Any) -> Iterator[str]:
    if isinstance(thing, torch.Tensor):
        yield thing.device.type
    elif isinstance(thing, torch.nn.Module):
        yield from (parameter.device.type for parameter in thing.parameters())
    elif isinstance(thing, torch.device):
        yield thing.type
    elif isinstance(thing, (Mapping, list, tuple)):
        for value in thing.values() if isinstance(thing, Mapping) else thing:
            yield from _devices(value)


def plain(step: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` exactly as it will come back out of the store.

    Raises:
        TypeError: it is no mapping, or a value can be neither a tensor nor JSON.
    """
    if not isinstance(content, Mapping):
        raise TypeError(f"the step {step} must return a mapping, not a {type(content).__name__}")
    found: dict[str, Any] = {}
    for name, value in content.items():
        if not isinstance(name, str):
            raise TypeError(f"the step {step} returned a name that is no string: {name!r}")
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.array(value, order="C"))
        if isinstance(value, torch.Tensor):
            found[name] = value.detach().cpu().contiguous().clone()
            continue
        if isinstance(value, np.generic):
            value = value.item()
        try:
            found[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"the step {step} returned {name} as a {type(value).__name__}, neither a tensor nor JSON"
            ) from error
    return found


def _checksum(content: Mapping[str, Any], seconds: float) -> str:
    sums = {name: checksum(each) for name, each in content.items() if isinstance(each, torch.Tensor)}
    return digest(list(content), {**content, **sums}, seconds)
