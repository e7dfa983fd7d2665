"""What runs on a node: a process that keeps models and computes one batch at a time.

Everything travels as bytes of :func:`pack`, so that a tensor of a GPU finds the GPU of the worker, whatever its number.
"""

import hashlib
import io
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import threadpoolctl
import torch

import xaicore
from xaicore.core.errors import UserError
from xaicore.run.store import LIBRARIES, plain, versions


class Job(NamedTuple):
    """What all batches of a step have in common.

    Attributes:
        step: its name.
        rest: reference to the packed function and constants, without the models.
        models: name of the constant → digest and reference of the packed model.
    """

    step: str
    rest: Any
    models: dict[str, tuple[str, Any]]


class Worker:
    """The actor.

    Args:
        threads: CPU threads of torch and of the linear algebra below it, as many as the driver has.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._limits = threadpoolctl.threadpool_limits(threads)
        self._models: dict[str, Any] = {}
        self._rest: Any = None
        self._function: Callable[..., Mapping[str, Any]]
        self._constants: dict[str, Any] = {}

    def differs(self, driver: Mapping[str, str]) -> str | None:
        """Return in what this node is other than the ``driver``, None if its results are the same."""
        here = surroundings()
        for name in sorted({*driver, *here}):
            if driver.get(name) != here.get(name):
                if name == "xaicore":
                    return "the code of xaicore is another"
                return f"{name} is {here.get(name, 'missing')}, not {driver.get(name, 'missing')}"
        return None

    def compute(self, job: Job, batch: bytes) -> tuple[dict[str, Any], float] | bytes:
        """Return what the function makes of a packed batch, and in how many seconds; or the packed error."""
        try:
            if job.rest != self._rest:
                self._prepare(job)
            arrays = unpack(batch)
            begin = time.perf_counter()
            content = plain(job.step, self._function(**arrays, **self._constants))
            return content, time.perf_counter() - begin
        except Exception as error:
            return _sendable(error)

    def _prepare(self, job: Job) -> None:
        """Make the step's function and constants ready, with the models that are here from the step before."""
        import ray

        self._rest, self._constants = None, {}
        wanted = dict(job.models.values())
        self._models = {key: model for key, model in self._models.items() if key in wanted}
        for key, reference in wanted.items():
            if key not in self._models:
                self._models[key] = unpack(ray.get(reference))
        self._function, constants = unpack(ray.get(job.rest))
        self._constants = {**constants, **{name: self._models[key] for name, (key, _) in job.models.items()}}
        self._rest = job.rest


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
        for note in getattr(error, "__notes__", []):
            found.add_note(note)
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


def unpack(content: bytes) -> Any:
    """Return what :func:`pack` was given; what lay on a GPU lies on the first one this process may use."""
    return torch.load(io.BytesIO(content), map_location=_here, weights_only=False)


def _here(storage: Any, place: str) -> Any:
    return storage.cuda() if place.startswith("cuda") else storage


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
