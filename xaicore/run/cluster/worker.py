"""What runs on a node: a process of Ray's that computes one batch at a time and keeps models.

Everything travels as bytes of :func:`pack`, so that a tensor of a GPU finds the reserved one, whatever its number.
"""

import hashlib
import io
import os
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl
import torch

import xaicore
from xaicore.core.errors import UserError
from xaicore.run.store import LIBRARIES, plain, versions

IDLE_SECONDS = 10.0
"""After so many without a batch a worker frees the memory of its models."""

_kept: dict[tuple[str, str], Any] = {}
"""What the batches of the step share, unpacked: by its key and the GPU."""

_idle = threading.Timer(IDLE_SECONDS, _kept.clear)


class Job(NamedTuple):
    """What all batches of a step have in common.

    Attributes:
        step: its name.
        threads: CPU threads of torch and of the linear algebra below it, as many as the driver has.
        driver: the :func:`surroundings` of the driver.
        models: name of the constant → key of the model.
        keys: those of the function with the other constants, and of the models.
    """

    step: str
    threads: int
    driver: Mapping[str, str]
    models: Mapping[str, str]
    keys: tuple[str, ...]


def compute(job: Job, batch: bytes, *packed: np.ndarray[Any, Any]) -> tuple[dict[str, Any], float] | bytes:
    """Return what the function makes of a packed batch, and in how many seconds; or the packed error.

    ``packed`` is what the keys of the job stand for; it is unpacked once.
    """
    import ray

    global _idle
    _idle.cancel()
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # the next batch of this process may get another GPU
    gpu = "".join(f"cuda:{number}" for number in ray.get_gpu_ids())
    try:
        _compare(job.driver)
        _use_threads(job.threads)
        keys = [(key, gpu) for key in job.keys]
        for key in set(_kept) - set(keys):
            del _kept[key]
        found = {
            key: _kept[key] if key in _kept else unpack(content, gpu)
            for key, content in zip(keys, packed, strict=True)
        }
        _kept.update(found)
        function, constants = found[keys[0]]
        models = {name: found[key, gpu] for name, key in job.models.items()}
        arrays = unpack(batch, gpu)
        begin = time.perf_counter()
        content = plain(job.step, function(**arrays, **constants, **models))
        return content, time.perf_counter() - begin
    except Exception as error:
        return _sendable(error)
    finally:
        _idle = threading.Timer(IDLE_SECONDS, _kept.clear)
        _idle.daemon = True
        _idle.start()


def _compare(driver: Mapping[str, str]) -> None:
    """Refuse to compute where results would not be the driver's."""
    here = surroundings()
    for name in sorted({*driver, *here}):
        if driver.get(name) != here.get(name):
            difference = f"{name} is {here.get(name, 'missing')}, not {driver.get(name, 'missing')}"
            if name == "xaicore":
                difference = "the code of xaicore is another"
            raise UserError(
                f"a node of the cluster would compute other results: {difference}; install there what is here"
            )


@lru_cache(maxsize=1)
def _use_threads(count: int) -> None:
    torch.set_num_threads(count)
    threadpoolctl.threadpool_limits(count)


def _sendable(error: Exception) -> bytes:
    """Return ``error`` packed, with where it was raised, or what it said if it cannot be built from what is packed."""
    if not isinstance(error, UserError):  # which is one line
        trace = "".join(traceback.format_exception(error)).rstrip()
        error.add_note(f"raised in a worker of the cluster:\n{trace}")
    try:
        content = pack(error).content
        unpack(content)
    except Exception:
        found = RuntimeError(f"{type(error).__name__}: {error}")
        found.__notes__ = getattr(error, "__notes__", [])
        content = pack(found).content
    return content


@cache
def surroundings() -> dict[str, str]:
    """Return what results depend on beside their inputs and what a node can have otherwise: versions and our code."""
    folder = Path(xaicore.__file__).parent
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith("book/"):
            state.update(f"{name}:{path.stat().st_size}:".encode() + path.read_bytes())
    return {**versions(LIBRARIES), "xaicore": state.hexdigest()}


class Packed(NamedTuple):
    """Bytes for another process, and the kinds of devices that the tensors in them lie on."""

    content: bytes
    devices: frozenset[str]


def pack(thing: Any) -> Packed:
    """Return ``thing`` as bytes; functions of notebooks are carried along, those of modules named."""
    from ray import cloudpickle

    devices: set[str] = set()

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, torch.Tensor):
                devices.add(obj.device.type)
            return super().reducer_override(obj)

    file = io.BytesIO()
    torch.save(thing, file, pickle_module=SimpleNamespace(__name__="cloudpickle", Pickler=Pickler))
    return Packed(file.getvalue(), frozenset(devices))


def unpack(content: Any, gpu: str = "") -> Any:
    """Return what :func:`pack` was given, from its bytes; what lay on a GPU lies on ``gpu``."""

    def place(storage: Any, where: str) -> Any:
        return storage.cuda(torch.device(gpu or "cuda")) if where.startswith("cuda") else storage

    return torch.load(io.BytesIO(content), map_location=place, weights_only=False)


def carry_along(function: Callable[..., Any]) -> None:
    """Let :func:`pack` carry the code of the module of ``function`` if nodes do not have it: it is not installed."""
    from ray import cloudpickle

    name = getattr(function, "__module__", None) or ""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or name.split(".")[0] in ("xaicore", "__main__"):
        return
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "purelib", "platlib")]
    if not any(Path(file).resolve().is_relative_to(folder) for folder in installed):
        cloudpickle.register_pickle_by_value(sys.modules[name])
